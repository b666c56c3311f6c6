"""The whole blobs on this disk, outside of fills: sizes, small content, removal, and what dead processes left.

Every method may wait for the disk: for threads.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.parts import ARRIVING_MODE, Files, Part, Role

# A part that nobody went on with for this long will not be gone on with.
PART_MAX_AGE_SECONDS = 7 * 24 * 3600.0


class BlobPool:
    """What eviction and manifests need of the blobs. The locks are explained in `parts.py`."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def size(self, digest: Digest) -> int | None:
        """Size in bytes of a whole blob, None where it is not there; opens nothing."""
        try:
            return self._files.blob(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, digest: Digest) -> bytes:
        """The content of a small blob. Raises OSError where it is gone."""
        return self._files.blob(digest).read_bytes()

    def write(self, digest: Digest, content: bytes) -> None:
        """Store content that was checked, whole or not at all. Raises OSError."""
        if self.size(digest) is not None:
            return
        fresh = self._files.parts / f"put-{digest.fallback_tag}-{os.getpid()}-{os.urandom(4).hex()}"
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, ARRIVING_MODE)
        part = Part(self._files, digest, fd, Role.LEADING)
        try:
            part.try_lock()  # another process that cleans at this moment has to see that somebody is at it
            part.write(content)
            part.mark_verified()
            self._files.publish(fresh, fd, digest)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        finally:
            part.close()

    def remove(self, digest: Digest) -> bool:
        """Remove a blob unless it is in use, in one step; whether it is gone."""
        path = self._files.blob(digest)
        try:
            with self._alone(path, digest) as blob:
                if blob is None:
                    return not path.exists()
                path.unlink()
        except FileNotFoundError:
            pass
        return True

    def in_use(self, digest: Digest) -> bool:
        """Whether somebody, in any process, reads or fills the blob."""
        return _is_locked(self._files.blob(digest), fcntl.LOCK_EX) or _is_locked(
            self._files.part(digest), fcntl.LOCK_SH
        )

    def iterate(self) -> Iterator[tuple[Digest, int]]:
        """All whole blobs with their sizes in bytes; what vanishes meanwhile is passed over."""
        for path in self._files.blobs.glob("*/*/*"):
            digest = Digest.parse_tag(f"{path.parent.parent.name}-{path.name}")
            with contextlib.suppress(FileNotFoundError):
                if digest is not None and path.is_file():
                    yield digest, path.stat().st_size

    def parts_bytes(self) -> int:
        """What parts take: the bytes in flight of all processes, and what waits to be gone on with."""
        total = 0
        for path in self._files.parts.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def shed_parts(self, max_bytes: int) -> int:
        """Remove those parts that nobody fills which rest longest, until the others are at most `max_bytes`; how many
        bytes these are.
        """
        resting: list[tuple[float, int, Digest]] = []
        for path in self._files.parts.iterdir():
            digest = Digest.parse_tag(path.name)
            if digest is not None and not _is_locked(path, fcntl.LOCK_EX):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    resting.append((status.st_mtime, status.st_size, digest))
        left = sum(size for _, size, _ in resting)
        for _, size, digest in sorted(resting):
            if left <= max_bytes:
                break
            if self._remove_part(digest):
                left -= size
        return left

    def _remove_part(self, digest: Digest) -> bool:
        """False where somebody is at it now."""
        path = self._files.part(digest)
        try:
            with self._alone(path, digest) as part:
                if part is None:
                    return not path.exists()
                path.unlink()
                part.forget()
        except FileNotFoundError:
            pass
        return True

    @contextlib.contextmanager
    def _alone(self, path: Path, digest: Digest) -> Iterator[Part | None]:
        """The file of this name, locked; None where somebody is at it, or another file has the name by now.

        Whoever claims it at this moment sees afterwards whether it is still there. Raises FileNotFoundError.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        part = Part(self._files, digest, fd, Role.LEADING)
        try:
            yield part if part.try_lock() and part.is_at(path) else None
        finally:
            part.close()

    def clean_parts(self, max_age_seconds: float = PART_MAX_AGE_SECONDS) -> list[str]:
        """Remove parts that are too old, empty, longer than their blob, or of no digest; the names removed.

        What a living process has locked stays.
        """
        oldest_seconds = time.time() - max_age_seconds
        removed: list[str] = []
        for path in sorted(self._files.parts.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and self._remove_litter(path, oldest_seconds):
                    removed.append(path.name)
        return removed

    def _remove_litter(self, path: Path, oldest_seconds: float) -> bool:
        name, _, kind = path.name.partition(".")
        digest = Digest.parse_tag(name)
        if digest is not None and kind:
            # A sidecar goes with its part, a half-written one always.
            if kind == "json" and self._files.part(digest).exists():
                return False
            path.unlink()
            return True
        with self._alone(path, digest or Digest.of(b"")) as part:
            if part is None:
                return False
            size = part.known().size if digest else -1
            fresh = path.stat().st_mtime >= oldest_seconds and part.size() > 0
            if fresh and (size is None or part.size() <= size):
                return False
            path.unlink()
            if digest is not None:
                part.forget()
            return True


def _is_locked(path: Path, against: int) -> bool:
    """Whether somebody holds a lock that `against`, which is held for a moment only, does not go with."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, against | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
