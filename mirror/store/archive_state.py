"""What slow reading of archives found, kept between starts: which tar a compressed one became, what its layers are.

An index over files, no more: deleted or damaged, it is begun anew, at the cost of reading those archives again.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mirror.oci.digest import Digest
from mirror.store.archive_file import Stamp
from mirror.store.layer_hashes import StoredLayer
from mirror.store.tar_index import Member

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS unpacked (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, key TEXT, problem TEXT);
CREATE TABLE IF NOT EXISTS layers (
    path BLOB, offset INTEGER, size INTEGER, stamp TEXT NOT NULL, digest TEXT NOT NULL, diff_id TEXT, problem TEXT,
    PRIMARY KEY (path, offset, size)
) WITHOUT ROWID;

-- The next start may have other limits, or another version of this program: what failed is tried again.
DELETE FROM unpacked WHERE problem IS NOT NULL;
DELETE FROM layers WHERE problem IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class UnpackRecord:
    """What became of a compressed archive: the `key` of its tar, or the `problem` that it has till the next start."""

    key: Digest | None
    problem: str | None = None


class ArchiveState:
    """Facts about archives by path, valid as long as the file has the stamp that it had then.

    Usable from any thread, and from several processes. What cannot be written is forgotten, with a log line.
    """

    def __init__(self, file: str | Path) -> None:
        self._lock = threading.Lock()
        self._file = Path(file)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open(self._file)
        except sqlite3.OperationalError as error:
            # Locked, full, read-only: not damaged.
            log.warning("what is learnt of archives is kept until the stop only: %s: %s", file, error)
            self._database = self._open(":memory:")
        except sqlite3.DatabaseError as error:
            log.warning("%s is damaged (%s) and is begun anew", file, error)
            for name in (self._file, *(self._file.with_name(f"{self._file.name}{end}") for end in ("-wal", "-shm"))):
                name.unlink(missing_ok=True)
            self._database = self._open(self._file)

    @staticmethod
    def _open(file: Path | str) -> sqlite3.Connection:
        database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Nothing is to be asked after this."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def unpacked(self, path: str, stamp: Stamp) -> UnpackRecord | None:
        """What became of this compressed archive; None: nothing known of it as it is now."""
        rows = self._rows("SELECT key, problem FROM unpacked WHERE path = ? AND stamp = ?", *_key(path, stamp))
        for key, problem in rows:
            return UnpackRecord(Digest.parse(key) if key else None, problem)
        return None

    def keys(self) -> set[Digest]:
        """The tars that some remembered archive became."""
        return {Digest.parse(key) for (key,) in self._rows("SELECT key FROM unpacked WHERE key IS NOT NULL")}

    def remember_unpacked(self, path: str, stamp: Stamp, record: UnpackRecord) -> None:
        """Keep what became of a compressed archive, instead of what was known of that path before."""
        row = (os.fsencode(path), _text(stamp), record.key, record.problem)
        self._write("REPLACE INTO unpacked VALUES (?, ?, ?, ?)", [row])

    def layers(self, path: str, stamp: Stamp) -> dict[Member, StoredLayer]:
        """What hashing found in this archive (of a compressed one: in its tar)."""
        columns = "offset, size, digest, diff_id, problem"
        query = f"SELECT {columns} FROM layers WHERE path = ? AND stamp = ?"  # noqa: S608 the columns are ours
        return {
            Member(offset, size): StoredLayer(
                Digest.parse(digest), Digest.parse(diff_id) if diff_id else None, problem
            )
            for offset, size, digest, diff_id, problem in self._rows(query, *_key(path, stamp))
        }

    def remember_layers(self, path: str, stamp: Stamp, layers: Mapping[Member, StoredLayer]) -> None:
        """Add what hashing found in an archive; of an earlier file by that name nothing is kept."""
        name, text = os.fsencode(path), _text(stamp)
        rows = [
            (name, member.offset, member.size, text, layer.digest, layer.diff_id, layer.problem)
            for member, layer in layers.items()
        ]
        self._write("DELETE FROM layers WHERE path = ? AND stamp != ?", [(name, text)])
        self._write("REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def forget_others(self, paths: Collection[str]) -> None:
        """Forget every archive that is not among `paths`, which name the tars of compressed ones too."""
        known = self._rows("SELECT path FROM unpacked UNION SELECT path FROM layers")
        gone = [(path,) for (path,) in known if os.fsdecode(path) not in paths]
        self._write("DELETE FROM unpacked WHERE path = ?", gone)
        self._write("DELETE FROM layers WHERE path = ?", gone)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            with self._lock:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            log.warning("%s: %s; archives will be read again", self._file, error)
            return []

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        try:
            with self._lock:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    self._database.executemany(statement, rows)
                    self._database.execute("COMMIT")
                except BaseException:
                    self._database.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            log.warning("%s: %s; those archives will be read again", self._file, error)


def _key(path: str, stamp: Stamp) -> tuple[bytes, str]:
    return os.fsencode(path), _text(stamp)


def _text(stamp: Stamp) -> str:
    return f"{stamp.size} {stamp.modified_ns} {stamp.inode}"
