"""What a client of an upstream tells: plain values, for metrics and log lines made elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RequestDone:
    """One HTTP exchange came to a head or failed. `status` is 0 where there was none. Times in seconds."""

    host: str
    method: str
    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BytesReceived:
    host: str
    amount_bytes: int


@dataclass(frozen=True, slots=True)
class TokenFetched:
    host: str
    ok: bool


@dataclass(frozen=True, slots=True)
class BreakerMoved:
    """An endpoint that was asked is not, for `reason`, and for `open_seconds` at first; 0: it is asked again."""

    host: str
    endpoint_url: str
    open_seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OperatorNeeded:
    """What only the configuration can put right: `what` is `realm_refused` (a challenge names a token service that
    is not listed, and `reason` has the line to add) or `credentials_unreadable`.
    """

    host: str
    what: Literal["realm_refused", "credentials_unreadable"]
    reason: str


@dataclass(frozen=True, slots=True)
class RateLimitSeen:
    """RateLimit-Remaining, as the upstream counts it."""

    host: str
    remaining: int


UpstreamEvent = RequestDone | BytesReceived | TokenFetched | BreakerMoved | RateLimitSeen | OperatorNeeded
Observe = Callable[[UpstreamEvent], None]


def ignore(event: UpstreamEvent) -> None:
    """For those who do not count."""
