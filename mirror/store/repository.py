"""One cached repository: its tags and manifests, its links and lists, on disk and in memory.

On disk, below `names/<host>/<repository>/`: `_index.json` and `_journal` (see `records`), `_links`, `_lists/`,
`_lock`. In memory: what was last read, with one or two stats per question, so that what another process wrote is
seen by the next request.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.store.index import CacheIndex
from mirror.store.links import Links
from mirror.store.lists import TAGS, CachedList, ListKind, ListMemory, Lists
from mirror.store.lock import locked
from mirror.store.records import Record, Table, forget_digest_line, forget_tag_line
from mirror.store.table import TableFile

# Parsing goes at about 50 MB/s: up to here it is done on the spot.
_INLINE_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class CachedTag:
    """Times in Unix seconds: when it was fetched, and when its upstream last confirmed it (or it was fetched)."""

    descriptor: Descriptor
    fetched_at: float
    etag: str | None
    checked_at: float


class CachedRepository:
    """Questions cost a stat or two (2 µs each) and may be asked on the event loop, after `ready`. What writes, or
    is called `refresh`, waits for the disk and for other processes, raises OSError, and belongs into a thread.
    """

    def __init__(
        self,
        name: Name,
        folder: Path,
        index: CacheIndex,
        memory: ListMemory,
        weighed: Callable[["CachedRepository"], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.folder = folder
        self._index = index
        self._weighed = weighed
        self._lock_path = f"{folder}/_lock"
        self._file = TableFile(folder)
        self._links = Links(f"{folder}/_links")
        self._lists = Lists(f"{folder}/_lists", memory)

    @property
    def weight(self) -> int:
        """About how many tags, manifests and links are held in memory."""
        return 1 + len(self._file.table.tags) + len(self._file.table.manifests) + len(self._links.sizes)

    async def ready(self) -> None:
        """Bring memory up to date, in a thread where there is much to read; then questions do not hold the loop."""
        bytes_to_read = self._file.pending_bytes() + self._links.pending_bytes()
        if bytes_to_read > _INLINE_BYTES:
            await asyncio.to_thread(self.refresh)

    async def ready_list(self, kind: ListKind) -> None:
        """The same for one list."""
        if self._lists.pending_bytes(kind) > _INLINE_BYTES:
            await asyncio.to_thread(self._read_list, kind)

    def _read_list(self, kind: ListKind) -> None:
        found = self._lists.get(kind)
        if found is not None:
            _ = found.tags if kind == TAGS else found.referrers

    def refresh(self) -> None:
        """Bring memory up to date."""
        self._current_table()
        self._current_links()

    def tag(self, tag: str) -> CachedTag | None:
        found = self._current_table().tags.get(tag)
        if found is None:
            return None
        checked_at = max(found.fetched_at, self._index.checked_at(self.name, tag))
        return CachedTag(found.descriptor, found.fetched_at, found.etag, checked_at)

    def tag_checked_elsewhere(self, tag: str) -> CachedTag | None:
        """As `tag`, with what other processes know of its revalidation: for when this one holds it to be stale."""
        self._index.checked_at(self.name, tag, reread=True)
        return self.tag(tag)

    def manifest(self, digest: Digest) -> Descriptor | None:
        """The descriptor of a manifest that came through this repository."""
        found = self._current_table().manifests.get(digest)
        return found.descriptor if found else None

    def has(self, digest: Digest) -> bool:
        """Membership: its bytes came through this repository, or its upstream answered a HEAD for it with 200."""
        return digest in self._current_links() or digest in self._current_table().manifests

    def still_has(self, digest: Digest) -> bool:
        """As `has`, where nothing was written since it was asked last; else False. One stat, with nothing to read."""
        return self._links.unchanged() and digest in self._links.sizes

    def size(self, digest: Digest) -> int | None:
        """The size in bytes of a digest that this repository has, where it is known."""
        size = self._current_links().get(digest)
        if size is not None:
            return size
        found = self.manifest(digest)
        return found.size if found else None

    def tags(self) -> tuple[str, ...]:
        """In ASCII order."""
        self._current_table()
        return self._file.sorted_tags()

    def tags_since(self, fetched_at: float) -> Sequence[str]:
        """Those that were fetched at this time, in Unix seconds, or later; in any order."""
        self._current_table()
        return self._file.tags_since(fetched_at)

    def records(self) -> tuple[dict[str, Record], dict[Digest, Record]]:
        """Copies of all tags and all manifests, untagged ones included."""
        self._current_table()
        return self._file.copy()

    def links(self) -> dict[Digest, int | None]:
        """A copy of the digests that came through, with their sizes in bytes."""
        self._current_links()
        return self._links.copy()

    def list(self, kind: ListKind) -> CachedList | None:
        return self._lists.get(kind)

    def exists(self) -> bool:
        """Whether anything of this repository is cached."""
        table = self._current_table()
        return bool(table.manifests or self._current_links() or table.tags) or Path(f"{self.folder}/_lists").exists()

    def stamp(self) -> tuple[Any, ...]:
        """Another value when its tags, manifests or links may have changed."""
        found = []
        for name in ("_index.json", "_journal", "_links"):
            with suppress(OSError):
                now = os.stat(f"{self.folder}/{name}")
                found.append((name, now.st_ino, now.st_size, now.st_mtime_ns))
        return tuple(found)

    def put_tag(
        self, tag: str, descriptor: Descriptor, etag: str | None = None, fetched_at: float | None = None
    ) -> None:
        """The upstream answered for a tag. A manifest that it pointed at before stays, by its digest."""
        self._put(Record(descriptor, tag, time.time() if fetched_at is None else fetched_at, etag))

    def put_manifest(self, descriptor: Descriptor, fetched_at: float | None = None) -> None:
        """A manifest came through by its digest."""
        known = self._current_table().manifests.get(descriptor.digest)
        if known is None or known.descriptor != descriptor:
            self._put(Record(descriptor, None, time.time() if fetched_at is None else fetched_at))

    def touch_checked(self, tag: str, at: float | None = None) -> None:
        """The upstream confirmed a tag. Kept in the index only: losing it costs one HEAD. Waits for nothing."""
        self._index.touch_checked(self.name, tag, at)

    def link(self, digest: Digest, size: int | None = None) -> None:
        """A blob of `size` bytes came through, or the upstream answered a HEAD for it with 200."""
        known = self._current_links()
        if digest not in known or (size is not None and known[digest] != size):
            self.link_all({digest: size})

    def link_all(self, sizes: Mapping[Digest, int | None]) -> None:
        """The same for several at once."""
        with self._writing():
            self._links.add(sizes)
        self._weighed(self)

    def put_list(self, kind: ListKind, document: Any, fetched_at: float | None = None) -> None:
        """The upstream gave a list with 200. For a 404 use `put_absent_list`."""
        with self._writing():
            self._lists.put(kind, document, time.time() if fetched_at is None else fetched_at)

    def put_absent_list(self, kind: ListKind, empty: Any, fetched_at: float | None = None) -> CachedList:
        """The upstream has no such list (404): `empty` is put, unless a non-empty one is cached. What then stands."""
        with self._writing():
            known = self._lists.get(kind)
            if known is not None and not known.is_empty:
                return known
            now = time.time() if fetched_at is None else fetched_at
            self._lists.put(kind, empty, now)
            return CachedList(empty, now)

    def forget(self) -> bool:
        """Remove everything of this repository but what lies below it; False where there was nothing.

        Blobs stay in the pool, where no name leads to them, until they are evicted.
        """
        known = self.exists()
        if known or self.folder.exists():
            with self._writing():
                self._clear()
        self._index.forget(self.name)
        return known

    def forget_tag(self, tag: str) -> bool:
        """Forget where a tag points; its manifest stays, by its digest. False where it was not known."""
        if tag not in self._current_table().tags:
            return False
        with self._writing():
            self._file.append([forget_tag_line(tag)])
        self._index.forget(self.name, [tag])
        return True

    def evict(self, tags: Mapping[str, Record], digests: Iterable[Digest]) -> dict[Digest, int | None]:
        """Forget tags that still are what `tags` says, then manifests, links and lists of `digests`, which are to be
        removed, except manifests that a remaining tag points at. What was linked, to `link_all` it again.
        """
        with self._writing():
            table = self._file.table
            gone = {tag for tag, record in tags.items() if table.tags.get(tag) == record}
            kept = {record.descriptor.digest for tag, record in table.tags.items() if tag not in gone}
            removed = [digest for digest in digests if digest not in kept]
            dropped = [digest for digest in removed if digest in table.manifests]
            lines = [forget_tag_line(tag) for tag in gone] + [forget_digest_line(digest) for digest in dropped]
            if lines:
                self._file.append(lines)
            for digest in dropped:
                self._lists.remove(digest)
            unlinked = self._links.remove(removed)
            if not (self._file.table.tags or self._file.table.manifests or self._links.sizes):
                self._clear()
        self._index.forget(self.name, [*gone, *dropped])
        return unlinked

    def fold(self) -> None:
        """Write what was put lately into `_index.json`, for those who read that file alone."""
        if not self._file.unchanged() or self._file.is_behind:
            with self._writing():
                self._file.fold()

    def _put(self, record: Record) -> None:
        with self._writing():
            self._file.append([record.to_line()])
        self._weighed(self)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the repository's lock, memory being up to date; nobody else changes it till the end."""
        with locked(self._lock_path):
            self._file.refresh()
            self._links.refresh()
            yield

    def _clear(self) -> None:
        self._links.clear()
        self._lists.clear()
        self._file.clear()
        for part in self.folder.glob("_*.part"):
            part.unlink(missing_ok=True)
        # The lock goes last: whoever waits for it finds that it guards nothing, and begins anew.
        Path(self._lock_path).unlink(missing_ok=True)
        folder = self.folder
        with suppress(OSError):
            # Up to the host's; each goes only when it is empty.
            for _ in range(2 + self.name.repository.count("/")):
                folder.rmdir()
                folder = folder.parent

    def _current_table(self) -> Table:
        if not self._file.unchanged():
            self._file.refresh()
            self._weighed(self)
        return self._file.table

    def _current_links(self) -> dict[Digest, int | None]:
        if not self._links.unchanged():
            self._links.refresh()
            self._weighed(self)
        return self._links.sizes
