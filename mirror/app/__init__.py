"""Wiring: the configuration becomes sources, a registry and a listener. Nothing else reads the configuration."""

from mirror.app.local import remembered, view_now
from mirror.app.search import referrers_now, search_now
from mirror.app.serving import Running, Slot, prepare, running
from mirror.app.upstreams import cache, pull_through

__all__ = [
    "Running",
    "Slot",
    "cache",
    "prepare",
    "pull_through",
    "referrers_now",
    "remembered",
    "running",
    "search_now",
    "view_now",
]
