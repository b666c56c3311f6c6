"""Content for the tests: blobs, manifests of every kind, and layouts on disk.

    writer = LayoutWriter(root / "team" / "app")
    image = writer.image(layers=[b"hello"])
    writer.tag(image, "1.0").save()

Everything is deterministic: the same calls write the same bytes, on every machine.
"""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Self

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest

Document = Mapping[str, Any]
Platform = Mapping[str, Any]

REF_NAME = "org.opencontainers.image.ref.name"
LINUX_AMD64: Platform = {"architecture": "amd64", "os": "linux"}
LINUX_ARM64: Platform = {"architecture": "arm64", "os": "linux", "variant": "v8"}

EMPTY_JSON = b"{}"
# One member of a gzip file holds at most this much in a single stored block (RFC 1951, 3.2.4).
_STORED_BLOCK_BYTES = 0xFFFF


class Style(Enum):
    """How a document's bytes look; a registry must give back whichever it was given."""

    COMPACT = "compact"
    INDENTED = "indented"
    # As `jq` and people write it, with a last line feed and letters beyond ASCII unescaped.
    TRAILING_NEWLINE = "trailing newline"


def encode(document: Document, style: Style = Style.COMPACT) -> bytes:
    """The document as JSON bytes in one of the styles that tools write."""
    match style:
        case Style.COMPACT:
            return json.dumps(document, separators=(",", ":")).encode()
        case Style.INDENTED:
            return json.dumps(document, indent=3).encode()
        case Style.TRAILING_NEWLINE:
            return json.dumps(document, indent="\t", ensure_ascii=False).encode() + b"\n"


def describe(
    content: bytes,
    media_type: str = media_types.OCTET_STREAM,
    algorithm: str = "sha256",
    *,
    platform: Platform | None = None,
    artifact_type: str | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """The descriptor of `content`."""
    digest = Digest.of(content, algorithm)
    return Descriptor(media_type, digest, len(content), artifact_type, platform, annotations or {})


def bare(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as `subject` and `config` carry it: media type, digest and size, nothing else."""
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size).to_json()


def tar(files: Mapping[str, bytes], mode: int = 0o755) -> bytes:
    """A tar of regular files, owned by root, of the year 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def gzip_stored(content: bytes) -> bytes:
    """`content` as gzip (RFC 1952) in stored blocks: compressors of different zlibs give different bytes."""
    blocks = [content[at : at + _STORED_BLOCK_BYTES] for at in range(0, len(content), _STORED_BLOCK_BYTES)] or [b""]
    out = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for number, block in enumerate(blocks, start=1):
        out += [struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF), block]
    out.append(struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF))
    return b"".join(out)


def image_config(layers: Sequence[bytes], platform: Platform = LINUX_AMD64, **config: Any) -> dict[str, Any]:
    """An image configuration (image-spec 1.1, config.md) over uncompressed `layers`; `config` is its `config`."""
    diff_ids = [str(Digest.of(layer)) for layer in layers]
    return {**platform, "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}


class LayoutWriter:
    """Writes one OCI image layout. Blobs land at once, `index.json` and `oci-layout` with `save`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Descriptor] = []

    def blob(
        self, content: bytes, media_type: str = media_types.OCTET_STREAM, algorithm: str = "sha256"
    ) -> Descriptor:
        descriptor = describe(content, media_type, algorithm)
        target = self.blob_path(descriptor)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return descriptor

    def blob_path(self, descriptor: Descriptor) -> Path:
        return self.path / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex

    def content(self, descriptor: Descriptor) -> bytes:
        """The bytes that were written for `descriptor`."""
        return self.blob_path(descriptor).read_bytes()

    def manifest(
        self,
        document: Document,
        media_type: str | None = None,
        *,
        style: Style = Style.COMPACT,
        algorithm: str = "sha256",
        platform: Platform | None = None,
    ) -> Descriptor:
        """Write any document as a manifest; the descriptor's type is `media_type`, else the document's own.

        The descriptor carries the document's artifactType and annotations, as a referrers list needs them.
        """
        found = media_type or document.get("mediaType") or media_types.OCI_MANIFEST
        written = self.blob(encode(document, style), found, algorithm)
        return written._replace(platform=platform, artifact_type=document.get("artifactType"))

    def image(
        self,
        layers: Sequence[bytes] = (b"layer",),
        *,
        config: Document | None = None,
        config_type: str | None = None,
        layer_type: str | None = None,
        platform: Platform | None = None,
        subject: Descriptor | None = None,
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        style: Style = Style.COMPACT,
        algorithm: str = "sha256",
        docker: bool = False,
    ) -> Descriptor:
        """An image manifest over `layers`, stored as they are. Layers need not be tars: no registry looks.

        `config` None writes an image configuration that fits; `docker` uses schema 2's media types.
        """
        own, default_config, default_layer = (
            (media_types.DOCKER_MANIFEST, _DOCKER_CONFIG, _DOCKER_LAYER)
            if docker
            else (media_types.OCI_MANIFEST, media_types.OCI_CONFIG, media_types.OCI_LAYER_TAR)
        )
        written = image_config(layers, platform or LINUX_AMD64) if config is None else config
        config_blob = self.blob(encode(written), config_type or default_config, algorithm)
        layer_blobs = [self.blob(layer, layer_type or default_layer, algorithm) for layer in layers]
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": own}
        if artifact_type:
            document["artifactType"] = artifact_type
        document["config"] = bare(config_blob)
        document["layers"] = [bare(layer) for layer in layer_blobs]
        _add(document, subject, annotations)
        return self.manifest(document, style=style, algorithm=algorithm, platform=platform)

    def attachment(
        self,
        content: bytes,
        artifact_type: str,
        subject: Descriptor | None,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """What refers to `subject` today: an image manifest with the empty config (image-spec 1.1, manifest.md)."""
        return self.image(
            [content],
            config={},
            config_type=media_types.OCI_EMPTY,
            layer_type=artifact_type,
            artifact_type=artifact_type,
            subject=subject,
            annotations=annotations,
        )

    def artifact(
        self,
        blobs: Sequence[bytes] = (),
        *,
        artifact_type: str = "application/vnd.example.sbom",
        blob_type: str = media_types.OCTET_STREAM,
        subject: Descriptor | None = None,
        annotations: Mapping[str, str] | None = None,
        style: Style = Style.COMPACT,
    ) -> Descriptor:
        """An artifact manifest of the reference-types prototypes: `blobs`; no config, no layers."""
        document: dict[str, Any] = {"mediaType": media_types.OCI_ARTIFACT, "artifactType": artifact_type}
        document["blobs"] = [bare(self.blob(content, blob_type)) for content in blobs]
        _add(document, subject, annotations)
        return self.manifest(document, style=style)

    def index(
        self,
        manifests: Sequence[Descriptor],
        *,
        subject: Descriptor | None = None,
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        style: Style = Style.COMPACT,
        algorithm: str = "sha256",
        docker: bool = False,
    ) -> Descriptor:
        """An index (or, with `docker`, a manifest list) of `manifests`, which need not exist."""
        own = media_types.DOCKER_LIST if docker else media_types.OCI_INDEX
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": own}
        if artifact_type:
            document["artifactType"] = artifact_type
        document["manifests"] = [child.to_json() for child in manifests]
        _add(document, subject, annotations)
        return self.manifest(document, style=style, algorithm=algorithm)

    def tag(self, descriptor: Descriptor, ref_name: str, annotations: Mapping[str, str] | None = None) -> Self:
        """List `descriptor` in `index.json` under `ref_name`, which may be a bare tag or a full reference."""
        return self.add(descriptor, {REF_NAME: ref_name, **(annotations or {})})

    def add(self, descriptor: Descriptor, annotations: Mapping[str, str] | None = None) -> Self:
        """List `descriptor` in `index.json` without a tag."""
        self.entries.append(descriptor._replace(annotations={**descriptor.annotations, **(annotations or {})}))
        return self

    def save(self, *, style: Style = Style.COMPACT) -> Path:
        """Write `oci-layout` and `index.json`, each in one step (rename); gives the layout's folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        index = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [entry.to_json() for entry in self.entries],
        }
        write_by_rename(self.path / "oci-layout", encode({"imageLayoutVersion": "1.0.0"}))
        write_by_rename(self.path / "index.json", encode(index, style))
        return self.path


def write_by_rename(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that no reader sees half of it."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def _add(
    document: dict[str, Any], subject: Descriptor | None, annotations: Mapping[str, str] | None
) -> dict[str, Any]:
    if subject is not None:
        document["subject"] = bare(subject)
    if annotations:
        document["annotations"] = dict(annotations)
    return document
