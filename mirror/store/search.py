"""The search index: one row per tag and per manifest without a tag, in SQLite, so that a query holds nobody up.

Only an index over what is served: deleted, it is made anew, and only the times of first sight are lost.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mirror.oci.versions import version_key
from mirror.store.search_entry import Entry, Facts
from mirror.store.search_file import connect, open_anew
from mirror.store.search_query import Found, Query, statement

log = logging.getLogger(__name__)

# What went and comes again within this time is not new; beyond that many the oldest are forgotten.
GONE_DAYS = 30
MAX_GONE = 200_000


class SearchIndex:
    """Blocks; may be used from any thread. `path` None: in memory. One process writes, others may read."""

    def __init__(self, path: Path | None) -> None:
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

    def search(self, query: Query, may_read: Callable[[str], bool]) -> Found:
        """A page of what may be read, and how much there is in all. Raises sqlite3.Error."""
        with self._reading:
            # In one transaction: what comes between would be a name that nobody was asked about.
            self._reader.execute("BEGIN")
            try:
                hidden = [number for number, name in self._all_names() if not may_read(name)]
                return statement(query, hidden).run(self._reader)
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
        wanted = {(entry.tag, entry.digest): entry for entry in entries}
        with self._writing, self._writer:
            known = {
                (tag, digest): (number, platforms, size, kind)
                for number, tag, digest, platforms, size, kind in self._writer.execute(
                    "SELECT r.id, tag, digest, platforms, size, kind FROM rows r"
                    " JOIN repositories p ON p.id = repository WHERE p.name = ?",
                    (name,),
                )
            }
            removed = [key for key in known if key not in wanted]
            added = [entry for key, entry in wanted.items() if key not in known]
            changed = [
                (known[key][0], entry)
                for key, entry in wanted.items()
                if key in known
                and known[key][1:] != (_joined(entry.facts.platforms), entry.facts.size, entry.facts.kind)
            ]
            self._remove(name, removed, known, now)
            for number, entry in changed:
                self._writer.execute(
                    "UPDATE rows SET platforms = ?, size = ?, kind = ?, created = ? WHERE id = ?",
                    (
                        _joined(entry.facts.platforms),
                        entry.facts.size,
                        entry.facts.kind,
                        entry.facts.created_ms,
                        number,
                    ),
                )
            self._add(name, added, now)
            if not wanted:
                self._writer.execute("DELETE FROM repositories WHERE name = ?", (name,))
        return bool(removed or added or changed)

    def tidy(self, now_ms: int | None = None) -> None:
        """Forget facts that no row needs, and what went long ago."""
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        with self._writing, self._writer:
            self._writer.execute("DELETE FROM facts WHERE digest NOT IN (SELECT digest FROM rows)")
            self._writer.execute("DELETE FROM gone WHERE gone < ?", (now - GONE_DAYS * 86_400_000,))
            self._writer.execute(
                "DELETE FROM gone WHERE (name, tag, digest) IN"
                " (SELECT name, tag, digest FROM gone ORDER BY gone DESC LIMIT -1 OFFSET ?)",
                (MAX_GONE,),
            )

    def _remove(self, name: str, keys: Sequence[tuple[str, str]], known: Mapping[Any, Any], now: int) -> None:
        numbers = [(known[key][0],) for key in keys]
        self._writer.executemany(
            "INSERT OR REPLACE INTO gone SELECT name, tag, digest, first_seen, ? FROM rows WHERE id = ?",
            [(now, number) for (number,) in numbers],
        )
        self._writer.executemany("DELETE FROM annotations WHERE row = ?", numbers)
        self._writer.executemany("DELETE FROM rows WHERE id = ?", numbers)

    def _add(self, name: str, entries: Sequence[Entry], now: int) -> None:
        if not entries:
            return
        execute = self._writer.execute
        execute("INSERT OR IGNORE INTO repositories (name) VALUES (?)", (name,))
        (repository,) = execute("SELECT id FROM repositories WHERE name = ?", (name,)).fetchone()
        gone = {
            (tag, digest): seen
            for tag, digest, seen in execute("SELECT tag, digest, first_seen FROM gone WHERE name = ?", (name,))
        }
        for entry in entries:
            facts = entry.facts
            times = (gone.get((entry.tag, entry.digest)), entry.seen_ms)
            seen = min((one for one in times if one is not None), default=now)
            words = f"{name}:{entry.tag}".lower() if entry.tag else name.lower()
            row = execute(
                "INSERT INTO rows VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(repository, name, entry.tag, entry.digest, words, version_key(entry.tag)),
                    *(_text(facts.media_type), _text(facts.artifact_type), facts.kind, _joined(facts.platforms)),
                    *(min(facts.size, _MAX_INTEGER), facts.created_ms, seen),
                ),
            ).lastrowid
            self._writer.executemany(
                "INSERT OR IGNORE INTO annotations VALUES (?, ?, ?)",
                [(_text(key), _text(value), row) for key, value in facts.annotations.items()],
            )
        self._writer.execute(
            "DELETE FROM gone WHERE name = ? AND EXISTS (SELECT 1 FROM rows r"
            " WHERE r.repository = ? AND r.tag = gone.tag AND r.digest = gone.digest)",
            (name, repository),
        )

    def _all_names(self) -> list[tuple[int, str]]:
        """Read again only where the file has changed."""
        (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        if self._names is None or self._names[0] != version or self._reader is self._writer:
            names = self._reader.execute("SELECT id, name FROM repositories ORDER BY name").fetchall()
            self._names = (version, names)
        return self._names[1]


_MAX_INTEGER = 2**63 - 1


def _joined(platforms: Sequence[str]) -> str:
    """As the query looks for them: each between commas."""
    return _text(f",{','.join(platforms)},") if platforms else ""


def _text(text: Any) -> Any:
    """JSON may hold what no UTF-8 can."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text
