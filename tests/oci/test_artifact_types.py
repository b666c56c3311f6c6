"""Short names of what manifests are, as tools of the field write them."""

import json
from typing import Any

import pytest

from mirror.oci import media_types
from mirror.oci.artifact_types import SHORT_TYPES, is_artifact, short_type
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE = "dev.sigstore.bundle.predicateType"


def blob(media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(b""), "size": 0}


def image(config: str, layer: str = "a/b", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_types.OCI_MANIFEST, "config": blob(config), "layers": [blob(layer)], **more}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (image(media_types.OCI_CONFIG), "oci-image"),
        ({"mediaType": media_types.OCI_INDEX, "manifests": []}, "oci-image"),
        ({"mediaType": media_types.DOCKER_LIST, "manifests": []}, "docker-image"),
        (
            image("application/vnd.docker.container.image.v1+json") | {"mediaType": media_types.DOCKER_MANIFEST},
            "docker-image",
        ),
        (image("application/vnd.cncf.helm.config.v1+json"), "helm-chart"),
        (image("application/vnd.wasm.config.v0+json"), "wasm"),
        ({"mediaType": media_types.OCI_INDEX, "manifests": [], "artifactType": SHORT_TYPES["cnab"][0]}, "cnab"),
        (image(media_types.OCI_EMPTY, artifactType="application/spdx+json"), "sbom"),
        # cosign v2: an ordinary image around its payload.
        (image(media_types.OCI_CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json"), "signature"),
        (image(media_types.OCI_CONFIG, "application/vnd.dsse.envelope.v1+json"), "attestation"),
        # BuildKit.
        (image(media_types.OCI_CONFIG, "application/vnd.in-toto+json"), "attestation"),
        # cosign v3.
        (image(media_types.OCI_EMPTY, artifactType=BUNDLE), "signature"),
        (
            image(
                media_types.OCI_EMPTY,
                artifactType=BUNDLE,
                annotations={PREDICATE: "https://sigstore.dev/cosign/sign/v1"},
            ),
            "signature",
        ),
        (
            image(
                media_types.OCI_EMPTY, artifactType=BUNDLE, annotations={PREDICATE: "https://slsa.dev/provenance/v1"}
            ),
            "attestation",
        ),
        (image(media_types.OCI_EMPTY, artifactType="application/vnd.example"), None),
        ({"mediaType": media_types.OCI_ARTIFACT, "artifactType": "a/b", "blobs": []}, None),
    ],
)
def test_content_goes_by_its_short_name(document: dict[str, Any], expected: str | None) -> None:
    found = short_type(ManifestLinks.parse(json.dumps(document).encode()))
    assert found == expected
    assert is_artifact(found) == (expected not in ("oci-image", "docker-image"))
