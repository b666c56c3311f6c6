"""The builder writes layouts that mean what the test asked for."""

import gzip
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from tests.content import REF_NAME, LayoutWriter, Style, gzip_stored


@given(st.binary(max_size=200_000))
def test_stored_gzip_unpacks_to_what_went_in(content: bytes) -> None:
    assert gzip.decompress(gzip_stored(content)) == content


def test_a_layout_lists_its_tags_and_holds_its_blobs_under_their_digests(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path)
    image = writer.image([b"one", b""], algorithm="sha512")
    writer.tag(image, "1.0").add(writer.artifact([b"sbom"], subject=image)).save()
    listed = json.loads((tmp_path / "index.json").read_bytes())["manifests"]
    assert [entry.get("annotations", {}).get(REF_NAME) for entry in listed] == ["1.0", None]
    for blob in (tmp_path / "blobs").glob("*/*"):
        algorithm = blob.parent.name
        assert blob.name == Digest.of(blob.read_bytes(), algorithm).hex
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_styles_are_other_bytes_of_the_same_manifest(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path)
    written = [writer.image([b"same"], style=style) for style in Style]
    assert len({image.digest for image in written}) == len(Style)
    first, *others = [ManifestLinks.parse(writer.content(image)) for image in written]
    assert all(links == first for links in others)


def test_every_kind_of_manifest_reads_back_as_its_kind(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path)
    image, docker = writer.image(), writer.image(docker=True)
    kinds = {
        media_types.OCI_MANIFEST: image,
        media_types.DOCKER_MANIFEST: docker,
        media_types.OCI_INDEX: writer.index([image]),
        media_types.DOCKER_LIST: writer.index([docker], docker=True),
        media_types.OCI_ARTIFACT: writer.artifact([b"x"], subject=image),
    }
    for media_type, descriptor in kinds.items():
        assert descriptor.media_type == media_type
        assert ManifestLinks.parse(writer.content(descriptor)).media_type == media_type
    attached = writer.attachment(b"{}", "application/spdx+json", image)
    links = ManifestLinks.parse(writer.content(attached))
    assert (links.subject, links.artifact_type) == (image.digest, "application/spdx+json")
