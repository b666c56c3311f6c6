"""Locks between processes: `flock` on a file of its own. Two threads of one process exclude each other as well."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Each attempt is lost only to another process that removes the folder at this very moment.
_ATTEMPTS = 100


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the lock file `path`; waits for it. The file and its folders are made when missing; raises OSError."""
    descriptor = _acquire(str(path), wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def try_locked(path: Path | str) -> Iterator[bool]:
    """Yields True while holding the lock file `path`, False at once where somebody else holds it."""
    descriptor = _acquire(str(path), wait=False)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(path: str, *, wait: bool) -> int | None:
    for _ in range(_ATTEMPTS):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever held it removed the file, and its folder, while we waited: that lock guards nothing any more.
        os.close(descriptor)
    raise OSError(errno.EAGAIN, "the folder keeps vanishing", path)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
