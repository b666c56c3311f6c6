"""Answers are values: status, headers, body. What decides makes one; what sends only sends it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mirror.oci.names import Host
from mirror.sources.source import Origin
from mirror.store.body import BlobBody, body_size

# On every answer below /v2/ (design, HTTP).
API_HEADERS: Mapping[str, str] = {
    "Docker-Distribution-API-Version": "registry/2.0",
    "X-Content-Type-Options": "nosniff",
    "Vary": "OCI-REF-NAME",
}
IMMUTABLE = "max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `start` and `stop` are the byte positions of `body` to send: all of it unless ranged.

    `headers` holds everything but Content-Length, which is `stop - start`; HEAD sends it without the body.
    """

    status: int
    headers: Mapping[str, str]
    body: BlobBody = b""
    start: int = 0
    stop: int = 0
    send_body: bool = True
    # The family of endpoints, for metrics.
    endpoint: str = "none"

    @property
    def length(self) -> int:
        """Content-Length, in bytes."""
        return self.stop - self.start

    def with_headers(self, headers: Mapping[str, str]) -> "Answer":
        """The same answer with further headers."""
        return replace(self, headers={**self.headers, **headers})


def answer(status: int, headers: Mapping[str, str], body: BlobBody = b"") -> Answer:
    """An answer below /v2/ that sends the whole of `body`."""
    return Answer(status, {**API_HEADERS, **headers}, body, 0, body_size(body))


def json_answer(
    status: int, document: Any, headers: Mapping[str, str], media_type: str = "application/json"
) -> Answer:
    """An answer with a JSON body."""
    return answer(status, {"Content-Type": media_type, **headers}, json_bytes(document))


def json_bytes(document: Any) -> bytes:
    """Compact JSON, in ASCII: what was read from JSON or from a request may hold what no UTF-8 can."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def origin_headers(origin: Origin) -> dict[str, str]:
    """Cache-Status (RFC 9211), Age (RFC 9111, 5.1) and Warning (RFC 7234, 5.5) of content from this origin."""
    detail = f'; detail="{origin.host}"' if origin.host else ""
    headers = {"Cache-Status": f"mirror; {origin.status}{detail}"}
    if origin.age_seconds is not None:
        headers["Age"] = str(int(origin.age_seconds))
    if origin.warnings:
        headers["Warning"] = ", ".join(f'299 - "{text}"' for text in origin.warnings)
    return headers


def namespace_headers(chosen: Host | None) -> dict[str, str]:
    """OCI-Namespace, where header or query chose the host (distribution-spec, "Registry Proxying")."""
    return {"OCI-Namespace": chosen} if chosen else {}
