"""Names that local content once had, kept in a plain file: plain requests must never mean a stranger's instead."""

import contextlib
from collections.abc import Sequence
from pathlib import Path


class RememberedNames:
    """A set of canonical names, one a line, appended as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: set[str] = set()
        self.refresh()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def add(self, names: Sequence[str]) -> None:
        """Remember these names."""
        new = [name for name in names if name not in self._names]
        if not new:
            return
        self._names.update(new)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{name}\n" for name in new))

    def forget(self, name: str) -> bool:
        """Forget one name; False where it was not there."""
        if name not in self._names:
            return False
        self._names.discard(name)
        self._path.write_text("".join(f"{name}\n" for name in sorted(self._names)), encoding="utf-8")
        return True

    def refresh(self) -> None:
        """Read the file again."""
        with contextlib.suppress(FileNotFoundError):
            self._names = set(self._path.read_text(encoding="utf-8").split("\n")) - {""}
