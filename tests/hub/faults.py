"""Ways to fail. A fault is put on a server with `server.fault(…)`, for a kind, method, path and number of times."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Status:
    """Answer with this status. `Status(405, method=…)` is how HEAD is refused."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Reset:
    """Drop the connection without an answer."""


@dataclass(frozen=True)
class BlackHole:
    """Take the request, never answer (until the server closes)."""


@dataclass(frozen=True)
class Truncate:
    """Send the head and the first `after_bytes` of the body, then close the connection."""

    after_bytes: int


@dataclass(frozen=True)
class Corrupt:
    """Flip one byte of the body, at `at` (counted from the first byte that this answer sends)."""

    at: int = 0


@dataclass(frozen=True)
class WrongLength:
    """A Content-Length that differs from the body's by `by_bytes`; the connection is closed at the body's end."""

    by_bytes: int


@dataclass(frozen=True)
class Drip:
    """Send the body at `bytes_per_second`, a byte at a time where that is slow."""

    bytes_per_second: float


@dataclass(frozen=True)
class Stall:
    """Send the head and `after_bytes` of the body, then wait until `release` is set. None: stall the head too."""

    release: asyncio.Event
    after_bytes: int | None = 0


@dataclass(frozen=True)
class Redirect:
    """Send the client elsewhere."""

    location: str
    status: int = 307


@dataclass(frozen=True)
class RedirectLoop:
    """Send the client to the same URL again; with `fresh`, to a new one each time."""

    fresh: bool = False


@dataclass(frozen=True)
class EndlessHeaders:
    """A head that never ends."""


@dataclass(frozen=True)
class EndlessPages:
    """For lists: every page has a next one. `elsewhere`: the Link leads to that URL instead."""

    elsewhere: str | None = None


@dataclass(frozen=True)
class Oversized:
    """A body of `total_bytes` of spaces, sent as long as the client reads; `chunked` does not say how long."""

    total_bytes: int
    chunked: bool = False


@dataclass(frozen=True)
class NoLength:
    """Do not say how long the body is, as some proxies do; after `after_bytes` of it wait until `release` is set."""

    release: asyncio.Event
    after_bytes: int


@dataclass(frozen=True)
class NoDigest:
    """Leave Docker-Content-Digest and ETag out."""


Fault = (
    Status
    | Reset
    | BlackHole
    | Truncate
    | Corrupt
    | WrongLength
    | Drip
    | Stall
    | Redirect
    | RedirectLoop
    | EndlessHeaders
    | EndlessPages
    | Oversized
    | NoLength
    | NoDigest
)


@dataclass
class Rule:
    """A fault and the requests that it hits: after `skip` matching ones, the next `times` (None: all)."""

    fault: Fault
    kind: str | None = None
    method: str | None = None
    path: str = "*"
    times: int | None = None
    skip: int = 0
    hits: int = 0

    def take(self, kind: str, method: str, path: str) -> bool:
        """Whether this request is hit; counts it."""
        if self.kind not in (None, kind) or self.method not in (None, method) or not fnmatchcase(path, self.path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True
