"""What clients of upstreams tell: as numbers, and as log lines where an operator has something to know or to do."""

import logging
import time
from collections.abc import Mapping

from mirror.logs import event
from mirror.oci.names import Host
from mirror.server.metrics import Metrics
from mirror.upstream.client import UpstreamClient
from mirror.upstream.events import (
    BreakerMoved,
    BytesReceived,
    Observe,
    OperatorNeeded,
    RateLimitSeen,
    RequestDone,
    TokenFetched,
    UpstreamEvent,
)

log = logging.getLogger(__name__)

# Every request may meet it, and an upstream decides which realms it names: the log is not for them to fill.
NEEDED_SECONDS = 60.0


def observer(metrics: Metrics | None) -> Observe:
    """Whom the client of one upstream tells."""
    told_at: dict[str, float] = {}

    def observe(told: UpstreamEvent) -> None:
        """Log it where an operator should know, and count it."""
        match told:
            case BreakerMoved(host, url, seconds, reason) if seconds:
                event(
                    log,
                    logging.WARNING,
                    "upstream_left_alone",
                    upstream=host,
                    endpoint=url,
                    reason=reason,
                    seconds=seconds,
                )
            case BreakerMoved(host, url):
                event(log, logging.INFO, "upstream_asked_again", upstream=host, endpoint=url)
            case OperatorNeeded(host, what, reason):
                if time.monotonic() - told_at.get(what, float("-inf")) > NEEDED_SECONDS:
                    told_at[what] = time.monotonic()
                    event(log, logging.WARNING, what, upstream=host, reason=reason)
        if metrics is not None:
            _count(metrics, told)

    return observe


def count_open(metrics: Metrics, clients: Mapping[Host, UpstreamClient]) -> None:
    """How long each endpoint is not asked: it is over by itself, so it is looked at when somebody reads."""
    for host, client in clients.items():
        for url, seconds in client.open_seconds.items():
            metrics.set("mirror_upstream_open_seconds", seconds, (host, url))


def _count(metrics: Metrics, told: UpstreamEvent) -> None:
    match told:
        case RequestDone(host, method, status):
            metrics.add("mirror_upstream_requests", (host, method, str(status)))
        case BytesReceived(host, amount):
            metrics.add("mirror_upstream_received_bytes", (host,), amount)
        case TokenFetched(host, ok):
            metrics.add("mirror_upstream_tokens", (host, "ok" if ok else "failed"))
        case RateLimitSeen(host, remaining):
            metrics.set("mirror_upstream_ratelimit_remaining", remaining, (host,))
