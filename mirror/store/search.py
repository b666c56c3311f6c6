"""The search index: one row per tag and per manifest without a tag, in SQLite, so that a query holds nobody up.

Only an index over what is served: deleted, it is made anew, and only the times of first sight are lost.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from mirror.store.search_entry import Entry, Facts
from mirror.store.search_file import connect, open_anew
from mirror.store.search_filters import conditions
from mirror.store.search_pages import Pages, WalkLimits
from mirror.store.search_query import Found, Query
from mirror.store.search_rows import RowWriter
from mirror.store.search_rows import tidy as tidy_rows

log = logging.getLogger(__name__)

# What went and comes again within this time is not new; beyond that many the oldest are forgotten.
GONE_DAYS = 30
MAX_GONE = 200_000
WALK_LIMITS = WalkLimits()


class SearchIndex:
    """Blocks; may be used from any thread. `path` None: in memory. One process writes, others may read."""

    def __init__(self, path: Path | None, walk_limits: WalkLimits = WALK_LIMITS) -> None:
        self._walk_limits = walk_limits
        self._writer, kept = open_anew(path)
        self._reader = connect(kept) if kept is not None else self._writer
        self._writing = threading.Lock()
        self._reading = threading.Lock() if kept is not None else self._writing
        self._names: tuple[int, list[tuple[int, str]]] | None = None

    def close(self) -> None:
        with self._writing:
            self._writer.close()
        if self._reader is not self._writer:
            with self._reading:
                self._reader.close()

    def copy_from(self, path: Path) -> None:
        """Take over what another index knows, where there is one that can be read."""
        if not path.exists():
            return
        try:
            other = connect(path)
        except sqlite3.Error as error:
            log.warning("the search index %s was not read: %s", path, error)
            return
        with self._writing, closing(other):
            other.backup(self._writer)
            self._writer.execute("UPDATE state SET complete = 0")
            self._writer.commit()

    def search(self, query: Query, may_read: Callable[[str], bool] | None = None) -> Found:
        """A page of what may be read (None: everything), and how much there is in all. Raises sqlite3.Error."""
        with self._reading:
            # In one transaction: what comes between would be a name that nobody was asked about.
            self._reader.execute("BEGIN")
            try:
                hidden: list[int] = []
                if may_read is not None:
                    hidden = [number for number, name in self._all_names() if not may_read(name)]
                pages = Pages(self._reader, query, conditions(query, hidden), self._walk_limits)
                return pages.repositories() if query.kind == "repository" else pages.rows()
            finally:
                self._reader.execute("COMMIT")

    @property
    def complete(self) -> bool:
        """Whether everything that there was at the start has been looked at."""
        with self._reading:
            (value,) = self._reader.execute("SELECT complete FROM state").fetchone()
        return bool(value)

    @complete.setter
    def complete(self, value: bool) -> None:
        with self._writing, self._writer:
            self._writer.execute("UPDATE state SET complete = ?", (int(value),))

    def names(self) -> list[str]:
        """Every repository that has rows."""
        with self._reading:
            return [name for _, name in self._all_names()]

    def facts(self, digest: str) -> Facts | None:
        """What was kept of a manifest."""
        with self._writing:
            row = self._writer.execute("SELECT facts FROM facts WHERE digest = ?", (digest,)).fetchone()
        return Facts.from_json(row[0]) if row else None

    def keep_facts(self, found: Mapping[str, Facts]) -> None:
        """Facts of whole content never change: a next start need not read it again."""
        rows = [(digest, facts.to_json()) for digest, facts in found.items()]
        with self._writing, self._writer:
            self._writer.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?)", rows)

    def put(self, name: str, entries: Iterable[Entry], now_ms: int | None = None) -> bool:
        """Make these the rows of a repository; whether anything was another. Raises sqlite3.Error."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        with self._writing, self._writer:
            return RowWriter(self._writer, name, now).replace(entries)

    def tidy(self, now_ms: int | None = None) -> None:
        """Forget facts that no row needs, and what went long ago."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        with self._writing, self._writer:
            tidy_rows(self._writer)
            self._writer.execute("DELETE FROM facts WHERE digest NOT IN (SELECT digest FROM rows)")
            self._writer.execute("DELETE FROM gone WHERE gone < ?", (now - GONE_DAYS * 86_400_000,))
            self._writer.execute(
                "DELETE FROM gone WHERE (name, tag, digest) IN"
                " (SELECT name, tag, digest FROM gone ORDER BY gone DESC LIMIT -1 OFFSET ?)",
                (MAX_GONE,),
            )

    def _all_names(self) -> list[tuple[int, str]]:
        """Read again only where the file has changed."""
        (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        if self._names is None or self._names[0] != version or self._reader is self._writer:
            names = self._reader.execute("SELECT id, name FROM repositories ORDER BY name").fetchall()
            self._names = (version, names)
        return self._names[1]
