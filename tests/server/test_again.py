"""Who asks again gets the answer from before as long as it is the right one, and it is kept no longer than that."""

from dataclasses import dataclass
from pathlib import Path

from mirror.oci.names import Name
from mirror.server.access import Identity
from mirror.server.answer import Answer
from mirror.server.registry import KNOWN_BYTES, RENEWED_HITS
from mirror.server.request import Request
from tests.content import LayoutWriter
from tests.server.conftest import NAME, Sample
from tests.serving import Mirror, serving

MANIFEST = f"/v2/{NAME}/manifests/1.0"


async def asked_thrice(mirror: Mirror, etag: str) -> set[tuple[int, str | None]]:
    """Status and digest of each way to ask; heads that are the same are answered from what is remembered of them."""
    found = set()
    for _ in range(3):
        for method in ("GET", "HEAD"):
            for headers in ({}, {"If-None-Match": etag}):
                answer = await mirror.request(method, MANIFEST, headers)
                found.add((answer.status, answer.headers.get("Docker-Content-Digest")))
    return found


async def test_a_tag_that_moves_is_answered_anew(sample: Sample, tmp_path: Path) -> None:
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        before = sample.image.digest
        assert await asked_thrice(mirror, f'"{before}"') == {(200, before), (304, before)}
        writer = LayoutWriter(tmp_path / "layouts" / NAME)
        moved = writer.image([b"moved"])
        writer.tag(moved, "1.0").save()
        await mirror.refresh()
        assert await asked_thrice(mirror, f'"{before}"') == {(200, moved.digest)}
        assert await asked_thrice(mirror, f'"{moved.digest}"') == {(200, moved.digest), (304, moved.digest)}


@dataclass
class Changing:
    """Now everybody may read everything, now nobody anything."""

    allows: bool = True

    def may_read(self, identity: Identity, name: Name) -> bool:
        return self.allows

    def may_read_all(self, identity: Identity) -> bool:
        return self.allows


async def test_who_may_read_is_asked_each_time(sample: Sample, tmp_path: Path) -> None:
    rule, digest = Changing(), sample.image.digest
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"], access=rule) as mirror:
        for _ in range(2):
            assert await asked_thrice(mirror, f'"{digest}"') == {(200, digest), (304, digest)}
            rule.allows = False
            assert await asked_thrice(mirror, f'"{digest}"') == {(404, None)}
            rule.allows = True


async def test_a_remembered_request_keeps_no_answer(sample: Sample, tmp_path: Path) -> None:
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        registry = mirror.running.listener.registry
        await mirror.get(MANIFEST)
        etag = f'"{sample.image.digest}"'
        requests = [
            Request(method, MANIFEST, mirror.host, if_none_match=condition)
            for method in ("GET", "HEAD")
            for condition in (None, etag)
        ]
        for request in requests:
            first, again = registry.find(request), registry.find(request)
            assert isinstance(first, Answer)
            assert again is first
            assert request.again() is not None
        del first, again
        registry._known.clear()
        assert [request.again() for request in requests] == [None] * 4


async def test_what_is_asked_for_all_the_time_is_not_dropped_for_what_is_not(sample: Sample, tmp_path: Path) -> None:
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        registry = mirror.running.listener.registry
        await mirror.get(MANIFEST)
        request = Request("GET", MANIFEST, mirror.host)
        kept, entry = registry.find(request), registry._known.get(request.key)
        assert entry is not None
        for number in range(4):
            for _ in range(RENEWED_HITS):
                assert registry.find(request) is kept
            # Half of all that is kept: what nobody has asked for since the one before goes.
            other = Request("GET", f"/v2/other/manifests/{number}", mirror.host)
            registry._known.put(other.key, entry, KNOWN_BYTES // 2)
            assert request.key in registry._known


async def test_ranges_are_not_remembered(sample: Sample, tmp_path: Path) -> None:
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        registry = mirror.running.listener.registry
        target = f"/v2/{NAME}/blobs/{sample.writer.blob(b'{}').digest}"
        await mirror.get(target)
        request = Request("GET", target, mirror.host, range="bytes=0-1")
        found = registry.find(request)
        assert isinstance(found, Answer)
        assert (found.status, request.again()) == (206, None)
