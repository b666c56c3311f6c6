"""A cache bounded by bytes whose hit is one look into a dict."""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps what was asked for lately. At most `max_bytes` of it, by the weights it is told.

    Two halves: what is asked for moves to the young one; when that is full it becomes the old one, and the old one
    goes. An order of every entry (cachetools' LRUCache) costs each hit as much as all else that a hit needs.
    """

    def __init__(self, max_bytes: int) -> None:
        self._half_bytes = max_bytes // 2
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._young_bytes = 0

    def __contains__(self, key: K) -> bool:
        return key in self._young or key in self._old

    def get(self, key: K) -> V | None:
        """What is kept for the key."""
        found = self._young.get(key)
        if found is not None:
            return found[0]
        found = self._old.pop(key, None)
        if found is None:
            return None
        self._add(key, found)
        return found[0]

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Keep it, unless it is larger than half of everything."""
        self._old.pop(key, None)
        before = self._young.pop(key, None)
        if before is not None:
            self._young_bytes -= before[1]
        if size_bytes <= self._half_bytes:
            self._add(key, (value, size_bytes))

    def clear(self) -> None:
        """Keep nothing."""
        self._young, self._old, self._young_bytes = {}, {}, 0

    def _add(self, key: K, entry: tuple[V, int]) -> None:
        if self._young_bytes + entry[1] > self._half_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[key] = entry
        self._young_bytes += entry[1]
