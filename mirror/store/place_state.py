"""What was read of local content, kept between starts: one SQLite file, opened only to be read or written whole.

An index over files, no more: deleted or damaged, it is begun anew, at the cost of reading those files again.
"""

import logging
import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS places (
    path BLOB PRIMARY KEY, rules TEXT NOT NULL, signature TEXT NOT NULL, checksum INTEGER NOT NULL,
    content TEXT NOT NULL
) WITHOUT ROWID
"""
_BUSY_SECONDS = 5.0
# What the disk or another process is to blame for; the file may be right.
_NO_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_IOERR,
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was read of the file that had `signature`, under `rules`: names depend on the configuration too."""

    rules: str
    signature: str
    content: str


class PlaceState:
    """Rows by path. What cannot be read or written is forgotten, with a log line; never raises for the disk."""

    def __init__(self, file: str | Path, busy_seconds: float = _BUSY_SECONDS) -> None:
        self._file = Path(file)
        self._busy_seconds = busy_seconds

    def load(self, rules: Collection[str]) -> Mapping[str, Row]:
        """All rows with one of these rules. Blocks."""
        found: dict[str, Row] = {}
        try:
            if not self._file.exists():
                return found
            with self._open() as database:
                rows = database.execute("SELECT path, rules, signature, checksum, content FROM places")
                for path, rule, signature, checksum, content in rows:
                    # SQLite notices damage of its own pages only.
                    if rule in rules and checksum == zlib.crc32(content.encode()):
                        found[os.fsdecode(path)] = Row(rule, signature, content)
        except (sqlite3.Error, OSError, ValueError, AttributeError, TypeError) as error:
            self._failed(error)
        return found

    def save(self, rows: Iterable[tuple[str, Row]], forgotten: Collection[str]) -> None:
        """Add these rows, and forget these paths. Blocks."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany(
                    "DELETE FROM places WHERE path = ?", ((os.fsencode(path),) for path in forgotten)
                )
                database.executemany(
                    "REPLACE INTO places VALUES (?, ?, ?, ?, ?)",
                    (
                        (os.fsencode(path), row.rules, row.signature, zlib.crc32(row.content.encode()), row.content)
                        for path, row in rows
                    ),
                )
                database.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def paths(self) -> list[str]:
        """Every path that has a row. Blocks."""
        try:
            with self._open() as database:
                return [os.fsdecode(path) for (path,) in database.execute("SELECT path FROM places")]
        except (sqlite3.Error, OSError, TypeError) as error:
            self._failed(error)
            return []

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._file, timeout=self._busy_seconds, isolation_level=None)
        try:
            # A crash may lose or damage it: that costs reading those places again.
            database.execute("PRAGMA synchronous = OFF")
            database.execute(_SCHEMA)
            yield database
        finally:
            database.close()

    def _failed(self, error: Exception) -> None:
        log.warning("what was read of local content is not remembered: %s: %s", self._file, error)
        if isinstance(error, OSError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_DAMAGE:
            return
        for end in ("", "-journal", "-wal", "-shm"):
            try:
                self._file.with_name(self._file.name + end).unlink(missing_ok=True)
            except OSError:
                return
