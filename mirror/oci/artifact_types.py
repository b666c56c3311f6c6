"""Short names for kinds of content: what people look for, by the media types that tools of the field write."""

from collections.abc import Mapping

from mirror.oci import media_types
from mirror.oci.manifest import ManifestLinks

OCI_IMAGE = "oci-image"
DOCKER_IMAGE = "docker-image"

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_BUNDLE_PREDICATE = "dev.sigstore.bundle.predicateType"
_SIGNING_PREDICATE = "https://sigstore.dev/cosign/sign/v1"

# An artifact is of the first kind that lists its type (artifactType, or the config's media type), else of the first
# that lists the type of one of its layers: cosign and others write an ordinary image around their payload.
SHORT_TYPES: Mapping[str, tuple[str, ...]] = {
    OCI_IMAGE: (media_types.OCI_MANIFEST, media_types.OCI_INDEX, media_types.OCI_CONFIG),
    DOCKER_IMAGE: (
        media_types.DOCKER_MANIFEST,
        media_types.DOCKER_LIST,
        "application/vnd.docker.container.image.v1+json",
    ),
    "helm-chart": (
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    ),
    "wasm": (
        "application/vnd.wasm.config.v0+json",
        "application/vnd.wasm.config.v1+json",
        "application/vnd.module.wasm.content.layer.v1+wasm",
        "application/wasm",
    ),
    "cnab": (
        "application/vnd.cnab.manifest.v1",
        "application/vnd.cnab.config.v1+json",
        "application/vnd.cnab.bundle.config.v1+json",
    ),
    "sbom": (
        "application/spdx+json",
        "application/vnd.cyclonedx",
        "application/vnd.cyclonedx+json",
        "application/vnd.cyclonedx+xml",
        "application/vnd.syft+json",
        "text/spdx",
        "text/spdx+json",
        "text/spdx+xml",
    ),
    "signature": (
        "application/vnd.cncf.notary.signature",
        "application/vnd.dev.cosign.artifact.sig.v1+json",
        "application/vnd.dev.cosign.simplesigning.v1+json",
        _BUNDLE,
    ),
    "attestation": (
        "application/vnd.in-toto+json",
        "application/vnd.dsse.envelope.v1+json",
        "application/vnd.dev.cosign.artifact.att.v1+json",
    ),
}
_IMAGES = frozenset({OCI_IMAGE, DOCKER_IMAGE})
_KIND_OF = {media_type: kind for kind, listed in SHORT_TYPES.items() if kind not in _IMAGES for media_type in listed}


def short_type(links: ManifestLinks) -> str | None:
    """The short name of what a manifest is; None for an artifact of a type that has none."""
    listed = [links.artifact_type or "", *(blob.media_type for blob in links.blobs)]
    for media_type in listed:
        kind = _KIND_OF.get(media_type)
        if kind is not None:
            predicate = (links.annotations or {}).get(_BUNDLE_PREDICATE, _SIGNING_PREDICATE)
            return "attestation" if media_type == _BUNDLE and predicate != _SIGNING_PREDICATE else kind
    own = links.artifact_type or links.media_type
    return next((kind for kind in (OCI_IMAGE, DOCKER_IMAGE) if own in SHORT_TYPES[kind]), None)


def is_artifact(kind: str | None) -> bool:
    """Whether content of this short name is something else than an image to run."""
    return kind not in _IMAGES
