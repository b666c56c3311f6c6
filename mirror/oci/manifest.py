"""Manifests of every kind: exact bytes, and what they list.

Kinds: OCI image manifest and index (image-spec 1.1), Docker schema 2 manifest and list, and the OCI artifact
manifest of the reference-types prototypes (`blobs`, `subject`; no config, no layers).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor, string_map
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid, OtherAlgorithm

# The bound that distribution-spec 1.1 sets for what a registry must take, and clients for what they read.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

# Where the prototypes of the reference-types working group wrote an artifact's type.
PROTOTYPE_TYPE = "org.opencontainers.artifact.type"
_GENERIC_CONFIGS = frozenset(
    {media_types.OCI_CONFIG, media_types.OCI_EMPTY, "application/vnd.docker.container.image.v1+json"}
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it is served: its bytes are what the digest names, whatever their JSON style."""

    digest: Digest
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class ManifestLinks:
    """What a manifest says of itself and of other content.

    `media_type` is the one to serve it with. `manifests` are children that are manifests themselves; `blobs`
    are config, layers and whatever else is listed. `artifact_type` has the fallback to the config's media type.
    """

    media_type: str
    manifests: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Digest | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None
    config: Descriptor | None = None

    @classmethod
    def parse(cls, content: bytes, descriptor_type: str | None = None) -> Self:
        """Read a manifest's bytes; `descriptor_type` is what the descriptor that led here says it is.

        What it lists by a digest of an algorithm that is not registered is passed over (descriptor.md, "Digests").
        Raises ManifestInvalid, with the reason, where `content` is not a manifest of a known kind.
        """
        document = _load(content)
        media_type = serving_type(document, descriptor_type)
        if media_type is None:
            raise ManifestInvalid("neither its mediaType nor its shape is that of a manifest")
        manifests: list[Descriptor] = []
        blobs: list[Descriptor] = []
        config, config_type = None, None
        if media_types.is_index(media_type):
            for child in _descriptors(document, "manifests"):
                # An index may list anything; only what is a manifest is read on.
                known = not child.media_type or media_types.is_manifest(child.media_type)
                (manifests if known else blobs).append(child)
        else:
            config = _descriptor(document.get("config"))
            if config is not None:
                blobs.append(config)
                config_type = config.media_type
            elif document.get("config") is not None:  # of another algorithm
                config_type = document["config"].get("mediaType", "")
            blobs.extend(_descriptors(document, "layers"))
            blobs.extend(_descriptors(document, "blobs"))
        subject = document.get("subject")
        if subject is None:
            subject = document.get("refers")
        subject = _descriptor(subject)
        annotations = string_map(document.get("annotations"))
        return cls(
            media_type,
            tuple(manifests),
            tuple(blobs),
            subject.digest if subject else None,
            _artifact_type(document, annotations, config_type),
            annotations or None,
            config,
        )

    def children(self) -> Iterator[Descriptor]:
        """Everything listed, manifests first; not the subject, which this manifest only points at."""
        yield from self.manifests
        yield from self.blobs


def referrer(manifest: Manifest, links: ManifestLinks) -> Descriptor:
    """A manifest as the referrers API lists it (distribution-spec 1.1, "Listing Referrers")."""
    return Descriptor(
        manifest.media_type,
        manifest.digest,
        len(manifest.content),
        artifact_type=links.artifact_type,
        annotations=links.annotations or {},
    )


def serving_type(document: Mapping[str, Any], descriptor_type: str | None) -> str | None:
    """The Content-Type of a manifest: its own `mediaType` where known, else its descriptor's, else by shape."""
    own = document.get("mediaType")
    if isinstance(own, str) and media_types.is_manifest(own):
        return own
    if descriptor_type and media_types.is_manifest(descriptor_type):
        return descriptor_type
    if isinstance(document.get("manifests"), list):
        return media_types.OCI_INDEX
    if isinstance(document.get("layers"), list) or isinstance(document.get("config"), dict):
        return media_types.OCI_MANIFEST
    if isinstance(document.get("blobs"), list):
        return media_types.OCI_ARTIFACT
    return None


def _load(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_MANIFEST_BYTES:
        raise ManifestInvalid(f"{len(content)} bytes; a manifest has at most {MAX_MANIFEST_BYTES}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ManifestInvalid(f"a manifest is an object, not {type(document).__name__}")
    return document


def _descriptors(document: Mapping[str, Any], key: str) -> list[Descriptor]:
    listed = document.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise ManifestInvalid(f"{key} is {type(listed).__name__}, not a list")
    return [found for entry in listed if (found := _read(entry)) is not None]


def _descriptor(document: Any) -> Descriptor | None:
    return None if document is None else _read(document)


def _read(document: Any) -> Descriptor | None:
    try:
        return Descriptor.from_json(document)
    except OtherAlgorithm:
        return None


def _artifact_type(
    document: Mapping[str, Any], annotations: Mapping[str, str], config_type: str | None
) -> str | None:
    """distribution-spec 1.1, "Listing Referrers": artifactType, else the config's media type."""
    own = document.get("artifactType")
    if isinstance(own, str) and own:
        return own
    prototype = annotations.get(PROTOTYPE_TYPE)
    if prototype and (config_type is None or config_type in _GENERIC_CONFIGS):
        return prototype
    return config_type or None
