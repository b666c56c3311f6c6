"""Descriptors and manifests (image-spec 1.1, descriptor.md, manifest.md, image-index.md)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES, ManifestLinks
from tests.oci.strategies import descriptor_documents, digests, json_values, manifest_documents

DIGEST = Digest.of(b"x")
DESCRIPTOR = {"mediaType": "text/plain", "digest": DIGEST, "size": 1}
CONFIG = {"mediaType": "application/vnd.example+json", "digest": DIGEST, "size": 1}


def parse(document: Any, descriptor_type: str | None = None) -> ManifestLinks:
    return ManifestLinks.parse(json.dumps(document).encode(), descriptor_type)


@given(st.tuples(st.text(max_size=9), digests, st.integers(0, 1 << 63)).map(lambda fields: Descriptor(*fields)))
def test_a_descriptor_as_written_is_read_as_the_same_descriptor(descriptor: Descriptor) -> None:
    assert Descriptor.from_json(json.loads(json.dumps(descriptor.to_json()))) == descriptor


@given(descriptor_documents | json_values)
def test_a_descriptor_is_read_or_refused_as_invalid(document: Any) -> None:
    try:
        found = Descriptor.from_json(document)
    except ManifestInvalid as error:
        assert error.detail  # noqa: PT017 either outcome is right; only other errors are not
        return
    assert (found.digest, found.size) == (document["digest"], document["size"])
    assert found.size >= 0
    assert isinstance(document["size"], int)
    assert Descriptor.from_json(found.to_json()) == found


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_manifest_are_refused_as_invalid(content: bytes) -> None:
    _read_or_refuse(content, None)


@given(manifest_documents, st.none() | st.sampled_from(sorted(media_types.MANIFESTS)) | st.text(max_size=5))
def test_a_manifest_is_read_or_refused_as_invalid(document: dict[str, Any], descriptor_type: str | None) -> None:
    _read_or_refuse(json.dumps(document).encode(), descriptor_type)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'{"layers":[{"digest":"' + DIGEST.encode() + b'","size":' + b"9" * 10_000 + b"}]}",
        b'{"layers":[]}' + b" " * MAX_MANIFEST_BYTES,
        b'{"layers":[]}{"layers":[]}',
        b"null",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_broken_and_hostile_json_is_refused_as_invalid(content: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        ManifestLinks.parse(content)


def _read_or_refuse(content: bytes, descriptor_type: str | None) -> None:
    try:
        found = ManifestLinks.parse(content, descriptor_type)
    except ManifestInvalid as error:
        assert str(error)  # noqa: PT017 either outcome is right; only other errors are not
        return
    assert found.media_type in media_types.MANIFESTS
    assert all(child.media_type == "" or media_types.is_manifest(child.media_type) for child in found.manifests)


MANIFEST_TYPES = st.sampled_from(sorted(media_types.MANIFESTS))
# Not well-formed, not known, not a string, not there.
UNKNOWN_TYPES: st.SearchStrategy[Any] = st.sampled_from(
    ["", "text/plain", f"{media_types.OCI_INDEX};charset=utf-8", 7, None, [], {}]
)
SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"manifests": []}, media_types.OCI_INDEX),
    ({"layers": []}, media_types.OCI_MANIFEST),
    ({"config": DESCRIPTOR}, media_types.OCI_MANIFEST),
    ({"config": DESCRIPTOR, "layers": [DESCRIPTOR]}, media_types.OCI_MANIFEST),
    ({"blobs": []}, media_types.OCI_ARTIFACT),
]


@given(MANIFEST_TYPES, st.none() | MANIFEST_TYPES, st.sampled_from(SHAPES))
def test_a_manifest_is_served_as_its_own_media_type_where_that_is_known(
    own: str, descriptor_type: str | None, shape: tuple[dict[str, Any], str]
) -> None:
    assert parse({"mediaType": own, **shape[0]}, descriptor_type).media_type == own


@given(UNKNOWN_TYPES, MANIFEST_TYPES, st.sampled_from(SHAPES))
def test_else_as_what_its_descriptor_says(own: Any, descriptor_type: str, shape: tuple[dict[str, Any], str]) -> None:
    assert parse({"mediaType": own, **shape[0]}, descriptor_type).media_type == descriptor_type
    assert parse(shape[0], descriptor_type).media_type == descriptor_type


@given(UNKNOWN_TYPES, st.sampled_from([None, "", "text/plain"]), st.sampled_from(SHAPES))
def test_else_by_its_shape(own: Any, descriptor_type: str | None, shape: tuple[dict[str, Any], str]) -> None:
    assert parse({"mediaType": own, **shape[0]}, descriptor_type).media_type == shape[1]
    assert parse(shape[0], descriptor_type).media_type == shape[1]


@pytest.mark.parametrize("document", [{}, {"schemaVersion": 2}, {"mediaType": "text/plain"}, {"manifests": {}}])
def test_what_has_neither_type_nor_shape_of_a_manifest_is_none(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        parse(document)


@pytest.mark.parametrize(
    ("document", "artifact_type"),
    [
        # distribution-spec 1.1, "Listing Referrers": artifactType, else the media type of an image's config.
        ({"artifactType": "a/b", "config": CONFIG}, "a/b"),
        ({"config": CONFIG}, CONFIG["mediaType"]),
        ({"artifactType": "", "config": CONFIG}, CONFIG["mediaType"]),
        ({"layers": []}, None),
        ({"manifests": [], "artifactType": "a/b"}, "a/b"),
        ({"manifests": []}, None),
        ({"blobs": [], "artifactType": "a/b"}, "a/b"),
        # Scenarios: the prototypes wrote the type into an annotation.
        (
            {
                "config": {**CONFIG, "mediaType": media_types.OCI_CONFIG},
                "annotations": {"org.opencontainers.artifact.type": "p/q"},
            },
            "p/q",
        ),
    ],
)
def test_the_type_of_an_artifact(document: dict[str, Any], artifact_type: str | None) -> None:
    assert parse(document).artifact_type == artifact_type


def test_a_manifest_lists_its_config_layers_and_blobs_and_its_subject_is_not_among_them() -> None:
    descriptors = [{**DESCRIPTOR, "digest": Digest.of(bytes([number]))} for number in range(5)]
    image = parse({"config": descriptors[0], "layers": descriptors[1:3], "subject": descriptors[3]})
    assert [child.digest for child in image.children()] == [one["digest"] for one in descriptors[:3]]
    assert image.subject == descriptors[3]["digest"]
    artifact = parse({"blobs": descriptors[:2], "subject": descriptors[3]})
    assert [child.digest for child in artifact.children()] == [one["digest"] for one in descriptors[:2]]


@pytest.mark.parametrize("digest", ["blake3:" + "0" * 64, "sha384:" + "0" * 96, "multihash+base58:QmRZxt2b1"])
def test_what_has_a_digest_of_an_algorithm_that_is_not_known_here_is_passed_over(digest: str) -> None:
    """descriptor.md: "digests with unrecognized algorithms … pass validation if they comply with the … grammar"."""
    foreign = {**DESCRIPTOR, "digest": digest}
    index = parse({"manifests": [foreign, {**DESCRIPTOR, "mediaType": media_types.OCI_MANIFEST}]})
    assert [child.digest for child in index.children()] == [DIGEST]
    image = parse({"config": foreign, "layers": [DESCRIPTOR, foreign], "subject": foreign})
    assert [child.digest for child in image.children()] == [DIGEST]
    assert (image.config, image.subject, image.artifact_type) == (None, None, DESCRIPTOR["mediaType"])
    with pytest.raises(ManifestInvalid, match="size"):
        parse({"manifests": [{**foreign, "size": -1}]})


@pytest.mark.parametrize(
    "digest", ["", "blake3", "blake3:", ":00", "Blake3:00", "bl/ake:00", "sha256:00", "sha512:xyz"]
)
def test_what_has_no_digest_at_all_is_refused_as_invalid(digest: str) -> None:
    with pytest.raises(ManifestInvalid, match="not one of a registered algorithm"):
        parse({"manifests": [{**DESCRIPTOR, "digest": digest}]})


def test_refers_is_read_where_subject_is_absent() -> None:
    other = {**DESCRIPTOR, "digest": Digest.of(b"other")}
    assert parse({"layers": [], "refers": DESCRIPTOR}).subject == DIGEST
    assert parse({"layers": [], "subject": other, "refers": DESCRIPTOR}).subject == other["digest"]
    assert parse({"layers": [], "subject": None, "refers": DESCRIPTOR}).subject == DIGEST
