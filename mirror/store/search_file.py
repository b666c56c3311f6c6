"""The SQLite file of the search index: opened, and made anew where it cannot be what we wrote."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mirror.store.database import is_damage
from mirror.store.lock import locked

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
_BUSY_SECONDS = 5.0
_PAGE_CACHE_KIB = 32 * 1024

# Most queries read all rows, so these are small: numbers stand for annotations (in a row as `,1,7,`) and for what
# many rows say (`texts`: media types, artifact types, short names, sets of platforms as `,a,b,`). Those of one
# repository lie together, to be grouped in passing; otherwise they lie by lot, by random numbers and digests: to keep
# the first hundred of a sort costs most where each row comes before all that were met before it.
_SCHEMA = """
BEGIN;
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE annotations (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (key, value));
CREATE TABLE rows (
    repository INTEGER NOT NULL, digest TEXT NOT NULL, tag TEXT NOT NULL,
    kind INTEGER, media_type INTEGER NOT NULL, artifact_type INTEGER, platforms INTEGER NOT NULL,
    size INTEGER NOT NULL, created INTEGER, first_seen INTEGER NOT NULL,
    words TEXT NOT NULL, version TEXT NOT NULL, name TEXT NOT NULL, annotations TEXT NOT NULL,
    weight INTEGER NOT NULL,
    PRIMARY KEY (repository, digest, tag)
) WITHOUT ROWID;
CREATE INDEX rows_by_digest ON rows (digest);
CREATE INDEX rows_by_name ON rows (name, tag, digest);
CREATE INDEX rows_by_version ON rows (version, name, tag, digest);
CREATE INDEX rows_by_date ON rows (first_seen, name, tag, digest);
CREATE INDEX rows_by_size ON rows (size, name, tag, digest);
CREATE TABLE facts (digest TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE gone (
    name TEXT, tag TEXT, digest TEXT, first_seen INTEGER NOT NULL, gone INTEGER NOT NULL,
    PRIMARY KEY (name, tag, digest)
) WITHOUT ROWID;
CREATE TABLE state (complete INTEGER NOT NULL);
INSERT INTO state VALUES (0);
COMMIT;
"""


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection to the file, or to one in memory. Raises sqlite3.Error where the file is not what we wrote."""
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(str(path or ":memory:"), timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_PAGE_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            connection.executescript(f"{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};")
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"its schema is version {version}, not {SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """Hold a lock beside the file; where there can be none, go on without."""
    with ExitStack() as stack:
        if path is not None:
            with suppress(OSError):
                stack.enter_context(locked(path.with_name(f"{path.name}.lock")))
        yield


def open_anew(path: Path | None) -> tuple[sqlite3.Connection, Path | None]:
    """A connection to write with, and to which file: to none (in memory) where the folder cannot be written."""
    # Workers start together: only one of them makes the tables.
    with _alone(path):
        return _open_or_make(path)


def _open_or_make(path: Path | None) -> tuple[sqlite3.Connection, Path | None]:
    try:
        return connect(path), path
    except sqlite3.Error as error:
        damaged = is_damage(error)
        log.warning("the search index %s is %s: %s", path, "made anew" if damaged else "not used", error)
    if path is not None and damaged:
        with suppress(OSError, sqlite3.Error):
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return connect(path), path
    log.warning("the search index is kept in memory")
    return connect(None), None
