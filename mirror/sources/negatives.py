"""What an upstream said it does not know: not asked again for a moment, and believed while it cannot be asked."""

import time

from cachetools import LRUCache

from mirror.oci.errors import BlobUnknown, ManifestUnknown, NameUnknown, Unknown
from mirror.oci.names import Name
from mirror.store.index import CacheIndex

_Key = tuple[Name, str]
_KINDS: dict[str, type[Unknown]] = {kind.code: kind for kind in (NameUnknown, ManifestUnknown, BlobUnknown)}


class Negatives:
    """Unknown names by repository and reference: bounded by count; a miss costs one question.

    In memory while they stand; in the index for when the upstream cannot be asked: a client whose requests meet
    several processes, or one that was started anew, hears the same of each.
    """

    def __init__(self, ttl_seconds: float, index: CacheIndex, max_entries: int = 20_000) -> None:
        self._ttl_seconds = ttl_seconds
        self._index = index
        self._entries: LRUCache[_Key, tuple[Unknown, float]] = LRUCache(max_entries)

    def put(self, name: Name, reference: str, error: Unknown) -> None:
        """The upstream has just said so."""
        # A fresh one, as every reader gets: one that was raised holds on to what raised it.
        self._entries[name, reference] = (_fresh(error), time.monotonic())
        self._index.note_unknown(name, reference, error.code)

    def drop(self, name: Name, reference: str) -> None:
        """The upstream knows it now."""
        had = self._entries.pop((name, reference), None)
        if had or self._index.unknown(name, reference) is not None:
            self._index.note_unknown(name, reference, None)

    def fresh(self, name: Name, reference: str) -> Unknown | None:
        """The error, while it stands without asking."""
        found = self._entries.get((name, reference))
        return _fresh(found[0]) if found and time.monotonic() - found[1] < self._ttl_seconds else None

    def stale(self, name: Name, reference: str) -> Unknown | None:
        """The error however old it is, marked with its age: for while the upstream cannot be asked."""
        found = self._entries.get((name, reference))
        said = self._index.unknown(name, reference)
        age = time.monotonic() - found[1] if found else None
        if said is not None and said.code in _KINDS and (age is None or time.time() - said.at < age):
            error = _KINDS[said.code]({"name": str(name), "reference": reference.removeprefix("blob ")})
            return error.aged(max(0.0, time.time() - said.at), self._ttl_seconds)
        return _fresh(found[0]).aged(age, self._ttl_seconds) if found and age is not None else None


def _fresh(error: Unknown) -> Unknown:
    return type(error)(error.detail)
