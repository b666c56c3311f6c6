"""Referrers of an upstream: thousands of them, joined with local ones, and fetched along with their image."""

import asyncio
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES, ManifestLinks
from tests.content import LayoutWriter
from tests.hub import Image, eventually
from tests.hub.content import build_reference
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, listed, path, pulling, upstream
from tests.serving import Mirror, serving

COUNT = 5_000
TYPES = ("application/vnd.example.a+json", "application/vnd.example.b+json")
NOTE = "x" * 700


async def walk(mirror: Mirror, target: str | None) -> tuple[list[str], int]:
    """All digests that are listed, and on how many pages."""
    found: list[str] = []
    pages = 0
    while target is not None:
        answer = await mirror.get(target)
        assert (answer.status, len(answer.body) <= MAX_MANIFEST_BYTES) == (200, True)
        found += [entry["digest"] for entry in answer.json()["manifests"]]
        link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        target, pages = (link[1] if link else None), pages + 1
    return found, pages


async def test_five_thousand_referrers_of_an_upstream_and_of_a_layout_come_once_each(
    hubs: Hubs, tmp_path: Path
) -> None:
    """The upstream pages by 1,000, the mirror by 4 MiB; half of the layout's are the upstream's too."""
    hub = await hubs(page_size=1000)
    image = hub.image(APP, "1.0")
    wanted: dict[str, str] = {}
    writer = LayoutWriter(tmp_path / "layouts" / HOST / APP)
    for number in range(COUNT + 50):
        kind = TYPES[number % 2]
        reference = _reference(image, kind, number)
        wanted[reference.digest] = kind
        if number < COUNT:
            hub.keep(APP, reference)
        if number >= COUNT - 50:
            for blob in reference.blobs.values():
                writer.blob(blob)
            writer.add(writer.blob(reference.content, reference.media_type))
    writer.save()
    async with serving(
        tmp_path / "mirror", {"upstreams": {HOST: upstream(hub)}}, layouts=[tmp_path / "layouts"]
    ) as mirror:
        target = path("referrers", image.digest)
        found, pages = await walk(mirror, target)
        assert len(found) == len(set(found))
        assert set(found) == wanted.keys()
        assert pages > 1
        for kind in TYPES:
            separator = "&" if "?" in target else "?"
            filtered, _ = await walk(mirror, f"{target}{separator}artifactType={quote(kind, safe='')}")
            assert len(filtered) == len(set(filtered))
            assert set(filtered) == {digest for digest, its in wanted.items() if its == kind}
        assert hub.count(kind="referrers") == 5, "one walk through the upstream's list"


async def test_of_two_sources_the_one_that_answers_is_told_with_a_warning_and_then_both(
    hubs: Hubs, tmp_path: Path
) -> None:
    hub = await hubs()
    image = hub.image(APP, "1.0")
    theirs = hub.reference(APP, image, TYPES[0])
    writer = LayoutWriter(tmp_path / "layouts" / HOST / APP)
    subject = Descriptor(image.media_type, image.digest, len(image.content))
    ours = writer.attachment(b"ours", TYPES[1], subject)
    writer.tag(writer.image([b"another"]), "2.0").add(ours).save()
    config = {"upstreams": {HOST: upstream(hub, referrers_ttl=0, unknown_ttl=0)}}
    async with serving(tmp_path / "mirror", config, layouts=[tmp_path / "layouts"]) as mirror:
        target = path("referrers", image.digest)
        await hub.refuse()
        answer = await mirror.get(target)
        assert [entry["digest"] for entry in answer.json()["manifests"]] == [ours.digest]
        assert answer.headers["Warning"].startswith("299 ")
        await hub.accept()
        async with asyncio.timeout(20):  # until its breaker lets a question through
            while "Warning" in answer.headers:
                await asyncio.sleep(0.1)
                answer = await mirror.get(target)
        entries = {entry["digest"]: entry["artifactType"] for entry in answer.json()["manifests"]}
        assert entries == {ours.digest: TYPES[1], theirs.digest: TYPES[0]}


def _reference(image: Image, kind: str, number: int) -> Image:
    made = build_reference(image, kind, b"%d" % number)
    document = json.loads(made.content) | {"annotations": {"org.example.note": NOTE}}
    return Image(made.media_type, json.dumps(document).encode(), made.blobs)


async def test_five_thousand_referrers_below_a_fallback_tag(hubs: Hubs, tmp_path: Path) -> None:
    hub = await hubs(current=True)
    image = hub.image(APP, "1.0")
    digests = [Digest.of(b"%d" % number) for number in range(COUNT)]
    entries = [Descriptor(media_types.OCI_MANIFEST, one, 1, TYPES[0]).to_json() for one in digests]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    hub.keep(APP, Image(media_types.OCI_INDEX, json.dumps(index).encode(), {}), image.digest.fallback_tag)
    async with pulling(tmp_path / "mirror", {HOST: upstream(hub)}) as mirror:
        found, _ = await walk(mirror, path("referrers", image.digest))
        assert sorted(found) == sorted(digests)


@pytest.mark.parametrize("current", [False, True], ids=["api", "fallback tag"])
async def test_what_refers_to_an_image_is_fetched_along_with_it(hubs: Hubs, tmp_path: Path, current: bool) -> None:
    hub = await hubs(current=current)
    image = hub.image(APP, "1.0")
    signature = hub.reference(APP, image, "application/vnd.example.signature", content=b"signed")
    async with pulling(tmp_path / "mirror", {HOST: upstream(hub, prefetch="referrers")}) as mirror:
        assert (await mirror.get(path("manifests", "1.0"))).status == 200
        blobs = ManifestLinks.parse(signature.content).blobs
        files = [mirror.cache / "blobs" / "sha256" / one.digest.hex[:2] / one.digest.hex for one in blobs]
        await eventually(lambda: all(file.exists() for file in files))
        await hub.refuse()
        found, _ = await walk(mirror, path("referrers", image.digest))
        assert found == [signature.digest]
        assert (await mirror.get(path("manifests", signature.digest))).body == signature.content
        for blob in blobs:
            assert (await mirror.get(path("blobs", blob.digest))).status == 200


@pytest.mark.parametrize("current", [False, True], ids=["api", "fallback tag"])
async def test_a_list_never_had_is_made_of_the_referrers_that_were_pulled(
    hubs: Hubs, tmp_path: Path, current: bool
) -> None:
    hub = await hubs(current=current)
    image, other = hub.image(APP, "1.0"), hub.image(APP, "2.0")
    kept = [hub.reference(APP, image, f"application/vnd.example.{number}") for number in range(2)]
    hub.reference(APP, image, "application/vnd.example.never-pulled")
    elsewhere = hub.reference("team/other", hub.image("team/other", "1.0"), "application/vnd.example.elsewhere")
    async with pulling(tmp_path / "mirror", {HOST: upstream(hub)}) as mirror:
        for reference in ("1.0", "2.0", kept[0].digest):
            assert (await mirror.get(path("manifests", reference))).status == 200
        there = path("manifests", elsewhere.digest, repository="team/other")
        assert (await mirror.get(there)).status == 200
        await hub.refuse()
        target = path("referrers", image.digest)
        answer = await mirror.get(target)
        assert listed(answer.body) == [kept[0].digest]
        assert answer.json()["manifests"][0]["artifactType"] == "application/vnd.example.0"
        assert "only what is cached" in answer.headers["Warning"]
        filtered = await mirror.get(f"{target}?artifactType=application/vnd.example.1")
        assert (listed(filtered.body), filtered.headers["OCI-Filters-Applied"]) == ([], "artifactType")
        assert listed((await mirror.get(path("referrers", other.digest))).body) == []
        # A client that knows no API asks for the tag.
        tag = await mirror.get(path("manifests", image.digest.fallback_tag))
        assert listed(tag.body) == [kept[0].digest]


async def test_referrers_are_not_fetched_unasked(hubs: Hubs, tmp_path: Path) -> None:
    hub = await hubs()
    image = hub.image(APP, "1.0")
    hub.reference(APP, image, "application/vnd.example.signature")
    async with pulling(tmp_path / "mirror", {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(path("manifests", "1.0"))).status == 200
        await asyncio.gather(*(mirror.get(path("blobs", blob)) for blob in image.blobs))
    assert hub.count(kind="referrers") == 0
    assert {logged.kind for logged in hub.requests} <= {"ping", "manifest", "blob"}
