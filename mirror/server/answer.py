"""Answers are values: status, headers, body. What decides makes one; what sends only sends it."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import cached_property
from http import HTTPStatus
from typing import Any, NamedTuple

from mirror.oci.names import Host
from mirror.sources.source import Origin
from mirror.store.body import BlobBody, body_size
from mirror.store.threads import PIECE_BYTES

# On every answer below /v2/ (design, HTTP).
API_HEADERS: Mapping[str, str] = {
    "Docker-Distribution-API-Version": "registry/2.0",
    "X-Content-Type-Options": "nosniff",
    "Vary": "OCI-REF-NAME",
}
IMMUTABLE = "max-age=31536000, immutable"
# RFC 9110, 5.5: what in a header's value could end it, and begin another.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Kind(NamedTuple):
    """What numbers tell answers apart by. `verdict`: what the cache had to say, where it was asked."""

    endpoint: str
    status: int
    verdict: str | None


@dataclass(frozen=True)
class Answer:
    """A whole answer. `start` and `stop` are the byte positions of `body` to send: all of it unless ranged.

    `headers` holds everything but Content-Length, which is `stop - start`; HEAD sends it without the body. Answers
    are given again and again: what follows from one is worked out once.
    """

    status: int
    headers: Mapping[str, str]
    body: BlobBody = b""
    start: int = 0
    stop: int = 0
    send_body: bool = True
    # The family of endpoints, for metrics.
    endpoint: str = "none"
    # What the access log said last of it: mostly it says the same again.
    logged: tuple[str, str, int, int] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def length(self) -> int:
        """Content-Length, in bytes."""
        return self.stop - self.start

    @cached_property
    def kind(self) -> Kind:
        """Of this answer."""
        status = self.headers.get("Cache-Status")
        return Kind(self.endpoint, self.status, None if status is None else _verdict(status))

    @cached_property
    def bodiless(self) -> "Answer":
        """As HEAD gets it."""
        return replace(self, send_body=False)

    @cached_property
    def not_modified(self) -> "Answer":
        """As the client gets it who has it already (RFC 9110, 15.4.5)."""
        headers = {key: value for key, value in self.headers.items() if key not in ("Content-Type", "Accept-Ranges")}
        return Answer(304, headers, send_body=False, endpoint=self.endpoint)

    @property
    def sent_headers(self) -> dict[str, str]:
        """The headers as they are sent, in order; only Date and Connection follow them."""
        headers = {**self.headers, "Server": "mirror"}
        if self.status != 304:
            headers["Content-Length"] = str(self.length)
        return headers

    @cached_property
    def head(self) -> bytes:
        """Status line and `sent_headers` as HTTP/1.1 writes them, up to where Date begins.

        Raises ValueError where a header holds what no header can.
        """
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.sent_headers.items()]
        if any(map(_CONTROL.search, lines)):
            raise ValueError("a header of an answer holds control characters")
        return "\r\n".join([*lines, "Date: "]).encode()

    def message(self, closes: bool) -> bytes | None:
        """All of it as HTTP/1.1 sends it, on a connection that ends with it or not.

        None where its body is not in memory, or so long that every client who is slow would have it wait there.
        Raises ValueError as `head` does.
        """
        clock = CLOCK.tick()
        tail = clock.last_tail if closes else clock.tail
        if not self.send_body or self.start == self.stop:
            return self.head + tail
        body = self.body
        if type(body) is not bytes or self.stop - self.start > PIECE_BYTES:
            return None
        if self.stop - self.start != len(body):
            body = body[self.start : self.stop]
        return b"".join((self.head, tail, body))

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
    """Compact JSON: what was read from JSON takes no more bytes than it did there.

    It may hold what no UTF-8 can, a lone surrogate: that is escaped (`\\ud800`), which reads as the same.
    """
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")


def origin_headers(origin: Origin) -> dict[str, str]:
    """Cache-Status (RFC 9211), Age (RFC 9111, 5.1) and Warning (RFC 7234, 5.5) of content from this origin."""
    detail = f'; detail="{origin.host}"' if origin.host else ""
    headers = {"Cache-Status": f"mirror; {origin.status}{detail}"}
    if origin.age_seconds is not None:
        headers["Age"] = str(int(origin.age_seconds))
    if origin.warnings:
        headers["Warning"] = ", ".join(f'299 - "{text}"' for text in origin.warnings)
    return headers


def given_again(found: Answer, origin: Origin) -> Answer:
    """The answer as it is given from memory later: nothing is forwarded for that any more (RFC 9211, 2.1 and 2.2)."""
    if not origin.status.startswith("fwd="):
        return found
    return found.with_headers(origin_headers(replace(origin, status="hit")))


def namespace_headers(chosen: Host | None) -> dict[str, str]:
    """OCI-Namespace, where header or query chose the host (distribution-spec, "Registry Proxying")."""
    return {"OCI-Namespace": chosen} if chosen else {}


def _verdict(cache_status: str) -> str:
    """`hit`, `stale`, `miss` or `collapsed`."""
    if cache_status.startswith("mirror; hit"):
        return "stale" if "; ttl=-" in cache_status else "hit"
    return "collapsed" if "; collapsed" in cache_status else "miss"


class Clock:
    """The time as Date tells it (RFC 9110, 6.6.1), written once a second."""

    def __init__(self) -> None:
        self._second = 0
        self.text = ""
        # What follows `Answer.head`: on connections that stay, and on those that end.
        self.tail = b""
        self.last_tail = b""

    def tick(self) -> "Clock":
        """The clock, set."""
        now = time.time()
        # The clock may have been set back.
        if not self._second <= now < self._second + 1:
            second = self._second = int(now)
            self.text = formatdate(second, usegmt=True)
            self.tail = f"{self.text}\r\n\r\n".encode()
            self.last_tail = f"{self.text}\r\nConnection: close\r\n\r\n".encode()
        return self


CLOCK = Clock()
