"""The tags and manifests of one repository, in `_index.json` and `_journal`, and what was last read of them."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock

from mirror.oci.digest import Digest
from mirror.store.lines import LineFile, Mark, prepare_file
from mirror.store.records import Record, Table, parse_index

_Stamp = tuple[int, int, int]


class TableFile:
    """Reading needs no lock between processes and may be done by any thread; writers hold the repository's lock."""

    def __init__(self, folder: Path | str) -> None:
        self._index_path = f"{folder}/_index.json"
        self._journal = LineFile(f"{folder}/_journal", "tags and manifests put since _index.json")
        self._mutex = RLock()
        self.table = Table()
        self._stamp: _Stamp | None = None
        self._mark: Mark | None = None
        self._lines = 0
        self._since: tuple[object, Sequence[str]] = (None, ())

    def unchanged(self) -> bool:
        """Whether `table` is what the files say; two stats."""
        return self._journal.unchanged(self._mark) and _stamp(self._index_path) == self._stamp

    @property
    def is_behind(self) -> bool:
        """Whether `_index.json` lacks lines that the journal has."""
        return self._lines > 0

    def pending_bytes(self) -> int:
        """About how many bytes `refresh` would have to go through."""
        if self.unchanged():
            return 0
        stamp = _stamp(self._index_path)
        if stamp == self._stamp:
            return self._journal.pending_bytes(self._mark)
        return self._journal.pending_bytes(None) + (stamp[1] if stamp else 0)

    def refresh(self) -> None:
        """Read what others wrote: the journal's new lines, or everything where the index is another."""
        with self._mutex:
            # Until nothing changed meanwhile. What is left to read shrinks to a few new lines at once.
            while not self.unchanged():
                self._read_on()

    def copy(self) -> tuple[dict[str, Record], dict[Digest, Record]]:
        """All tags, and all manifests, untagged ones included."""
        with self._mutex:
            return dict(self.table.tags), dict(self.table.manifests)

    def sorted_tags(self) -> tuple[str, ...]:
        with self._mutex:
            return self.table.sorted_tags()

    def tags_since(self, fetched_at: float) -> Sequence[str]:
        """Those that were fetched then or later; looked for anew when the time or the files are others."""
        with self._mutex:
            key = (fetched_at, self._stamp, self._mark)
            if self._since[0] != key:
                found = [tag for tag, record in self.table.tags.items() if record.fetched_at >= fetched_at]
                self._since = (key, found)
            return self._since[1]

    def append(self, lines: list[str]) -> None:
        """Write lines of the journal and take them in; now and then the index. Raises OSError where nothing was."""
        self._journal.append(lines)
        self.refresh()
        # Folding writes everything: often enough for a short journal, seldom enough to cost little per line.
        if self._lines > len(self.table.manifests) // 4:
            # The lines are written; where the disk has no room for more, the journal grows on.
            with suppress(OSError):
                self.fold()

    def fold(self) -> None:
        """Write the journal's lines into `_index.json`. Raises OSError."""
        if not self._lines:
            return
        index = prepare_file(self._index_path, self.table.to_index())
        journal = self._journal.prepare_empty()
        # Readers in this process wait for two renames, not for the disk.
        with self._mutex:
            # In this order: whoever reads in between applies the journal's lines again, to the same end.
            os.replace(index, self._index_path)
            os.replace(journal, self._journal.path)
            self._stamp = _stamp(self._index_path)
            self._mark = self._journal.read().mark
            self._lines = 0

    def clear(self) -> None:
        """Remove the files."""
        self._journal.remove()
        Path(self._index_path).unlink(missing_ok=True)
        self.refresh()

    def _read_on(self) -> None:
        stamp = _stamp(self._index_path)
        # The journal first: one that is older than the index does no harm, one that is newer would lack lines.
        found = self._journal.read(self._mark if stamp == self._stamp else None)
        if found.appended:
            self.table.apply(found.lines)
            self._lines += len(found.lines)
        else:
            self._stamp, records = _read(self._index_path)
            self.table, self._lines = _joined(records, found.lines), len(found.lines)
        self._mark = found.mark


def _joined(content: bytes, lines: Iterable[str]) -> Table:
    table = Table(parse_index(content))
    table.apply(lines)
    return table


def _stamp(path: str) -> _Stamp | None:
    try:
        now = os.stat(path)
    except OSError:
        return None
    return now.st_ino, now.st_size, now.st_mtime_ns


def _read(path: str) -> tuple[_Stamp | None, bytes]:
    try:
        with open(path, "rb", buffering=0) as file:
            now = os.fstat(file.fileno())
            return (now.st_ino, now.st_size, now.st_mtime_ns), file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None, b""
