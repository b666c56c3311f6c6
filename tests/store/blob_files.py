"""A small pool of blobs on the disk, for tests of what is built on one; and the content of images for it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository


class FolderOfBlobs:
    """Plain files by digest. Those in `using` are in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.using: set[Digest] = set()
        path.mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes) -> Digest:
        digest = Digest.of(content)
        self._file(digest).write_bytes(content)
        return digest

    def size(self, digest: Digest) -> int | None:
        file = self._file(digest)
        return file.stat().st_size if file.exists() else None

    def read(self, digest: Digest) -> bytes:
        return self._file(digest).read_bytes()

    def remove(self, digest: Digest) -> bool:
        if digest in self.using:
            return False
        self._file(digest).unlink(missing_ok=True)
        return True

    def iterate(self) -> Iterator[tuple[Digest, int]]:
        for file in list(self.path.iterdir()):
            yield Digest(f"sha256:{file.name}"), file.stat().st_size

    def in_use(self, digest: Digest) -> bool:
        return digest in self.using

    def _file(self, digest: Digest) -> Path:
        return self.path / digest.hex


def name_of(text: str) -> Name:
    host, _, repository = text.partition("/")
    return Name(Host(host), Repository(repository))


def some_descriptor(seed: int | str, media_type: str = media_types.OCI_MANIFEST) -> Descriptor:
    content = f"manifest {seed}".encode()
    return Descriptor(media_type, Digest.of(content), len(content))


def image_manifest(
    layers: Sequence[tuple[Digest, int]], subject: Digest | None = None, note: str = ""
) -> tuple[str, bytes]:
    """Media type and bytes of an image manifest over `layers` (digest, size)."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_EMPTY, "digest": Digest.of(b"{}"), "size": 2},
        "layers": [
            {"mediaType": media_types.OCI_LAYER_TAR, "digest": digest, "size": size} for digest, size in layers
        ],
        "annotations": {"note": note},
    }
    if subject is not None:
        document["subject"] = {"mediaType": media_types.OCI_MANIFEST, "digest": subject, "size": 1}
    return media_types.OCI_MANIFEST, json.dumps(document).encode()


def image_index(manifests: Sequence[tuple[Digest, int]]) -> tuple[str, bytes]:
    """Media type and bytes of an index over image manifests (digest, size)."""
    listed = [{"mediaType": media_types.OCI_MANIFEST, "digest": digest, "size": size} for digest, size in manifests]
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
    return media_types.OCI_INDEX, json.dumps(document).encode()
