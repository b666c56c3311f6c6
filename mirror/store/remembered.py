"""Names once seen in local content: requests that name no host must not be answered by a stranger's upstream, also
while the content is away. Kept until somebody forgets them.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from mirror.store.lines import LineFile, Mark
from mirror.store.lock import locked

log = logging.getLogger(__name__)


class RememberedNames:
    """A set of canonical names in a plain file, one per line, shared by all processes.

    Where the file cannot be written, it works in memory and says so once. Where the file is gone, what is in memory
    stays: only `forget` forgets. `in` is answered from memory; `refresh` reads what others wrote, with one stat where
    nothing changed.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path, "names once seen in local content; `mirror forget NAME` removes one")
        self._lock_path = path.with_name(path.name + ".lock")
        self._mutex = Lock()
        self._mark: Mark | None = None
        self._written: set[str] = set()
        self._unwritten: set[str] = set()
        self._complained = False
        self.refresh()

    def __contains__(self, name: str) -> bool:
        return name in self._written or name in self._unwritten

    def __len__(self) -> int:
        return len(self.names())

    def names(self) -> frozenset[str]:
        with self._mutex:
            return frozenset(self._written | self._unwritten)

    def refresh(self) -> bool:
        """Read what others added and forgot; whether there was anything."""
        with self._mutex:
            return self._refresh()

    def add(self, names: Iterable[str]) -> None:
        """Remember names. For a thread: waits for the disk. Raises ValueError for what is no name."""
        wanted = set(names)
        for name in wanted:
            if not name or name.startswith("#") or "\n" in name:
                raise ValueError(f"{name!r} is no name")
        with self._mutex:
            new = wanted - self._written
            if not new:
                return
            self._unwritten |= new
            try:
                with locked(self._lock_path):
                    self._refresh()
                    # What could not be written before, or went with the file, is written now.
                    self._file.append(sorted(self._unwritten - self._on_disk()))
                    self._refresh()
                    self._unwritten.clear()
            except OSError as error:
                self._complain(error)

    def forget(self, name: str) -> bool:
        """Forget a name; False where it was not known. For a thread: waits for the disk."""
        with self._mutex:
            known = name in self._unwritten
            self._unwritten.discard(name)
            try:
                with locked(self._lock_path):
                    self._refresh()
                    if name in self._written:
                        self._file.replace(sorted(self._written - {name}))
                        known = True
                        self._refresh()
            except OSError as error:
                known = known or name in self._written
                self._written.discard(name)
                self._complain(error)
            return known

    def _on_disk(self) -> set[str]:
        return self._written if self._mark is not None else set()

    def _refresh(self) -> bool:
        if self._file.unchanged(self._mark):
            return False
        try:
            found = self._file.read(self._mark)
        except OSError as error:
            self._complain(error)
            return False
        if found.mark is None:
            self._unwritten |= self._written
            self._written = set()
        elif found.appended:
            self._written |= set(found.lines)
        else:
            self._written = set(found.lines)
        self._mark = found.mark
        return True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning("names seen in local content are remembered only until this process ends: %s", error)
