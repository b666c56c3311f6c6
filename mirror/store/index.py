"""An index over the files of the cache, in SQLite: last uses, revalidation times, sizes, what manifests list.

Only an index: deleted, damaged or of another version, it is made anew at the next start, and what it cannot know
from the files costs one HEAD per tag and a cruder order of eviction. It never fails a request: what cannot be
written is left out, and logged once.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Any, NamedTuple, Self

from cachetools import LRUCache

from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.store.database import open_database
from mirror.store.unknowns import Said, Unknowns
from mirror.store.unknowns import write as write_unknowns

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
FLUSH_ENTRIES = 1000
# Where nothing can be written, what waits is bounded too.
_MAX_WAITING = 100_000
_MAX_CHECKED = 100_000


_Key = tuple[Name, str]


class Use(NamedTuple):
    """When a tag or digest was last asked for, and last confirmed by its upstream; Unix seconds, 0: never."""

    used_at: float
    checked_at: float


class StoredBlob(NamedTuple):
    size: int
    added_at: float


class StoredLinks(NamedTuple):
    """What a manifest lists. Of its content only, so that it never changes."""

    manifests: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    subject: Digest | None = None


def disk_bytes(size: int) -> int:
    """What a file of `size` bytes takes on the disk, about: whole blocks of 4 KiB."""
    return -(-size // 4096) * 4096


class CacheIndex:
    """Open from construction to `close`, or entered. Any thread may use it; a forked process opens its own."""

    def __init__(self, path: Path) -> None:
        self._writer, self.rebuilt = open_database(path)
        self._reader = self._writer.reader()
        self._uses: dict[_Key, tuple[float, float]] = {}
        self._blobs: dict[Digest, int | None] = {}
        self._unknowns = Unknowns()
        self._checked: LRUCache[_Key, float] = LRUCache(_MAX_CHECKED)
        self._lock = Lock()  # what waits in memory
        self._wake = Condition(self._lock)
        self._urgent = self._closing = self._complained = False
        self._flushing = Lock()
        self._thread = Thread(target=self._write_on, name="cache-index", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and close."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self.flush()
        self._complained = True  # whoever still asks, like a scan at the start that nobody waits for, is no news
        self._reader.close()
        self._writer.close()

    def touch(self, name: Name, reference: str, at: float | None = None) -> None:
        """A tag or a digest was asked for, at Unix seconds `at` (None: now). For every hit: under 1 µs, no wait."""
        self._note(name, reference, time.time() if at is None else at, 0.0)

    def touch_checked(self, name: Name, tag: str, at: float | None = None) -> None:
        """The upstream confirmed a tag. Other processes see it within milliseconds."""
        now = time.time() if at is None else at
        with self._lock:
            self._checked[name, tag] = now
        self._note(name, tag, now, now, urgent=True)

    def checked_at(self, name: Name, tag: str, *, reread: bool = False) -> float:
        """When the upstream last confirmed a tag, 0 for never. From memory; `reread` asks SQLite (2-4 µs, a miss),
        for what another process may have written.
        """
        with self._lock:
            known = self._checked.get((name, tag))
        if known is not None and not reread:
            return known
        rows = self._read("SELECT checked FROM uses WHERE name = ? AND reference = ?", (str(name), tag))
        found = max(known or 0.0, rows[0][0] if rows else 0.0)
        with self._lock:
            self._checked[name, tag] = found
        return found

    def note_unknown(self, name: Name, reference: str, code: str | None) -> None:
        """The upstream says with this error code that it does not know something; None: it knows it now.

        Other processes see it within milliseconds.
        """
        with self._wake:
            self._unknowns.note(name, reference, Said(code, time.time()) if code else None)
            self._urgent = True
            self._wake.notify()

    def unknown(self, name: Name, reference: str) -> Said | None:
        """What the upstream said of it, to any process; asks SQLite (2-4 µs, a miss)."""
        rows = self._read("SELECT code, said FROM unknowns WHERE name = ? AND reference = ?", (str(name), reference))
        return Said(*rows[0]) if rows else None

    def blob_added(self, digest: Digest, size: int) -> None:
        """A blob of `size` bytes was published; also when it was there before."""
        self._note_blob(digest, size)

    def blob_removed(self, digest: Digest) -> None:
        self._note_blob(digest, None)

    def usage_bytes(self) -> int:
        """Bytes on disk of all blobs that any process reported; file sizes rounded up to blocks of 4 KiB."""
        rows = self._read("SELECT disk_bytes FROM totals")
        return int(rows[0][0]) if rows else 0

    def blob_count(self) -> int:
        rows = self._read("SELECT blobs FROM totals")
        return int(rows[0][0]) if rows else 0

    def blobs(self) -> dict[Digest, StoredBlob]:
        rows = self._read("SELECT digest, size, added FROM blobs")
        return {Digest(digest): StoredBlob(size, added) for digest, size, added in rows}

    def uses(self) -> dict[tuple[str, str], Use]:
        """By canonical name and reference (a tag or a digest)."""
        return {
            (name, reference): Use(used, checked)
            for name, reference, used, checked in self._read("SELECT name, reference, used, checked FROM uses")
        }

    def links(self) -> dict[Digest, StoredLinks]:
        """By digest of the manifest; of those that were ever read for it."""
        digests: dict[str, Digest] = {}

        def split(text: str) -> tuple[Digest, ...]:
            # Layers are shared by many manifests: one object each.
            return tuple(digests.get(part) or digests.setdefault(part, Digest(part)) for part in text.split())

        return {
            Digest(digest): StoredLinks(split(manifests), split(blobs), Digest(subject) if subject else None)
            for digest, manifests, blobs, subject in self._read("SELECT digest, manifests, blobs, subject FROM links")
        }

    def add_links(self, found: Mapping[Digest, StoredLinks]) -> None:
        rows = [(digest, " ".join(row.manifests), " ".join(row.blobs), row.subject) for digest, row in found.items()]
        with self._complaining(), self._writer.writing() as database:
            database.executemany("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?)", rows)

    def forget(self, name: Name, references: Collection[str] | None = None) -> None:
        """Drop the times of these tags and digests (None: of the whole repository)."""
        # Not while a write of what waited is under way: it would bring them back.
        with self._flushing:
            self._forget_waiting(name, references)
            with self._complaining(), self._writer.writing() as database:
                if references is None:
                    database.execute("DELETE FROM uses WHERE name = ?", (str(name),))
                    database.execute("DELETE FROM unknowns WHERE name = ?", (str(name),))
                else:
                    rows = [(str(name), reference) for reference in references]
                    database.executemany("DELETE FROM uses WHERE name = ? AND reference = ?", rows)

    def forget_digests(self, digests: Iterable[Digest]) -> None:
        """Drop what is known of content that is gone."""
        gone = json.dumps(list(digests))
        with self._complaining(), self._writer.writing() as database:
            database.execute("DELETE FROM links WHERE digest IN (SELECT value FROM json_each(?))", (gone,))
            database.execute("DELETE FROM uses WHERE reference IN (SELECT value FROM json_each(?))", (gone,))

    def keep_names(self, names: Iterable[Name]) -> None:
        """Drop the times of all other repositories: their files are gone."""
        kept = json.dumps([str(name) for name in names])
        with self._complaining(), self._writer.writing() as database:
            database.execute("DELETE FROM uses WHERE name NOT IN (SELECT value FROM json_each(?))", (kept,))

    def flush(self) -> None:
        """Write what waits; on return it is written."""
        with self._flushing:
            with self._lock:
                uses, self._uses = self._uses, {}
                blobs, self._blobs = self._blobs, {}
                unknowns = self._unknowns.take()
                self._urgent = False
            if uses or blobs:
                self._write(uses, blobs)
            if unknowns:
                with self._complaining(), self._writer.writing() as database:
                    write_unknowns(database, unknowns)

    def _write(self, uses: Mapping[_Key, tuple[float, float]], blobs: Mapping[Digest, int | None]) -> None:
        now = time.time()
        with self._complaining(), self._writer.writing() as database:
            database.executemany(
                "INSERT INTO uses VALUES (?, ?, ?, ?) ON CONFLICT (name, reference) DO UPDATE"
                " SET used = max(used, excluded.used), checked = max(checked, excluded.checked)",
                [(str(name), reference, *times) for (name, reference), times in uses.items()],
            )
            database.executemany(
                "INSERT INTO blobs VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size"
                " WHERE size != excluded.size",
                [(digest, size, now) for digest, size in blobs.items() if size is not None],
            )
            database.executemany(
                "DELETE FROM blobs WHERE digest = ?", [(digest,) for digest, size in blobs.items() if size is None]
            )

    def _forget_waiting(self, name: Name, references: Collection[str] | None) -> None:
        with self._lock:
            if references is None:
                self._unknowns.forget(name)
            for waiting in (self._uses, self._checked):
                if references is None:
                    gone = [key for key in waiting if key[0] == name]
                else:
                    gone = [(name, reference) for reference in references]
                for key in gone:
                    waiting.pop(key, None)

    def _note(self, name: Name, reference: str, used: float, checked: float, *, urgent: bool = False) -> None:
        key = (name, reference)
        with self._lock:
            waiting = self._uses
            before = waiting.get(key)
            if before is not None:
                waiting[key] = (max(used, before[0]), max(checked, before[1]))
            elif len(waiting) < _MAX_WAITING:
                waiting[key] = (used, checked)
            if urgent or len(waiting) == 1 or len(waiting) >= FLUSH_ENTRIES:
                self._urgent = self._urgent or urgent or len(waiting) >= FLUSH_ENTRIES
                self._wake.notify()

    def _note_blob(self, digest: Digest, size: int | None) -> None:
        with self._wake:
            self._blobs[digest] = size
            self._urgent = True
            self._wake.notify()

    def _write_on(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._uses or self._blobs or self._unknowns)
                self._wake.wait_for(lambda: self._closing or self._urgent, FLUSH_SECONDS)
                if self._closing:
                    return
            self.flush()

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._reader.read(statement, values)
        except sqlite3.Error as error:
            self._complain(error)
            return []

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        """What SQLite does not do within costs a warning."""
        try:
            yield
        except sqlite3.Error as error:
            self._complain(error)

    def _complain(self, error: sqlite3.Error) -> None:
        if not self._complained:
            self._complained = True
            log.warning("the cache's index cannot be used (%s); it is rebuilt at the next start", error)
