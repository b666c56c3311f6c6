"""Keeps the search index up with local and cached content, beside answering."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from mirror.logs import event
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name
from mirror.sources.library import Library
from mirror.sources.local import LocalContent
from mirror.sources.missing import Missing
from mirror.sources.search_facts import FactFinder
from mirror.sources.snapshot import LocalRepository
from mirror.sources.view import View
from mirror.store.names import NameStore
from mirror.store.search import SearchIndex
from mirror.store.search_entry import Entry

log = logging.getLogger(__name__)

# A look at a number tells whether local content has changed; a look at the cache is a walk through its folders.
LOOK_SECONDS = 0.25
CACHE_SECONDS = 2.0
# A walk takes at most this part of the time.
CACHE_SHARE = 0.05
# What lists something that is not there is looked at again: it may have come.
RETRY_SECONDS = 60.0
# The threads of requests want the interpreter too.
TURN_SECONDS = 0.02

ReadBlob = Callable[[Digest], bytes]


@dataclass(frozen=True, slots=True)
class _LocalBytes:
    library: Library
    repository: LocalRepository

    def has(self, descriptor: Descriptor) -> bool:
        near = self._near(descriptor)
        with self.library.blob(descriptor.digest, near, frozenset({descriptor.size}), verified=False) as body:
            return body is not None

    def read(self, descriptor: Descriptor, max_bytes: int) -> bytes | None:
        return self.library.content(descriptor.digest, self._near(descriptor), max_bytes)

    def _near(self, descriptor: Descriptor) -> Any:
        root = self.repository.roots.get(descriptor.digest)
        return root.place if root else self.repository.places[0] if self.repository.places else None


@dataclass(frozen=True, slots=True)
class _CachedBytes:
    read_blob: ReadBlob
    manifests: Collection[Digest]

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.manifests

    def read(self, descriptor: Descriptor, max_bytes: int) -> bytes | None:
        if descriptor.size > max_bytes:
            return None
        try:
            return self.read_blob(descriptor.digest)
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Cached:
    """What is cached of the upstreams that are configured."""

    names: NameStore
    read_blob: ReadBlob
    hosts: Collection[Host]

    def iterate(self) -> Iterator[Name]:
        """Walks folders: for a thread."""
        return (name for name in self.names.iterate() if name.host in self.hosts)


def local_entries(view: View, repository: LocalRepository, index: SearchIndex) -> tuple[list[Entry], Set[Digest]]:
    """The rows of a local repository, and which manifests and configs it lacks. Blocks: reads manifests."""
    finder = FactFinder(_LocalBytes(view.library, repository), index.facts)
    entries: list[Entry] = []
    tagged: set[Digest] = set()
    for tag, candidates in repository.tags.items():
        descriptor = candidates[0].descriptor
        if len(candidates) == 1:
            facts = finder.of(descriptor)
        else:
            meaning = view.resolve(repository, tag)
            if meaning is None:
                finder.missing.add(descriptor.digest)
                continue
            manifest = meaning.manifest
            descriptor = Descriptor(manifest.media_type, manifest.digest, len(manifest.content))
            facts = finder.of_content(descriptor, manifest.content)
        if facts is not None:
            tagged.add(descriptor.digest)
            entries.append(Entry(tag, descriptor.digest, facts))
    entries += _untagged(finder, tagged, [candidate.descriptor for candidate in repository.roots.values()])
    index.keep_facts(finder.found)
    return entries, finder.missing


def _untagged(finder: FactFinder, tagged: Collection[Digest], roots: Sequence[Descriptor]) -> Iterator[Entry]:
    """What is reached and has no tag: referrers, children of indexes."""
    seen: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        facts = finder.of(descriptor)
        if facts is None:
            continue
        waiting.extend(finder.below(facts))
        if descriptor.digest not in tagged:
            yield Entry("", descriptor.digest, facts)


def cached_entries(cached: Cached, name: Name, index: SearchIndex) -> tuple[list[Entry], bool]:
    """The same of what is cached of a repository."""
    tags, manifests = cached.names.peek(name).records()
    here = manifests.keys() | {record.descriptor.digest for record in tags.values()}
    finder = FactFinder(_CachedBytes(cached.read_blob, here), index.facts)
    tagged = {record.descriptor.digest for record in tags.values()}
    entries = []
    for record in [*tags.values(), *(one for digest, one in manifests.items() if digest not in tagged)]:
        facts = finder.of(record.descriptor)
        if facts is not None:
            seen_ms = int(record.fetched_at * 1000) or None
            entries.append(Entry(record.tag or "", record.descriptor.digest, facts, seen_ms))
    index.keep_facts(finder.found)
    return entries, not finder.missing


class SearchFiller:
    """Fills an index that is not complete with what there is; `once` does it, `run` keeps it up for ever."""

    def __init__(self, index: SearchIndex, cached: Cached | None) -> None:
        self._index = index
        self._cached = cached
        # What was looked at, as it was then: the repository object, the stamps of files. Only of names that are here.
        self._known: dict[Name, tuple[LocalRepository | None, Any]] = {}
        self._stamps: dict[Name, Any] = {}
        self._incomplete: set[Name] = set()
        self._missing = Missing()
        self._failing = False
        self._walk_seconds = 0.0

    async def run(self, local: LocalContent) -> None:
        """Keep up until cancelled."""
        await local.wait_complete()
        generation, walked, retried = -1, float("-inf"), time.monotonic()
        pause = CACHE_SECONDS
        while True:
            now = time.monotonic()
            if now - retried > RETRY_SECONDS:
                retried, generation = now, -1
                for name in self._incomplete:
                    self._known.pop(name, None)
                self._incomplete.clear()
            walks = now - walked >= pause
            if generation != local.generation or walks:
                generation = local.generation
                try:
                    await self._update(local.view, walks)
                    self._failing = False
                except (sqlite3.Error, OSError) as error:
                    # Search is behind for once; everything else goes on. A full disk is told of once.
                    if not self._failing:
                        event(log, logging.ERROR, "search_not_updated", reason=error)
                    self._failing = True
                except Exception:
                    if not self._failing:
                        log.exception("search_not_updated")
                    self._failing = True
                if walks:
                    walked = time.monotonic()
                    pause = max(CACHE_SECONDS, self._walk_seconds / CACHE_SHARE)
            await asyncio.sleep(LOOK_SECONDS)

    def once(self, view: View) -> None:
        """Bring the index up to date with what there is now. Blocks."""
        self._look_at_cache()
        for name in self._changed(view):
            self._put(view, name)
        self._finish()

    async def _update(self, view: View, walks: bool) -> None:
        if walks:
            began = time.monotonic()
            await asyncio.to_thread(self._look_at_cache)
            self._walk_seconds = time.monotonic() - began
        waiting = await asyncio.to_thread(self._changed, view)
        while waiting:
            spent = await asyncio.to_thread(self._take_turn, view, waiting)
            await asyncio.sleep(spent / 2)
        await asyncio.to_thread(self._finish)
        self._missing.tell()

    def _take_turn(self, view: View, waiting: list[Name]) -> float:
        began = time.monotonic()
        while waiting and time.monotonic() - began < TURN_SECONDS:
            self._put(view, waiting.pop())
        return time.monotonic() - began

    def _look_at_cache(self) -> None:
        if self._cached is not None:
            self._stamps = {name: self._cached.names.peek(name).stamp() for name in self._cached.iterate()}

    def _changed(self, view: View) -> list[Name]:
        """Names whose rows may be others now, those that are gone included."""
        repositories = view.snapshot.repositories
        now = {name: (repositories.get(name), self._stamps.get(name)) for name in {*repositories, *self._stamps}}
        gone = [name for name in self._known if name not in now]
        return gone + [
            name
            for name, (repository, stamp) in now.items()
            if (known := self._known.get(name)) is None or known[0] is not repository or known[1] != stamp
        ]

    def _put(self, view: View, name: Name) -> None:
        repository, stamp = view.snapshot.repositories.get(name), self._stamps.get(name)
        entries: dict[tuple[str, str], Entry] = {}
        is_whole = True
        if stamp is not None and self._cached is not None:
            found, is_whole = cached_entries(self._cached, name, self._index)
            entries = {(entry.tag, entry.digest): entry for entry in found}
        if repository is not None:
            found, missing = local_entries(view, repository, self._index)
            self._missing.put(repository, missing)
            is_whole = is_whole and not missing
            tags = {entry.tag for entry in found if entry.tag}
            # A local tag hides an upstream's of the same name, and what it names has a tag.
            entries = {key: entry for key, entry in entries.items() if key[0] not in tags}
            entries |= {(entry.tag, entry.digest): entry for entry in found}
        tagged = {digest for tag, digest in entries if tag}
        self._index.put(str(name), [e for (tag, digest), e in entries.items() if tag or digest not in tagged])
        if not is_whole:
            self._incomplete.add(name)
        else:
            self._missing.drop(name)
        if repository is None and stamp is None:
            self._known.pop(name, None)
        else:
            self._known[name] = (repository, stamp)

    def _finish(self) -> None:
        """What an earlier process left of names that are no more."""
        if self._index.complete:
            return
        here = {str(name) for name in self._known}
        for name in self._index.names():
            if name not in here:
                self._index.put(name, ())
        self._index.tidy()
        self._index.complete = True
