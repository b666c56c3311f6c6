"""The SQLite file behind the index: opened, checked, and made anew where it cannot be what we wrote."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from mirror.store.lock import locked

log = logging.getLogger(__name__)

# Another number in the file: another version wrote it, and it is made anew.
SCHEMA_VERSION = 2
_BUSY_SECONDS = 5.0
# Readers of a WAL wait for nobody but a recovery; they are on the event loop.
_READER_BUSY_SECONDS = 0.05
# Damage, no database, another shape, a short read: made anew. The rest (full, read-only, busy) is the disk's; where
# it is full, the file beside it that processes share cannot be made, which is told as an I/O error too.
_DAMAGE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_SCHEMA = """
BEGIN;
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, added REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE uses (
    name TEXT, reference TEXT, used REAL NOT NULL, checked REAL NOT NULL, PRIMARY KEY (name, reference)
) WITHOUT ROWID;
CREATE TABLE links (
    digest TEXT PRIMARY KEY, manifests TEXT NOT NULL, blobs TEXT NOT NULL, subject TEXT
) WITHOUT ROWID;
CREATE TABLE unknowns (
    name TEXT, reference TEXT, code TEXT NOT NULL, said REAL NOT NULL, PRIMARY KEY (name, reference)
) WITHOUT ROWID;
CREATE INDEX unknowns_by_age ON unknowns (said);
CREATE TABLE totals (blobs INTEGER NOT NULL, disk_bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON blobs BEGIN
    UPDATE totals SET blobs = blobs + 1, disk_bytes = disk_bytes + (new.size + 4095) / 4096 * 4096;
END;
CREATE TRIGGER resized AFTER UPDATE OF size ON blobs BEGIN
    UPDATE totals SET disk_bytes =
        disk_bytes - (old.size + 4095) / 4096 * 4096 + (new.size + 4095) / 4096 * 4096;
END;
CREATE TRIGGER removed AFTER DELETE ON blobs BEGIN
    UPDATE totals SET blobs = blobs - 1, disk_bytes = disk_bytes - (old.size + 4095) / 4096 * 4096;
END;
COMMIT;
"""


class Database:
    """One connection, for one user at a time."""

    def __init__(self, path: Path | None, busy_seconds: float = _BUSY_SECONDS) -> None:
        self._path = path
        self._connection = sqlite3.connect(
            str(path or ":memory:"), timeout=busy_seconds, isolation_level=None, check_same_thread=False
        )
        self._lock = Lock()

    def reader(self) -> "Database":
        """A second connection, which does not wait for a write that is going on; itself where it is in memory."""
        return Database(self._path, _READER_BUSY_SECONDS) if self._path is not None else self

    def read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows. Raises sqlite3.Error."""
        with self._lock:
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises sqlite3.Error, with nothing written."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def prepare(self) -> bool:
        """Set up; True where the schema had to be made. Raises sqlite3.Error where the file is not what we wrote."""
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version == 0 and empty:
            connection.executescript(f"{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};")
            return True
        if version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"its schema is version {version}, not {SCHEMA_VERSION}")
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        if len(connection.execute("SELECT 1 FROM totals").fetchall()) != 1:
            raise sqlite3.DatabaseError("no totals")
        return False

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def open_database(path: Path) -> tuple[Database, bool]:
    """The database at `path`, and whether it had to be made anew: missing, damaged, or of another version.

    One process at a time opens it. Where the folder cannot be written, one in memory, with a warning.
    """
    try:
        with locked(path.with_name(path.name + ".lock")):
            try:
                return _prepared(path)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                log.warning("the cache's index %s is made anew: %s", path, error)
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                return _prepared(path)
    except (OSError, sqlite3.Error) as error:
        log.warning("the cache's index %s is kept in memory: %s", path, error)
        return _prepared(None)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is to blame; else it may be right, and is the disk's or another process's to give."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ


def _prepared(path: Path | None) -> tuple[Database, bool]:
    database = Database(path)
    try:
        return database, database.prepare()
    except BaseException:
        database.close()
        raise
