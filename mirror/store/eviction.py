"""Keeping the cache below its size: whole tags leave, least recently used first.

A tag leaves with its index, children, blobs and referrers; what another tag reaches too stays until its last one
goes. What is being read or filled stays, with its tag, and so does what a pin names.

Membership goes with the tag, before the bytes: manifests and lines of `_links` that no other tag of the repository
reaches are taken out, and so is every line of a blob that is removed. Nothing is refused by that (with its tag gone,
the upstream is asked anyway, and writes the line again), nothing leaks, and nothing grows for ever.
"""

import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import translate

from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.store.graph import BlobFiles, Graph, Unit
from mirror.store.index import CacheIndex, disk_bytes
from mirror.store.lock import try_locked
from mirror.store.names import NameStore
from mirror.store.records import Record
from mirror.store.repository import CachedRepository

log = logging.getLogger(__name__)

# How far down eviction goes, so that it does not run for every blob.
LOW_WATER = 0.95
# Where everything is pinned or in use, looking again and again would cost more than it gains.
_PAUSE_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Evicted:
    """What left: tags, blobs (manifests are blobs too), bytes on disk."""

    tags: int = 0
    blobs: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Plan:
    # What no unit holds any more; what none of a repository does; tags.
    freed: set[Digest] = field(default_factory=set)
    leaving: dict[Name, set[Digest]] = field(default_factory=dict)
    tags: dict[Name, dict[str, Record]] = field(default_factory=dict)

    def add_tag(self, name: Name, record: Record) -> None:
        if record.tag is not None:
            self.tags.setdefault(name, {})[record.tag] = record


class Evictor:
    """`max_bytes` None: no bound. `pins`: globs over `host/repository:tag`; `*` stands for anything, `/` too."""

    def __init__(
        self,
        blobs: BlobFiles,
        names: NameStore,
        index: CacheIndex,
        max_bytes: int | None,
        pins: Sequence[str] = (),
    ) -> None:
        self._blobs = blobs
        self._names = names
        self._index = index
        self._max_bytes = max_bytes
        self._pins = re.compile("|".join(map(translate, pins))) if pins else None
        self._lock_path = names.path.with_name("eviction.lock")
        self._not_before = 0.0

    def over(self, needed_bytes: int = 0) -> bool:
        """Whether room has to be made for `needed_bytes` more. One read of SQLite: for misses, not for hits."""
        return self._max_bytes is not None and self._index.usage_bytes() + needed_bytes > self._max_bytes

    def scan(self) -> None:
        """Bring the index in line with the files: at start, in a thread. Blobs that it did not know are as new."""
        there = dict(self._blobs.iterate())
        known = self._index.blobs()
        for digest, size in there.items():
            if digest not in known or known[digest].size != size:
                self._index.blob_added(digest, size)
        for digest in known.keys() - there.keys():
            # Asked again: it may have come while the others were counted.
            if self._blobs.size(digest) is None:
                self._index.blob_removed(digest)
        self._index.flush()
        self._index.keep_names(self._names.iterate())

    def evict(self, needed_bytes: int = 0) -> Evicted:
        """Make room for `needed_bytes`, where `over` says so. For a thread: up to seconds in a large cache.

        Does nothing while another process is at it, nor for what never fits.
        """
        self._index.flush()
        if self._max_bytes is None or needed_bytes > self._max_bytes or not self.over(needed_bytes):
            return Evicted()
        with try_locked(self._lock_path) as held:
            if not held or time.monotonic() < self._not_before:
                return Evicted()
            begun = time.monotonic()
            target = min(int(self._max_bytes * LOW_WATER), self._max_bytes - needed_bytes)
            graph = Graph(self._blobs, self._names, self._index)
            evicted = self._remove(graph, self._plan(graph, self._index.usage_bytes() - target))
            seconds = time.monotonic() - begun
            if not evicted.blobs:
                self._not_before = time.monotonic() + _PAUSE_PER_SECOND * seconds
        log.info("evicted %d tags, %d blobs, %d bytes in %.1f s", evicted.tags, evicted.blobs, evicted.bytes, seconds)
        return evicted

    def _plan(self, graph: Graph, surplus_bytes: int) -> _Plan:
        holders: Counter[Digest] = Counter()
        inside: dict[Name | None, Counter[Digest]] = defaultdict(Counter)
        order: list[tuple[float, Unit]] = []
        for unit, closure in graph.units():
            holders.update(closure)
            inside[unit.name].update(closure)
            if not self._is_pinned(graph, unit, closure):
                order.append((graph.used_at(unit, closure), unit))
        order.sort(key=lambda entry: entry[0])
        plan = _Plan()
        for _, unit in order:
            if surplus_bytes <= 0:
                break
            closure = graph.closure(unit)
            freed = {digest for digest in closure if holders[digest] == 1}
            if any(self._blobs.in_use(digest) for digest in freed):
                continue
            holders.subtract(closure)
            surplus_bytes -= sum(disk_bytes(graph.sizes[digest].size) for digest in freed & graph.sizes.keys())
            plan.freed |= freed
            if unit.name is not None:
                leaving = {digest for digest in closure if inside[unit.name][digest] == 1}
                inside[unit.name].subtract(closure)
                plan.leaving.setdefault(unit.name, set()).update(leaving)
                for record in graph.attached(unit.name, leaving):
                    plan.add_tag(unit.name, record)
                if unit.record is not None:
                    plan.add_tag(unit.name, unit.record)
        return plan

    def _is_pinned(self, graph: Graph, unit: Unit, closure: set[Digest]) -> bool:
        if self._pins is None or unit.name is None:
            return False
        tags = [f"{unit.name}:{record.tag}" for record in graph.attached(unit.name, closure)]
        return any(self._pins.match(text) for text in [str(unit), *tags])

    def _remove(self, graph: Graph, plan: _Plan) -> Evicted:
        _spare_changed(graph, plan)
        if not plan.freed and not plan.tags:
            return Evicted()
        wanted: set[Digest] = set()
        unlinked: list[tuple[CachedRepository, dict[Digest, int | None]]] = []
        for repository in self._repositories(graph):
            here = (plan.freed | plan.leaving.get(repository.name, set())) & _digests(repository)
            tags = plan.tags.get(repository.name, {})
            if here or tags:
                try:
                    unlinked.append((repository, repository.evict(tags, here)))
                except OSError as error:
                    log.warning("nothing of %s is evicted: %s", repository.name, error)
        for repository in self._repositories(graph):
            # Whoever asked for one of them meanwhile has put it down again.
            wanted |= plan.freed & _digests(repository)
        gone = {digest for digest in (plan.freed - wanted) & graph.sizes.keys() if self._blobs.remove(digest)}
        kept = plan.freed - wanted - gone
        for repository, sizes in unlinked:
            back = {digest: sizes[digest] for digest in kept & sizes.keys() if self._blobs.size(digest) is not None}
            if back:
                repository.link_all(back)
        self._note_removed(gone)
        tags_gone = sum(map(len, plan.tags.values()))
        return Evicted(tags_gone, len(gone), sum(disk_bytes(graph.sizes[digest].size) for digest in gone))

    def _repositories(self, graph: Graph) -> Iterable[CachedRepository]:
        for name in self._names.iterate():
            yield graph.files(name) or self._names.peek(name)

    def _note_removed(self, gone: set[Digest]) -> None:
        for digest in gone:
            self._index.blob_removed(digest)
        self._index.flush()
        self._index.forget_digests(gone)
        for digest in gone:
            # Fetched again since: the report of it may have come before ours.
            size = self._blobs.size(digest)
            if size is not None:
                self._index.blob_added(digest, size)


def _spare_changed(graph: Graph, plan: _Plan) -> None:
    """Take out of the plan what tags reach that were put again since the picture was taken."""
    for name, planned in plan.tags.items():
        repository = graph.files(name)
        tags = repository.records()[0] if repository else {}
        for tag in [tag for tag, record in planned.items() if tag in tags and tags[tag] != record]:
            closure = graph.closure(Unit(name, planned.pop(tag).descriptor.digest))
            plan.freed -= closure
            plan.leaving[name] -= closure


def _digests(repository: CachedRepository) -> set[Digest]:
    _, manifests = repository.records()
    return set(manifests.keys() | repository.links().keys())
