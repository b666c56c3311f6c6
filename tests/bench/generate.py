"""Local content at scale: real layouts and archives with small real blobs, for `tests.bench.scale`.

    python -m tests.bench.generate FOLDER --layouts 5000 --manifests 10 --tags 20000 --archives 100

writes `FOLDER/layouts`, `FOLDER/tags`, `FOLDER/archives`. Every digest is that of its bytes, also in the archives,
whose layers are holes: 50 GiB of apparent size take some MiB of disk.
"""

import argparse
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mirror.oci import media_types
from tests.content import REF_NAME

MIB = 1024 * 1024
LAYERS_PER_ARCHIVE = 32
IMAGES_PER_ARCHIVE = 10
SMALL_BLOBS_PER_ARCHIVE = 100
_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_BLOCK_BYTES = 512

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of zero bytes, without the bytes."""

    digest: str
    size: int


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes, media_type: str) -> Json:
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


def encoded(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def config_of(diff_ids: Sequence[str], name: str) -> bytes:
    """An image configuration that no other image has."""
    root = {"type": "layers", "diff_ids": list(diff_ids)}
    return encoded({"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}}, "rootfs": root})


def manifest_of(config: bytes, layers: Sequence[Json], **more: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST}
    return encoded({**document, "config": described(config, media_types.OCI_CONFIG), "layers": list(layers), **more})


class Layout:
    """One layout directory, written without detours: there will be thousands of it."""

    def __init__(self, path: Path) -> None:
        self.blobs = f"{path}/blobs/sha256"
        self.path = path
        self.entries: list[Json] = []
        os.makedirs(self.blobs, exist_ok=True)

    def blob(self, content: bytes) -> None:
        Path(f"{self.blobs}/{hashlib.sha256(content).hexdigest()}").write_bytes(content)

    def image(self, name: str, layer: bytes, tag: str | None, **more: Any) -> Json:
        """An image of its own over `layer`; its descriptor, listed under `tag`."""
        config = config_of([sha256(layer)], name)
        content = manifest_of(config, [described(layer, media_types.OCI_LAYER_TAR)], **more)
        self.blob(config)
        return self.add(content, media_types.OCI_MANIFEST, tag)

    def add(self, content: bytes, media_type: str, tag: str | None) -> Json:
        self.blob(content)
        descriptor = described(content, media_type)
        self.entries.append({**descriptor, "annotations": {REF_NAME: tag}} if tag else descriptor)
        return descriptor

    def save(self) -> None:
        (self.path / "oci-layout").write_bytes(_LAYOUT_FILE)
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": self.entries}
        (self.path / "index.json").write_bytes(encoded(index))


def layout_name(number: int) -> str:
    return f"team{number // 100:03}/app{number:05}"


def write_layouts(root: Path, layouts: int, manifests: int) -> None:
    """Layouts with `manifests` (at least 4) each: tagged images, one index of two of them, one untagged referrer."""
    for number in range(layouts):
        name = layout_name(number)
        layout = Layout(root / name)
        layer = f"layer of {name}".encode()
        layout.blob(layer)
        images = [layout.image(f"{name}:v{image}", layer, f"v{image}") for image in range(manifests - 2)]
        children = [
            {**images[0], "platform": {"os": "linux", "architecture": "amd64"}},
            {**images[1], "platform": {"os": "linux", "architecture": "arm64"}},
        ]
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": children}
        layout.add(encoded(index), media_types.OCI_INDEX, "multi")
        layout.image(f"sbom of {name}", layer, None, subject=images[0], artifactType="application/vnd.example.sbom")
        layout.save()


def write_tags(root: Path, tags: int) -> None:
    """A repository `many` with that many tags, each an image of its own, and `one` with a single tag."""
    for name, count in (("many", tags), ("one", 1)):
        layout = Layout(root / name)
        layer = b"the layer of all of them"
        layout.blob(layer)
        for number in range(count):
            layout.image(f"{name}:{number}", layer, tag_name(number))
        layout.save()


def tag_name(number: int) -> str:
    return f"1.{number // 1000}.{number % 1000}"


def zero_layers(count: int, size_bytes: int) -> list[Layer]:
    """Layers of zeros, about `size_bytes` each, no two alike; hashed in one pass over the longest."""
    hasher = hashlib.sha256(bytes(size_bytes))
    layers = []
    for number in range(count):
        layers.append(Layer(f"sha256:{hasher.hexdigest()}", size_bytes + number * _BLOCK_BYTES))
        hasher.update(bytes(_BLOCK_BYTES))
    return layers


def write_archives(root: Path, count: int, archive_bytes: int) -> None:
    """Archives of `archive_bytes` apparent size: three of four hold a layout, the fourth is a `docker save`."""
    root.mkdir(parents=True, exist_ok=True)
    layers = zero_layers(LAYERS_PER_ARCHIVE * 4, archive_bytes // LAYERS_PER_ARCHIVE)
    for number in range(count):
        start = number % 4 * LAYERS_PER_ARCHIVE
        own = layers[start : start + LAYERS_PER_ARCHIVE]
        files = _saved(number, own) if number % 4 == 3 else _layout(number, own)
        with (root / f"bundle{number:03}.tar").open("wb") as file:
            write_sparse_tar(file, files)


def write_sparse_tar(file: BinaryIO, files: Iterator[tuple[str, bytes | Layer]]) -> None:
    """A whole tar: real headers and small members, holes where layers are."""
    for name, content in files:
        member = tarfile.TarInfo(name)
        member.size = content.size if isinstance(content, Layer) else len(content)
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        if isinstance(content, bytes):
            file.write(content)
            file.write(bytes(-len(content) % _BLOCK_BYTES))
        else:
            file.seek(content.size, os.SEEK_CUR)
    file.write(bytes(2 * _BLOCK_BYTES))


def _images(number: int, layers: Sequence[Layer]) -> Iterator[tuple[str, bytes, Sequence[Layer]]]:
    """Tag, config and layers of each image of an archive."""
    for image in range(IMAGES_PER_ARCHIVE):
        own = layers[image : image + 8]
        yield f"v{image}", config_of([layer.digest for layer in own], f"bundle{number} {image}"), own


def _layout(number: int, layers: Sequence[Layer]) -> Iterator[tuple[str, bytes | Layer]]:
    entries = []
    yield "oci-layout", _LAYOUT_FILE
    for tag, config, own in _images(number, layers):
        listed = [{"mediaType": media_types.OCI_LAYER_TAR, "digest": one.digest, "size": one.size} for one in own]
        content = manifest_of(config, listed)
        entries.append({**described(content, media_types.OCI_MANIFEST), "annotations": {REF_NAME: tag}})
        yield from ((f"blobs/sha256/{sha256(blob)[7:]}", blob) for blob in (config, content))
    for small in range(SMALL_BLOBS_PER_ARCHIVE):
        blob = f"blob {small} of bundle {number}".encode()
        yield f"blobs/sha256/{sha256(blob)[7:]}", blob
    yield from ((f"blobs/sha256/{layer.digest[7:]}", layer) for layer in layers)
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    yield "index.json", encoded(index)


def _saved(number: int, layers: Sequence[Layer]) -> Iterator[tuple[str, bytes | Layer]]:
    items: list[Mapping[str, Any]] = []
    yield from ((f"{layer.digest[7:]}/layer.tar", layer) for layer in layers)
    for tag, config, own in _images(number, layers):
        name = f"{sha256(config)[7:]}.json"
        paths = [f"{layer.digest[7:]}/layer.tar" for layer in own]
        items.append({"Config": name, "RepoTags": [f"bundles/saved{number:03}:{tag}"], "Layers": paths})
        yield name, config
    yield "manifest.json", encoded(items)


def main() -> None:
    parser = argparse.ArgumentParser(description="write local content at scale")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layouts", type=int, default=5_000)
    parser.add_argument("--manifests", type=int, default=10, help="in each layout")
    parser.add_argument("--tags", type=int, default=20_000, help="in one repository")
    parser.add_argument("--archives", type=int, default=100)
    parser.add_argument("--archive-mib", type=int, default=512, help="apparent size of each archive")
    options = parser.parse_args()
    write_layouts(options.folder / "layouts", options.layouts, options.manifests)
    write_tags(options.folder / "tags", options.tags)
    write_archives(options.folder / "archives", options.archives, options.archive_mib * MIB)


if __name__ == "__main__":
    main()
