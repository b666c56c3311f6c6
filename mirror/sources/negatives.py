"""What an upstream said it does not know: not asked again for a moment, and believed while it cannot be asked."""

import time

from cachetools import LRUCache

from mirror.oci.errors import Unknown
from mirror.oci.names import Name

_Key = tuple[Name, str]


class Negatives:
    """Unknown names by repository and reference: bounded by count; a miss costs one question."""

    def __init__(self, ttl_seconds: float, max_entries: int = 20_000) -> None:
        self._ttl_seconds = ttl_seconds
        self._entries: LRUCache[_Key, tuple[Unknown, float]] = LRUCache(max_entries)

    def put(self, name: Name, reference: str, error: Unknown) -> None:
        """The upstream has just said so."""
        # A fresh one, as every reader gets: one that was raised holds on to what raised it.
        self._entries[name, reference] = (_fresh(error), time.monotonic())

    def drop(self, name: Name, reference: str) -> None:
        """The upstream knows it now."""
        self._entries.pop((name, reference), None)

    def fresh(self, name: Name, reference: str) -> Unknown | None:
        """The error, while it stands without asking."""
        found = self._entries.get((name, reference))
        return _fresh(found[0]) if found and time.monotonic() - found[1] < self._ttl_seconds else None

    def stale(self, name: Name, reference: str) -> Unknown | None:
        """The error however old it is, marked with its age: for while the upstream cannot be asked."""
        found = self._entries.get((name, reference))
        if found is None:
            return None
        error, since = found
        return _fresh(error).aged(time.monotonic() - since, self._ttl_seconds)


def _fresh(error: Unknown) -> Unknown:
    return type(error)(error.detail)
