"""Archives as the tools of the field write them, built here byte by byte."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.oci import media_types
from mirror.oci.digest import Digest

CONTAINERD = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Files = Mapping[str, "bytes | Link"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def packed(content: bytes) -> bytes:
    """gzip, the same at every time."""
    return gzip.compress(content, mtime=0)


def tar_of(files: Files, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar with these members, in this order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tar_format) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, Link):
                member.type, member.linkname = tarfile.SYMTYPE, content.target
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def write(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(files))
    return path


def layer(text: str) -> bytes:
    """An uncompressed layer with one file."""
    return tar_of({"etc/motd": text.encode()})


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def config(layers: Sequence[bytes], **more: Any) -> bytes:
    """The config of an image of these (uncompressed) layers."""
    diff_ids = [f"sha256:{sha256(content)}" for content in layers]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return as_json(document | more)


def old_docker(images: Mapping[str, Sequence[bytes]], **more: Any) -> dict[str, bytes | Link]:
    """`docker save` up to 24: a folder per layer; a layer that comes again is a link to the first."""
    files: dict[str, bytes | Link] = {}
    listed = []
    first: dict[bytes, str] = {}
    for tag, layers in images.items():
        content = config(layers, **more)
        paths = []
        for number, stored in enumerate(layers):
            folder = sha256(f"{tag} {number}".encode())  # a v1 id: not the digest of anything stored
            files[f"{folder}/VERSION"] = b"1.0"
            files[f"{folder}/json"] = b"{}"
            known = first.setdefault(stored, folder)
            files[f"{folder}/layer.tar"] = stored if known == folder else Link(f"../{known}/layer.tar")
            paths.append(f"{folder}/layer.tar")
        files[f"{sha256(content)}.json"] = content
        listed.append({"Config": f"{sha256(content)}.json", "RepoTags": [tag], "Layers": paths})
    return files | {"manifest.json": as_json(listed), "repositories": b"{}"}


def podman(tags: Sequence[str], layers: Sequence[bytes]) -> dict[str, bytes | Link]:
    """`podman save`, `skopeo copy … docker-archive:`: layers by diff_id, v1 folders with links to them."""
    content = config(layers)
    files: dict[str, bytes | Link] = {f"{sha256(stored)}.tar": stored for stored in layers}
    files[f"{sha256(content)}.json"] = content
    for stored in layers:
        files[f"{sha256(b'id' + stored)}/layer.tar"] = Link(f"../{sha256(stored)}.tar")
    item = {
        "Config": f"{sha256(content)}.json",
        "RepoTags": list(tags),
        "Layers": [f"{sha256(stored)}.tar" for stored in layers],
    }
    return files | {"manifest.json": as_json([item])}


def crane(tags: Sequence[str], layers: Sequence[bytes]) -> dict[str, bytes | Link]:
    """`crane pull --format tarball`: compressed layers by their digest, the config as `sha256:<hex>`."""
    content = config(layers)
    files: dict[str, bytes | Link] = {f"sha256:{sha256(content)}": content}
    paths = []
    for stored in map(packed, layers):
        paths.append(f"{sha256(stored)}.tar.gz")
        files[paths[-1]] = stored
    item = {"Config": f"sha256:{sha256(content)}", "RepoTags": list(tags), "Layers": paths}
    return files | {"manifest.json": as_json([item])}


def blob(content: bytes, algorithm: str = "sha256") -> tuple[str, bytes]:
    digest = Digest.of(content, algorithm)
    return f"blobs/{digest.algorithm}/{digest.hex}", content


def image(layers: Sequence[bytes], compressed: bool = False, **more: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An OCI image over layers, stored as given or gzipped: its descriptor, and its blobs by their paths."""
    content = config(layers, **more)
    stored = list(map(packed, layers)) if compressed else list(layers)
    layer_type = media_types.OCI_LAYER_GZIP if compressed else media_types.OCI_LAYER_TAR
    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {"mediaType": media_types.OCI_CONFIG, **described_by(content)},
            "layers": [{"mediaType": layer_type, **described_by(each)} for each in stored],
        }
    )
    descriptor = {"mediaType": media_types.OCI_MANIFEST, **described_by(manifest)}
    return descriptor, dict(map(blob, [content, *stored, manifest]))


def index_of(descriptors: Sequence[Mapping[str, Any]]) -> bytes:
    return as_json({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(descriptors)})


def described_by(content: bytes) -> dict[str, Any]:
    return {"digest": f"sha256:{sha256(content)}", "size": len(content)}


def layout(descriptors: Sequence[Mapping[str, Any]], blobs: Mapping[str, bytes]) -> dict[str, bytes]:
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index_of(descriptors), **blobs}


def named(descriptor: Mapping[str, Any], **annotations: str) -> dict[str, Any]:
    return {**descriptor, "annotations": annotations}


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}
