"""One tag in several places: its platforms joined into one index, the same one on every machine.

Rules: the design's "Coalescing". The newer file wins a platform; what has no platform is kept by digest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.sources.library import Library, ReadManifest
from mirror.sources.snapshot import Candidate

MAX_CONFIG_BYTES = 8 * 1024 * 1024
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})

PlatformKey = tuple[str, str, str, str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two places give the same platform of a tag differently; `winner` is the newer file's."""

    platform: str
    winner: Candidate
    loser: Candidate


@dataclass(frozen=True, slots=True)
class Coalesced:
    """What a tag means: an entry that exists, or an index to be generated with this content."""

    chosen: Candidate | None
    content: bytes | None
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one candidate brings."""

    candidate: Candidate
    children: Mapping[PlatformKey, Descriptor]
    others: Mapping[Digest, Descriptor]
    is_index: bool

    def digests(self) -> frozenset[Digest]:
        return frozenset(child.digest for child in self.children.values()) | self.others.keys()


def coalesce(library: Library, candidates: Sequence[Candidate]) -> Coalesced | None:
    """What a tag with these candidates, newest first, means. Blocks: reads their manifests and configs.

    None where none of the candidates can be read.
    """
    readable = [one for one in candidates if _read(library, one.descriptor, one) is not None]
    if not readable:
        return None
    newest = readable[0]
    parts = [_part(library, one) for one in readable if one.place.coalesce]
    joined = [part for part in parts if part is not None]
    if not newest.place.coalesce or len(joined) < 2 or joined[0].candidate is not newest:
        return Coalesced(newest, None, _whole_conflicts(readable))
    children, conflicts = _joined(joined)
    digests = {child.digest for child in children}
    for part in joined:
        if part.digests() == digests and (part.is_index or len(digests) == 1):
            return Coalesced(part.candidate, None, conflicts)
    content = _index(children)
    if len(content) > MAX_MANIFEST_BYTES:
        return Coalesced(newest, None, _whole_conflicts(readable))
    return Coalesced(None, content, conflicts)


def _joined(parts: Sequence[_Part]) -> tuple[Sequence[Descriptor], tuple[Conflict, ...]]:
    """The children of all parts, the newest part first, in the order of an index: platforms, then what has none.

    Where two parts describe the same manifest in different words, which of them is newer must not matter.
    """
    children: dict[PlatformKey, tuple[Descriptor, Candidate]] = {}
    others: dict[Digest, Descriptor] = {}
    conflicts: list[Conflict] = []
    for part in parts:
        for key, child in part.children.items():
            held, holder = children.setdefault(key, (child, part.candidate))
            if held.digest != child.digest:
                conflicts.append(Conflict("/".join(filter(None, key[:4])), holder, part.candidate))
            elif _bytes(child) < _bytes(held):
                children[key] = child, holder
        for digest, child in part.others.items():
            others[digest] = min(others.get(digest, child), child, key=_bytes)
    first = [children[key][0] for key in sorted(children)]
    listed = {child.digest for child in first}
    return first + [others[digest] for digest in sorted(others.keys() - listed)], tuple(conflicts)


def platform_of(library: Library, descriptor: Descriptor, near: Candidate, found: ReadManifest) -> Mapping[str, Any]:
    """The platform of an image: its descriptor's, else its config's; empty where neither tells one."""
    if descriptor.platform:
        return descriptor.platform
    config = found.links.config
    if config is None or config.media_type not in _IMAGE_CONFIGS:
        return {}
    content = library.content(config.digest, near.place, MAX_CONFIG_BYTES)
    try:
        document = json.loads(content) if content else None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or not isinstance(document.get("architecture"), str):
        return {}
    names = ("architecture", "os", "os.version", "os.features", "variant")
    return {name: document[name] for name in names if document.get(name)}


def _part(library: Library, candidate: Candidate) -> _Part | None:
    """What a candidate brings; None for what is neither an index nor an image with a platform."""
    found = _read(library, candidate.descriptor, candidate)
    if found is None:
        return None
    if not media_types.is_index(found.manifest.media_type):
        platform = platform_of(library, candidate.descriptor, candidate, found)
        key = _key(platform)
        return _Part(candidate, {key: _child(found, platform)}, {}, is_index=False) if key else None
    children: dict[PlatformKey, Descriptor] = {}
    others: dict[Digest, Descriptor] = {}
    for child in found.links.manifests:
        read = None if child.platform else _read(library, child, candidate)
        key = _key(child.platform or (platform_of(library, child, candidate, read) if read else {}))
        if key is None or key in children:
            others[child.digest] = child
        else:
            children[key] = child
    return _Part(candidate, children, others, is_index=True)


def _read(library: Library, descriptor: Descriptor, candidate: Candidate) -> ReadManifest | None:
    return library.manifest(descriptor.digest, candidate.place, descriptor.media_type)


def _key(platform: Mapping[str, Any]) -> PlatformKey | None:
    """What makes two platforms the same (image-spec 1.1, image-index.md); None for none, and for attestations."""
    values = [platform.get(name) for name in ("os", "architecture", "variant", "os.version")]
    system, architecture, variant, version = (value if isinstance(value, str) else "" for value in values)
    if not architecture or (system, architecture) == ("unknown", "unknown"):
        return None
    if architecture == "arm64" and variant == "v8":
        variant = ""  # the only one there was: clients read both alike
    features = platform.get("os.features")
    names = sorted(str(feature) for feature in features) if isinstance(features, list) else []
    return system, architecture, variant, version, tuple(names)


def _child(found: ReadManifest, platform: Mapping[str, Any]) -> Descriptor:
    manifest = found.manifest
    return Descriptor(manifest.media_type, manifest.digest, len(manifest.content), platform=platform)


def _index(children: Sequence[Descriptor]) -> bytes:
    """The same bytes for the same children, on every machine and version of this program."""
    manifests = [_canonical(child) for child in children]
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()


def _bytes(child: Descriptor) -> bytes:
    return json.dumps(_canonical(child)).encode()


def _canonical(child: Descriptor) -> dict[str, Any]:
    document = child.to_json()
    for key in ("platform", "annotations"):
        if key in document:
            document[key] = dict(sorted(document[key].items()))
    return document


def _whole_conflicts(candidates: Sequence[Candidate]) -> tuple[Conflict, ...]:
    return tuple(Conflict("", candidates[0], other) for other in candidates[1:])
