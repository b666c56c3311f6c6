"""What a client of an upstream tells whoever counts: plain values, for metrics made elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass


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
    """`open_seconds`: how long the endpoint is not asked; 0: it is asked again."""

    host: str
    endpoint_url: str
    open_seconds: float


@dataclass(frozen=True, slots=True)
class RateLimitSeen:
    """RateLimit-Remaining, as the upstream counts it."""

    host: str
    remaining: int


UpstreamEvent = RequestDone | BytesReceived | TokenFetched | BreakerMoved | RateLimitSeen
Observe = Callable[[UpstreamEvent], None]


def ignore(event: UpstreamEvent) -> None:
    """For those who do not count."""
