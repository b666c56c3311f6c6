"""`/v2/_mirror/features`: what a client can rely on here, so that it need not probe."""

from collections.abc import Mapping
from typing import Any

from mirror import __version__
from mirror.oci import media_types
from mirror.oci.digest import HEX_LENGTH
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.server.answer import Answer, json_answer
from mirror.server.extensions import ExtensionAsk, ExtensionEndpoint
from mirror.server.paging import MAX_N

SPEC_VERSION = "1.1.1"


def features_endpoint(further: Mapping[str, Any]) -> ExtensionEndpoint:
    """The endpoint that tells the document, with what is said of `further` endpoints; see `feature_document`."""
    document = feature_document(further)

    async def features(ask: ExtensionAsk) -> Answer:
        return json_answer(200, document, {})

    return features


def feature_document(further: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, limits and abilities. Names are stable: a client may decide from them."""
    return {
        "version": __version__,
        "specVersion": SPEC_VERSION,
        "push": False,
        "delete": False,
        "digestAlgorithms": sorted(HEX_LENGTH),
        "manifestMediaTypes": sorted(media_types.MANIFESTS),
        "maxManifestBytes": MAX_MANIFEST_BYTES,
        "endpoints": {
            "manifests": {"methods": ["GET", "HEAD"], "conditional": True, "range": False},
            "blobs": {"methods": ["GET", "HEAD"], "conditional": True, "range": True, "ranges_per_request": 1},
            "tags": {"methods": ["GET", "HEAD"], "max_n": MAX_N, "order": "ascii", "link": True},
            "catalog": {"methods": ["GET", "HEAD"], "max_n": MAX_N, "order": "ascii", "link": True},
            "referrers": {
                "methods": ["GET", "HEAD"],
                "filters": ["artifactType"],
                "page_bytes": MAX_MANIFEST_BYTES,
                "link": True,
                "fallback_tags": True,
            },
            "discovery": {"methods": ["GET", "HEAD"]},
            **further,
        },
        "proxy": {"header": "OCI-REF-NAME", "query": ["oci-ref-name", "ns"], "path": ["/v2/<host>/", "/<host>/v2/"]},
    }
