"""Plain requests, remembered names and which source is asked: the design's "Names", over a stub upstream."""

import asyncio
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestUnknown, NameUnknown, OciError, Unavailable, Unknown
from mirror.oci.manifest import Manifest
from mirror.oci.media_types import OCI_MANIFEST
from mirror.oci.names import DOCKER_HUB, Host, Name, Repository
from mirror.server.access import Everyone
from mirror.server.names import NameRules
from mirror.server.registry import Pending, Registry
from mirror.server.request import Request
from mirror.sources.local import LocalContent
from mirror.sources.merged import Content, FirstMatch
from mirror.sources.place import Entry, Member, Place
from mirror.sources.source import Found, Source
from mirror.store.body import BlobBody
from mirror.store.generated import GeneratedManifests
from mirror.store.remembered import RememberedNames
from tests.content import LayoutWriter, describe
from tests.serving import DEADLINE_SECONDS, Mirror, serving, until
from tests.sources.scans import ToldScans

STRANGER = Manifest(Digest.of(b"stranger"), OCI_MANIFEST, b"stranger")
REFERRER = Descriptor(OCI_MANIFEST, Digest.of(b"referrer"), 8)
QUAY = Host("quay.io")


class Upstream:
    """A `Source` that knows every name, and records what it was asked for."""

    def __init__(self, error: OciError | None = None) -> None:
        self.asked: list[Name] = []
        self._error = error

    def _ask(self, name: Name) -> None:
        self.asked.append(name)
        if self._error is not None:
            raise self._error

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        self._ask(name)
        return Found(STRANGER)

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        self._ask(name)
        return Found(8)

    @asynccontextmanager
    async def open_blob(self, name: Name, digest: Digest) -> AsyncIterator[Found[BlobBody]]:
        self._ask(name)
        yield Found(b"stranger")

    async def tags(self, name: Name, last: str, limit: int | None) -> Found[Sequence[str]]:
        self._ask(name)
        return Found([tag for tag in ("1", "9", "stranger") if tag > last][:limit])

    async def referrers(self, name: Name, subject: Digest) -> Found[Sequence[Descriptor]]:
        self._ask(name)
        return Found([REFERRER])


async def resolved(content: Content, host: Host | None, repository: str, reference: str = "1") -> Manifest:
    name, source = content.meant(host, Repository(repository))
    return (await source.resolve(name, reference)).value


def over(mirror: Mirror, upstream: Source, host: Host = DOCKER_HUB, default: Host | None = DOCKER_HUB) -> Content:
    return Content(mirror.running.local, {host: upstream}, default)


def write(folder: Path, *ref_names: str) -> LayoutWriter:
    writer = LayoutWriter(folder)
    for number, ref_name in enumerate(ref_names or ("1",)):
        writer.tag(writer.image([b"%d" % number]), ref_name)
    writer.save()
    return writer


async def test_local_content_is_asked_first_and_unknowns_go_upstream(tmp_path: Path) -> None:
    writer = write(tmp_path / "layouts" / "docker.io" / "team" / "app")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream)
        for host in (DOCKER_HUB, None):
            assert (await resolved(content, host, "team/app")).digest == writer.entries[0].digest
        assert upstream.asked == []
        for host in (DOCKER_HUB, None):
            assert await resolved(content, host, "team/app", "other") == STRANGER
        assert await resolved(content, None, "ubuntu") == STRANGER
        name = Name(DOCKER_HUB, Repository("team/app"))
        assert upstream.asked == [name, name, Name(DOCKER_HUB, Repository("library/ubuntu"))]


@pytest.mark.parametrize("repository", ["team/app", "bare"])
@pytest.mark.parametrize("reference", ["other", Digest.of(b"other")])
async def test_a_plain_request_is_never_completed_where_local_content_answers_to_that_name(
    tmp_path: Path, repository: str, reference: str
) -> None:
    write(tmp_path / "layouts" / repository)
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream)
        with pytest.raises(ManifestUnknown):
            await resolved(content, None, repository, reference)
        name, source = content.meant(None, Repository(repository))
        assert (await source.tags(name, "", None)).value == ["1"]
        assert (await source.referrers(name, Digest.of(b"x"))).value == []
        with pytest.raises(Unknown):
            await source.stat_blob(name, Digest.of(b"x"))
        with pytest.raises(Unknown):
            async with source.open_blob(name, Digest.of(b"x")):
                pass
        assert upstream.asked == []
        # Named in full, it is completed.
        assert await resolved(content, DOCKER_HUB, repository, reference) == STRANGER


async def test_a_repo_tag_without_host_is_docker_hubs_and_plain(tmp_path: Path) -> None:
    """`legacy:1` is docker.io/library/legacy, and nobody said docker.io."""
    write(tmp_path / "layouts" / "place", "legacy:1", "team/web:1")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream)
        for repository in ("legacy", "team/web"):
            assert (await resolved(content, None, repository)) != STRANGER
            with pytest.raises(ManifestUnknown):
                await resolved(content, None, repository, "other")
        with pytest.raises(ManifestUnknown):
            await resolved(content, None, "library/legacy", "other")
        assert upstream.asked == []
        assert await resolved(content, DOCKER_HUB, "team/web", "other") == STRANGER
        assert (await resolved(content, DOCKER_HUB, "library/legacy")) != STRANGER


async def test_a_host_written_into_the_content_makes_plain_requests_complete(tmp_path: Path) -> None:
    write(tmp_path / "layouts" / "place", "docker.io/library/named:1")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        content = over(mirror, Upstream())
        assert await resolved(content, None, "named") != STRANGER
        assert await resolved(content, None, "named", "other") == STRANGER


async def test_a_root_of_docker_hub_makes_its_bare_names_docker_hubs(tmp_path: Path) -> None:
    write(tmp_path / "layouts" / "team" / "app")
    write(tmp_path / "layouts" / "single")
    root = {"path": tmp_path / "layouts", "host": "docker.io"}
    async with serving(tmp_path / "mirror", layouts=[root]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream)
        assert await resolved(content, None, "team/app") != STRANGER
        assert await resolved(content, None, "single") != STRANGER
        assert await resolved(content, None, "team/app", "other") == STRANGER
        assert upstream.asked == [Name(DOCKER_HUB, Repository("team/app"))]


async def test_without_a_default_host_plain_requests_stay_here(tmp_path: Path) -> None:
    write(tmp_path / "layouts" / "team" / "app")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream, default=None)
        with pytest.raises(NameUnknown):
            await resolved(content, None, "ubuntu")
        assert upstream.asked == []


async def test_an_upstream_is_asked_for_its_own_host_only(tmp_path: Path) -> None:
    async with serving(tmp_path / "mirror") as mirror:
        upstream = Upstream()
        content = over(mirror, upstream, QUAY)
        for host in (None, DOCKER_HUB, Host("ghcr.io"), Host("quay.io:5000")):
            with pytest.raises(NameUnknown):
                await resolved(content, host, "team/app")
        assert upstream.asked == []
        assert await resolved(content, QUAY, "team/app") == STRANGER


async def gone(mirror: Mirror, folder: Path) -> None:
    shutil.rmtree(folder)
    await mirror.refresh()


@pytest.mark.parametrize(
    ("ref_name", "plain", "remembered"),
    [("1", "team/app", "team/app"), ("legacy:1", "legacy", "docker.io/library/legacy")],
)
async def test_a_name_once_seen_is_nobody_elses_until_it_is_forgotten(
    tmp_path: Path, ref_name: str, plain: str, remembered: str
) -> None:
    place = tmp_path / "layouts" / "team" / "app"
    write(place, ref_name)
    (tmp_path / "layouts" / "stays").mkdir()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream)
        assert (await mirror.get(f"/v2/{plain}/manifests/1")).status == 200
        await gone(mirror, place)
        with pytest.raises(NameUnknown):
            await resolved(content, None, plain)
        answer = await mirror.get(f"/v2/{plain}/manifests/1")
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
        assert upstream.asked == []
        # Named in full, nobody can mean the local one.
        assert await resolved(content, DOCKER_HUB, plain.replace("legacy", "library/legacy")) == STRANGER
    # It outlives the process.
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        content = over(mirror, upstream)
        with pytest.raises(NameUnknown):
            await resolved(content, None, plain)
        assert upstream.asked == []
        assert await forget(tmp_path / "mirror", remembered) == 0
        write(tmp_path / "layouts" / "other")
        await mirror.refresh()
        assert await resolved(content, None, plain) == STRANGER
        # What was never there, or is forgotten already, is found wrong.
        assert await forget(tmp_path / "mirror", remembered) == 1


async def test_a_name_that_is_forgotten_while_its_content_is_here_is_seen_again(tmp_path: Path) -> None:
    place = tmp_path / "layouts" / "team" / "app"
    write(place)
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        file = mirror.cache / "remembered"
        assert await forget(tmp_path / "mirror", "team/app") == 0
        assert "team/app" not in await asyncio.to_thread(file.read_text)
        mirror.running.local.rescan()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while "team/app" not in await asyncio.to_thread(file.read_text):
                pass
        await gone(mirror, place)
        upstream = Upstream()
        with pytest.raises(NameUnknown):
            await resolved(over(mirror, upstream), None, "team/app")
        assert upstream.asked == []


async def forget(folder: Path, name: str) -> int:
    """`mirror forget NAME`, in a process of its own; its exit status."""
    command = (sys.executable, "-m", "mirror", "forget", name, "--config", str(folder / "config.yaml"))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


async def test_a_broken_place_keeps_its_name_from_strangers(tmp_path: Path) -> None:
    place = tmp_path / "layouts" / "team" / "app"
    write(place)
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        pass
    (place / "index.json").write_bytes(b"{half")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        upstream = Upstream()
        with pytest.raises(NameUnknown):
            await resolved(over(mirror, upstream), None, "team/app")
        assert upstream.asked == []


async def test_lists_are_the_union_of_all_sources(tmp_path: Path) -> None:
    place = tmp_path / "layouts" / "quay.io" / "team" / "app"
    writer = LayoutWriter(place)
    image = writer.image()
    sbom = writer.attachment(b"sbom", "a/b", image)
    writer.tag(image, "1").tag(image, "2").add(sbom).save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        content = over(mirror, Upstream(), QUAY)
        name, source = content.meant(QUAY, Repository("team/app"))
        assert (await source.tags(name, "", None)).value == ["1", "2", "9", "stranger"]
        assert (await source.tags(name, "1", 2)).value == ["2", "9"]
        assert {one.digest for one in (await source.referrers(name, image.digest)).value} == {
            sbom.digest,
            REFERRER.digest,
        }
        # One failing: the other's, with a warning; both unknown: unknown.
        content = over(mirror, Upstream(Unavailable("down")), QUAY)
        name, source = content.meant(QUAY, Repository("team/app"))
        for found in (await source.tags(name, "", None), await source.referrers(name, image.digest)):
            assert found.origin.warnings
        assert (await source.tags(name, "", None)).value == ["1", "2"]
        name, source = content.meant(QUAY, Repository("no/such"))
        with pytest.raises(Unavailable):
            await source.tags(name, "", None)
        content = over(mirror, Upstream(NameUnknown()), QUAY)
        name, source = content.meant(QUAY, Repository("team/app"))
        found_tags = await source.tags(name, "", None)
        assert (found_tags.value, found_tags.origin.warnings) == (["1", "2"], ())


async def test_what_is_unknown_everywhere_is_told_as_exactly_as_any_source_can() -> None:
    name = Name(QUAY, Repository("team/app"))
    pairs: list[tuple[Any, Any]] = [(ManifestUnknown, NameUnknown), (NameUnknown, ManifestUnknown)]
    for first, second in pairs:
        source = FirstMatch((Upstream(first()), Upstream(second())))
        with pytest.raises(ManifestUnknown):
            await source.resolve(name, "1")


class Slow(Mapping[Digest, Member]):
    """Members of an archive on a disk that does not answer until it is released."""

    def __init__(self) -> None:
        self.asked, self.released = threading.Event(), threading.Event()

    def __getitem__(self, digest: Digest) -> Member:
        self.asked.set()
        assert self.released.wait(DEADLINE_SECONDS)
        raise KeyError(digest)

    def __iter__(self) -> Iterator[Digest]:
        return iter(())

    def __len__(self) -> int:
        return 0


async def test_a_plain_request_waits_until_entries_without_names_have_found_their_homes(tmp_path: Path) -> None:
    """Such an entry may give the repository its name, and a stranger must not answer in between."""
    entry = Entry(describe(b"unnamed", OCI_MANIFEST))
    members = Slow()
    name = Name(None, Repository("team/app"))
    place = Place(str(tmp_path / "x.tar"), str(tmp_path), name, (entry,), 0, members=members)
    remembered = await asyncio.to_thread(RememberedNames, tmp_path / "remembered")
    scans = ToldScans()
    scans.tell([place])
    local = LocalContent(scans, remembered, GeneratedManifests(tmp_path / "generated"))
    upstream = Upstream()
    registry = Registry(
        Content(local, {DOCKER_HUB: upstream}, DOCKER_HUB), NameRules(DOCKER_HUB), Everyone(), lambda: True
    )
    local.start()
    try:
        await until(members.asked.is_set)
        found = registry.find(Request("GET", "/v2/team/app/manifests/1"))
        assert isinstance(found, Pending)
        asking = asyncio.create_task(status_of(found))
        await asyncio.sleep(0)
        members.released.set()
        assert await asking == 404
        assert upstream.asked == []
        assert name in local.snapshot.repositories
    finally:
        members.released.set()
        await local.stop()


async def status_of(pending: Pending) -> int:
    async with pending.answer() as answer:
        return answer.status
