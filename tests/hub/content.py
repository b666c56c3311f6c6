"""A small builder of images: real tars, real manifests, the same bytes every time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mirror.oci import media_types
from mirror.oci.digest import Digest
from tests.content import encode, gzip_stored, image_config, tar


@dataclass(frozen=True)
class Image:
    """A manifest, its exact bytes, and the blobs that it lists (by digest)."""

    media_type: str
    content: bytes
    blobs: Mapping[Digest, bytes]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.content)

    @property
    def layers(self) -> list[Digest]:
        return [Digest(layer["digest"]) for layer in json.loads(self.content).get("layers", [])]

    @property
    def config(self) -> Digest:
        return Digest(json.loads(self.content)["config"]["digest"])

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content), **more}


def build_image(
    files: Mapping[str, bytes], *, architecture: str = "amd64", layers: list[bytes] | None = None, **more: Any
) -> Image:
    """One gzip layer with `files`, and `layers` (any bytes, as plain tar) after it."""
    tars = [tar(files), *(layers or [])]
    stored = [gzip_stored(tars[0]), *(layers or [])]
    types = [media_types.OCI_LAYER_GZIP, *[media_types.OCI_LAYER_TAR] * len(layers or [])]
    config = encode(image_config(tars, {"architecture": architecture, "os": "linux"}))
    blobs = {Digest.of(blob): blob for blob in [config, *stored]}
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_CONFIG, "digest": Digest.of(config), "size": len(config)},
        "layers": [
            {"mediaType": kind, "digest": Digest.of(blob), "size": len(blob)}
            for kind, blob in zip(types, stored, strict=True)
        ],
        **more,
    }
    return Image(media_types.OCI_MANIFEST, encode(document), blobs)


def build_index(images: Mapping[str, Image]) -> Image:
    """An index over images by architecture."""
    manifests = [
        image.descriptor(platform={"os": "linux", "architecture": architecture})
        for architecture, image in images.items()
    ]
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests}
    return Image(media_types.OCI_INDEX, encode(document), {})


def build_reference(subject: Image, artifact_type: str, content: bytes, *, artifact_manifest: bool = False) -> Image:
    """Something that refers to `subject`: an image manifest, or an artifact manifest of the prototypes."""
    blob = {"mediaType": "application/octet-stream", "digest": Digest.of(content), "size": len(content)}
    blobs = {Digest.of(content): content}
    if artifact_manifest:
        document: dict[str, Any] = {"mediaType": media_types.OCI_ARTIFACT, "artifactType": artifact_type}
        document |= {"blobs": [blob], "subject": subject.descriptor()}
        return Image(media_types.OCI_ARTIFACT, encode(document), blobs)
    empty = b"{}"
    config = {"mediaType": media_types.OCI_EMPTY, "digest": Digest.of(empty), "size": len(empty)}
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "artifactType": artifact_type}
    document |= {"config": config, "layers": [blob], "subject": subject.descriptor()}
    return Image(media_types.OCI_MANIFEST, encode(document), blobs | {Digest.of(empty): empty})
