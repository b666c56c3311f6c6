"""What a local repository holds: never by digest alone, only what its manifests reach."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_MANIFEST
from tests.content import LayoutWriter, bare, describe
from tests.serving import DEADLINE_SECONDS, Mirror, serving, until


async def status(mirror: Mirror, path: str) -> int:
    got, headed = await mirror.get(f"/v2/{path}"), await mirror.head(f"/v2/{path}")
    assert got.status == headed.status
    return got.status


async def test_a_digest_of_another_repository_is_unknown_though_it_lies_in_the_same_layout(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    ours, theirs = writer.image([b"ours"]), writer.image([b"theirs"])
    loose = writer.blob(b"loose")
    writer.tag(ours, "1").tag(theirs, "quay.io/other:1").save()
    layers = {name: Digest.of(name.encode()) for name in ("ours", "theirs")}
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        for name, held, other in [("place", "ours", "theirs"), ("quay.io/other", "theirs", "ours")]:
            mine, not_mine = (ours, theirs) if held == "ours" else (theirs, ours)
            assert await status(mirror, f"{name}/manifests/{mine.digest}") == 200
            assert await status(mirror, f"{name}/blobs/{mine.digest}") == 200
            assert await status(mirror, f"{name}/blobs/{layers[held]}") == 200
            assert await status(mirror, f"{name}/manifests/{not_mine.digest}") == 404
            assert await status(mirror, f"{name}/blobs/{not_mine.digest}") == 404
            assert await status(mirror, f"{name}/blobs/{layers[other]}") == 404
            assert await status(mirror, f"{name}/blobs/{loose.digest}") == 404


async def test_a_subject_is_pointed_at_and_not_reached(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    secret = writer.image([b"secret"])
    writer.tag(secret, "quay.io/other:1").tag(writer.attachment(b"sbom", "a/b", secret), "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert await status(mirror, f"place/manifests/{secret.digest}") == 404
        assert await status(mirror, f"place/blobs/{Digest.of(b'secret')}") == 404


async def test_what_a_local_manifest_reaches_may_lie_in_any_layout(tmp_path: Path) -> None:
    """One pool of bytes: the index here, its child there, the layer in a third."""
    index, child, layer = (LayoutWriter(tmp_path / "layouts" / name) for name in ("index", "child", "layer"))
    image = child.image([b"layer"])
    index.tag(index.index([image]), "1").save()
    child.save()
    layer.blob(b"layer")
    child.blob_path(describe(b"layer")).unlink()
    layer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert await status(mirror, f"index/manifests/{image.digest}") == 200
        assert await status(mirror, f"index/blobs/{Digest.of(b'layer')}") == 200
        assert await status(mirror, f"child/manifests/{image.digest}") == 404


async def test_nested_indexes_are_served_by_digest_to_their_leaves(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    image = writer.image([b"leaf"])
    indexes = [writer.index([image], docker=True)]
    for _ in range(8):
        indexes.append(writer.index([indexes[-1], image]))
    writer.tag(indexes[-1], "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert await status(mirror, f"place/blobs/{Digest.of(b'leaf')}") == 200
        for one in (*indexes, image):
            answer = await mirror.get(f"/v2/place/manifests/{one.digest}")
            assert (answer.status, answer.body) == (200, writer.content(one))


async def test_a_sparse_index_is_served_and_its_missing_child_once_it_arrives(tmp_path: Path) -> None:
    """A missing child is a 404 when asked for; when a copy brings it, no index changes."""
    writer, aside = LayoutWriter(tmp_path / "layouts" / "place"), LayoutWriter(tmp_path / "aside")
    here, missing = writer.image([b"here"]), aside.image([b"missing"])
    index = writer.index([here, missing])
    writer.tag(index, "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert (await mirror.get("/v2/place/manifests/1")).body == writer.content(index)
        assert await status(mirror, f"place/manifests/{here.digest}") == 200
        answer = await mirror.get(f"/v2/place/manifests/{missing.digest}")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        assert await status(mirror, f"place/blobs/{Digest.of(b'missing')}") == 404
        writer.image([b"missing"])
        assert (await mirror.get(f"/v2/place/manifests/{missing.digest}")).body == aside.content(missing)
        # Looked for again, though not at every request: it costs a stat for each layout.
        await served(mirror, f"/v2/place/blobs/{Digest.of(b'missing')}")


async def served(mirror: Mirror, target: str) -> None:
    """Ask until it is there."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await mirror.get(target)).status != 200:
            pass


async def test_what_is_missing_is_said_in_one_line_for_each_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    children = [describe(name, OCI_MANIFEST) for name in (b"one", b"two")]
    writer.tag(writer.index(children), "1").tag(writer.index(children[:1]), "other/name:2").save()
    whole = LayoutWriter(tmp_path / "layouts" / "whole")
    whole.tag(whole.image(), "1").save()

    def said() -> list[tuple[str, int]]:
        fields = [one.__dict__["fields"] for one in caplog.records if one.message == "incomplete"]
        return [(one["path"], one["missing"]) for one in fields]

    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        await until(lambda: said() == [(str(writer.path), 2)])
        whole.tag(whole.image([b"2"]), "2").save()
        await mirror.refresh()
        assert await status(mirror, "whole/manifests/2") == 200
        writer.blob(b"one", OCI_MANIFEST)
        writer.tag(writer.image(), "3").save()
        await mirror.refresh()
        await until(lambda: said() == [(str(writer.path), 2), (str(writer.path), 1)])


async def test_a_tag_whose_manifest_arrives_later_is_served_then(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    image = writer.image()
    content = writer.content(image)
    writer.blob_path(image).unlink()
    writer.tag(image, "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        answer = await mirror.get("/v2/place/manifests/1")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        writer.blob_path(image).write_bytes(content)
        assert (await mirror.get("/v2/place/manifests/1")).body == content


async def test_a_referrer_that_arrives_later_is_listed_then(tmp_path: Path) -> None:
    """Its entry came with the index, its bytes after the first listing."""
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    image = writer.image()
    sbom = writer.attachment(b"sbom", "a/b", image)
    content = writer.content(sbom)
    writer.blob_path(sbom).unlink()
    writer.tag(image, "1").add(sbom).save()
    target = f"/v2/place/referrers/{image.digest}"
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert (await mirror.get(target)).json()["manifests"] == []
        writer.blob_path(sbom).write_bytes(content)
        await mirror.refresh()
        assert [one["digest"] for one in (await mirror.get(target)).json()["manifests"]] == [sbom.digest]


async def test_a_referrer_that_only_an_index_lists_is_listed_when_it_arrives(tmp_path: Path) -> None:
    """No index changes, and no entry without a name waits for it."""
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    image = writer.image()
    sbom = writer.attachment(b"sbom", "a/b", image)
    content = writer.content(sbom)
    writer.blob_path(sbom).unlink()
    writer.tag(writer.index([image, sbom]), "1").save()
    target = f"/v2/place/referrers/{image.digest}"
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert (await mirror.get(target)).json()["manifests"] == []
        writer.blob_path(sbom).write_bytes(content)
        found: list[Any] = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not found:
                found = (await mirror.get(target)).json()["manifests"]
        assert [one["digest"] for one in found] == [sbom.digest]


@pytest.mark.parametrize("damage", [b"", b"x" * 5, b"x" * 500])
async def test_a_blob_of_another_size_and_a_manifest_of_other_bytes_are_not_served(
    tmp_path: Path, damage: bytes
) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    image, whole = writer.image([b"layer"]), writer.image([b"whole"])
    writer.tag(image, "1").tag(whole, "2").save()
    layer = writer.blob(b"layer")
    writer.blob_path(image).write_bytes(damage)
    writer.blob_path(layer).write_bytes(damage * 2)
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        for path in ("manifests/1", f"manifests/{image.digest}", f"blobs/{layer.digest}"):
            assert await status(mirror, f"place/{path}") == 404
        assert await status(mirror, "place/manifests/2") == 200
        # Mended in place, it is served at once.
        writer.image([b"layer"])
        assert await status(mirror, "place/manifests/1") == 200


async def test_a_tag_with_an_underscore_is_tried_with_a_plus(tmp_path: Path) -> None:
    """For Helm, which writes `_` for the `+` of a chart's version."""
    writer = LayoutWriter(tmp_path / "layouts" / "chart")
    plus, both = writer.image([b"plus"]), writer.image([b"both"])
    own = writer.image([b"own"])
    writer.tag(plus, "1.1.0+oci").tag(both, "2.0+a").tag(own, "2.0_a").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        for tag, expected in [
            ("1.1.0+oci", plus),
            ("1.1.0%2Boci", plus),
            ("1.1.0%2boci", plus),
            ("1.1.0_oci", plus),
            ("2.0_a", own),
            ("2.0+a", both),
        ]:
            answer = await mirror.get(f"/v2/chart/manifests/{tag}")
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, expected.digest), tag
        for tag in ("1.1.0-oci", "1.1.0%20oci", "1.1_0+oci"):
            assert await status(mirror, f"chart/manifests/{tag}") == 404
        assert (await mirror.get("/v2/chart/tags/list")).json()["tags"] == ["1.1.0+oci", "2.0+a", "2.0_a"]


async def test_the_newer_file_wins_a_tag_with_one_warning_that_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = LayoutWriter(tmp_path / "layouts" / "a"), LayoutWriter(tmp_path / "layouts" / "b")
    images = [older.image([b"older"]), newer.image([b"newer"])]
    for writer, image, when in [(older, images[0], 1_000), (newer, images[1], 2_000)]:
        writer.tag(image, "quay.io/app:1").save()
        os.utime(writer.path / "index.json", (when, when))
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        with caplog.at_level("WARNING"):
            for _ in range(3):
                answer = await mirror.get("/v2/quay.io/app/manifests/1")
                assert answer.headers["Docker-Content-Digest"] == images[1].digest
        said = [str(getattr(record, "fields", "")) for record in caplog.records]
        both = [text for text in said if str(older.path) in text and str(newer.path) in text]
        assert len(both) == 1
        # Each stays reachable by digest.
        for image in images:
            assert await status(mirror, f"quay.io/app/manifests/{image.digest}") == 200
        assert (await mirror.get("/v2/quay.io/app/tags/list")).json()["tags"] == ["1"]
        os.utime(older.path / "index.json", (3_000, 3_000))
        await mirror.refresh()
        answer = await mirror.get("/v2/quay.io/app/manifests/1")
        assert answer.headers["Docker-Content-Digest"] == images[0].digest


async def test_a_half_written_index_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    writer.tag(writer.image(), "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        whole = (writer.path / "index.json").read_bytes()
        (writer.path / "index.json").write_bytes(whole[:-7])
        other = LayoutWriter(tmp_path / "layouts" / "other")
        other.tag(other.image(), "1").save()
        await mirror.refresh()
        assert await status(mirror, "other/manifests/1") == 200
        assert await status(mirror, "place/manifests/1") == 200
        writer.tag(writer.image([b"2"]), "2").save()
        await mirror.refresh()
        assert await status(mirror, "place/manifests/2") == 200


async def test_an_index_may_list_what_is_no_manifest(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "place")
    odd = writer.blob(b"odd", "application/vnd.example.odd")
    writer.tag(writer.index([Descriptor(odd.media_type, odd.digest, odd.size), writer.image()]), "1").save()
    document = bare(odd)
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert (await mirror.get(f"/v2/place/blobs/{document['digest']}")).body == b"odd"
        assert await status(mirror, f"place/manifests/{document['digest']}") == 404
