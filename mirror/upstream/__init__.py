"""Talking to another registry: one `UpstreamClient` per upstream."""

from mirror.upstream.answers import UpstreamBody, UpstreamManifest, UpstreamManifestHead
from mirror.upstream.client import UpstreamClient
from mirror.upstream.settings import Endpoint, TlsSettings, UpstreamSettings

__all__ = [
    "Endpoint",
    "TlsSettings",
    "UpstreamBody",
    "UpstreamClient",
    "UpstreamManifest",
    "UpstreamManifestHead",
    "UpstreamSettings",
]
