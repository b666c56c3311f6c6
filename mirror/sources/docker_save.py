"""Images as `docker save`, `podman save` and `crane pull` write them: `manifest.json`, a config, layers as tars.

Such an archive has no registry manifest, and cannot give back the digest that its image had in a registry: one is
generated here over what is stored, the same for the same archive on every machine and version of this program.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import DigestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.store.layer_hashes import Claim, StoredLayer, compression
from mirror.store.tar_index import Member, MemberUnusable, OpenTar

# 20,000 tags take about 4 MiB.
MAX_MANIFEST_JSON_BYTES = 64 * 1024 * 1024
_LAYER_TYPES = {
    None: media_types.OCI_LAYER_TAR,
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}
# crane: <hex>.tar.gz; podman: <hex>.tar, <hex>.json; Docker 25+: blobs/sha256/<hex>; crane's config: sha256:<hex>.
_HEX_NAME = re.compile(r"(?:.*[/:])?([0-9a-f]{64})(?:\.json|\.tar|\.tar\.gz|\.tar\.zst|\.tgz)?")
# In the order of image-spec 1.1, image-index.md.
_PLATFORM_STRINGS = ("architecture", "os", "os.version", "variant")


@dataclass(frozen=True, slots=True)
class SavedImage:
    """One item of a `manifest.json`; `config` and `layers` are paths beside it."""

    config: str
    repo_tags: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """The manifest of a saved image: its descriptor and bytes, and where what it lists lies.

    While `needs_hashing` is not empty there is no manifest yet, and `descriptor` is None: those layers' digests
    are only to be had by reading them.
    """

    descriptor: Descriptor | None = None
    content: bytes = b""
    members: Mapping[Digest, Member] = field(default_factory=dict)
    unverified: tuple[Claim, ...] = ()
    needs_hashing: tuple[Member, ...] = ()


class ImageBroken(Exception):
    """Why a saved image is not served."""


def read_manifest_json(content: bytes) -> tuple[tuple[SavedImage, ...], int] | None:
    """The images that a `manifest.json` lists, and how many of its items are none.

    None where it is some other program's file of that name.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, list):
        return None
    images = tuple(image for item in document if (image := _saved_image(item)) is not None)
    return (images, len(document) - len(images)) if images or not document else None


def _saved_image(item: Any) -> SavedImage | None:
    if not isinstance(item, dict):
        return None
    config, tags, layers = item.get("Config"), item.get("RepoTags") or [], item.get("Layers") or []
    if not isinstance(config, str) or not _are_strings(tags) or not _are_strings(layers):
        return None
    return SavedImage(config, tuple(tags), tuple(layers))


def read_config(tar: OpenTar, folder: str, image: SavedImage) -> tuple[Digest, Member, bytes]:
    """The config of an image, as stored. Raises ImageBroken; so too where its bytes are not what its name says."""
    try:
        member, content = tar.content(_beside(folder, image.config), MAX_MANIFEST_BYTES)
    except MemberUnusable as error:
        raise ImageBroken(f"config {error}") from None
    digest = Digest.of(content)
    named = named_digest(image.config)
    if named is not None and named != digest:
        raise ImageBroken(f"config {image.config[:200]!r} has the digest {digest}")
    return digest, member, content


def generate(tar: OpenTar, folder: str, image: SavedImage, known: Mapping[Member, StoredLayer]) -> Generated:
    """The OCI manifest of a saved image: config and layers by the digests of the bytes as stored.

    The digest of an uncompressed layer is its diff_id, that of a compressed one is in its name; both are only
    claims (`unverified`) unless `known` has what hashing found, which always counts. Raises ImageBroken.
    """
    digest, config_member, config = read_config(tar, folder, image)
    document = _config_document(config)
    diff_ids = _diff_ids(document)
    if len(diff_ids) != len(image.layers):
        raise ImageBroken(f"its config lists {len(diff_ids)} layers, manifest.json {len(image.layers)}")
    members = {digest: config_member}
    layers: list[Descriptor] = []
    unverified: list[Claim] = []
    needs_hashing: list[Member] = []
    for path, diff_id in zip(image.layers, diff_ids, strict=True):
        member = tar.find(_beside(folder, path))
        if member is None:
            raise ImageBroken(f"layer {path[:200]!r} is not in the archive")
        kind = compression(tar.start(member))
        if kind not in _LAYER_TYPES:
            raise ImageBroken(f"layer {path[:200]!r} is compressed as {kind}: gzip and zstd are served")
        claimed = _layer_digest(path, kind is not None, diff_id, known.get(member))
        if claimed is None:
            needs_hashing.append(member)
            continue
        if member not in known:
            unverified.append(Claim(claimed, member, diff_id))
        members.setdefault(claimed, member)
        layers.append(Descriptor(_LAYER_TYPES[kind], claimed, member.size))
    if needs_hashing:
        return Generated(unverified=tuple(dict.fromkeys(unverified)), needs_hashing=tuple(needs_hashing))
    content = _manifest(Descriptor(media_types.OCI_CONFIG, digest, config_member.size), layers)
    descriptor = Descriptor(media_types.OCI_MANIFEST, Digest.of(content), len(content), platform=_platform(document))
    return Generated(descriptor, content, members, tuple(dict.fromkeys(unverified)))


def named_digest(path: str) -> Digest | None:
    """The digest that a file's name claims for its bytes, where it claims one."""
    match = _HEX_NAME.fullmatch(path)
    return Digest(f"sha256:{match[1]}") if match else None


def _layer_digest(path: str, compressed: bool, diff_id: Digest, known: StoredLayer | None) -> Digest | None:
    if known is not None:
        if known.diff_id != diff_id:
            found = known.problem or f"it is {known.diff_id}"
            raise ImageBroken(f"layer {path[:200]!r} is not the {diff_id} of its config: {found}")
        return known.digest
    if not compressed:
        return diff_id
    named = named_digest(path)
    # Some tools name a compressed layer by what it unpacks to.
    return None if named == diff_id else named


def _manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    # These bytes are a promise: another key, order or space is another digest for every client.
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _config_document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImageBroken(f"its config is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ImageBroken(f"its config is {type(document).__name__}, expected an object")
    return document


def _diff_ids(config: dict[str, Any]) -> list[Digest]:
    root = config.get("rootfs")
    listed = root.get("diff_ids") if isinstance(root, dict) else None
    listed = [] if listed is None else listed
    if not _are_strings(listed):
        raise ImageBroken("rootfs.diff_ids of its config is no list of digests")
    try:
        diff_ids = [Digest.parse(text) for text in listed]
    except DigestInvalid as error:
        raise ImageBroken(f"rootfs.diff_ids of its config: {error}") from None
    if any(digest.algorithm != "sha256" for digest in diff_ids):
        raise ImageBroken("rootfs.diff_ids of its config are not sha256")
    return diff_ids


def _platform(config: Mapping[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = {
        key: config[key] for key in _PLATFORM_STRINGS if isinstance(config.get(key), str) and config[key]
    }
    features = config.get("os.features")
    if features and _are_strings(features):
        found["os.features"] = features
    return found if "os" in found and "architecture" in found else None


def _beside(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder and not path.startswith("/") else path


def _are_strings(document: Any) -> bool:
    return isinstance(document, list) and all(isinstance(item, str) for item in document)
