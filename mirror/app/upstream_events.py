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
    RateLimitSeen,
    RealmNotListed,
    RequestDone,
    TokenFetched,
    UpstreamEvent,
)

log = logging.getLogger(__name__)

# An upstream decides which realms it names, and how often: the log must not be its to fill.
REALM_SECONDS = 60.0


def observer(metrics: Metrics | None) -> Observe:
    """Whom the client of one upstream tells."""
    realm_told_at = float("-inf")

    def observe(told: UpstreamEvent) -> None:
        nonlocal realm_told_at
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
            case RealmNotListed(host, reason) if time.monotonic() - realm_told_at > REALM_SECONDS:
                realm_told_at = time.monotonic()
                event(log, logging.WARNING, "realm_refused", upstream=host, reason=reason)
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
