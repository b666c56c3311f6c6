"""`_links`: the digests whose bytes came through a repository, or that its upstream answered a HEAD for with 200.

One per line, with the size in bytes behind it where it is known.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock

from mirror.oci.digest import Digest
from mirror.oci.errors import DigestInvalid
from mirror.store.lines import LineFile, Mark


class Links:
    """The `_links` file of one repository. Any thread may read; writers hold the repository's lock."""

    def __init__(self, path: Path | str) -> None:
        self._file = LineFile(path, "digests that came through this repository")
        self._mark: Mark | None = None
        self._mutex = Lock()
        self.sizes: dict[Digest, int | None] = {}

    def unchanged(self) -> bool:
        """Whether `sizes` is what the file says; one stat."""
        return self._file.unchanged(self._mark)

    def pending_bytes(self) -> int:
        return self._file.pending_bytes(self._mark)

    def refresh(self) -> None:
        """Read what others wrote."""
        with self._mutex:
            if self.unchanged():
                return
            found = self._file.read(self._mark)
            # Another file: a new dict, filled before it is seen.
            sizes = self.sizes if found.appended else {}
            for line in found.lines:
                _take(sizes, line)
            self.sizes = sizes
            self._mark = found.mark

    def copy(self) -> dict[Digest, int | None]:
        with self._mutex:
            return dict(self.sizes)

    def add(self, entries: Mapping[Digest, int | None]) -> None:
        """Append what is not there yet; the caller holds the lock and has refreshed. Raises OSError."""
        new = {
            digest: size
            for digest, size in entries.items()
            if digest not in self.sizes or (size is not None and self.sizes[digest] != size)
        }
        if new:
            self._file.append(_line(digest, size) for digest, size in new.items())
            self.refresh()

    def remove(self, digests: Iterable[Digest]) -> dict[Digest, int | None]:
        """Write the file anew without `digests`; what was removed. The caller holds the lock and has refreshed."""
        gone = {digest: self.sizes[digest] for digest in digests if digest in self.sizes}
        if gone:
            self._file.replace(_line(digest, size) for digest, size in self.sizes.items() if digest not in gone)
            self.refresh()
        return gone

    def clear(self) -> None:
        """Remove the file; the caller holds the lock."""
        self._file.remove()
        self.refresh()


def _line(digest: Digest, size: int | None) -> str:
    return digest if size is None else f"{digest} {size}"


def _take(sizes: dict[Digest, int | None], line: str) -> None:
    text, _, size = line.partition(" ")
    try:
        digest = Digest.parse(text)
    except DigestInvalid:
        return
    sizes[digest] = int(size) if size.isdecimal() and size.isascii() and len(size) < 20 else sizes.get(digest)
