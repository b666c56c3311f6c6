"""Reading files that other people put there: never a hang, never a device, never out of the root."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Unreadable(Exception):
    """A file that is not read, and why; the text names the path."""


@contextmanager
def open_regular(path: str, root: str | None = None, *, follow: bool = True) -> Iterator[tuple[int, os.stat_result]]:
    """A read-only descriptor of the regular file at `path`, and its status.

    With `root` (a real path), links that lead out of it are refused. Where it is known that the path has no links,
    `follow=False` is the cheaper way to the same: a link put there since is refused. Raises Unreadable, also for
    FIFOs and devices, which are opened without waiting and let go at once; FileNotFoundError where there is
    nothing; OSError where this process may open no more.
    """
    fd, status = _opened(path, root, follow=follow)
    try:
        yield fd, status
    finally:
        os.close(fd)


def _opened(path: str, root: str | None, *, follow: bool) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(path, _OPEN_FLAGS | (0 if follow else os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        if root is not None and os.path.lexists(path) and not is_inside(os.path.realpath(path), root):
            raise Unreadable(f"{path}: leads out of {root}") from None
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise_if_exhausted(error)
        raise Unreadable(f"{path}: {error.strerror}") from None
    try:
        if root is not None and not is_inside(_path_of(fd, path), root):
            raise Unreadable(f"{path}: leads out of {root}")
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"{path}: not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def _path_of(fd: int, path: str) -> str:
    """The real path of what was opened, as the kernel tells it: a tenth of the cost of looking up its folders."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return os.path.realpath(path)  # no /proc here


def raise_if_exhausted(error: OSError) -> None:
    """Raise `error` again where it says nothing of the file: no descriptors or no memory are left."""
    if error.errno in _EXHAUSTED:
        raise error


def read_regular(path: str, max_bytes: int, root: str | None = None, *, follow: bool = True) -> bytes:
    """All bytes of the regular file at `path`. Raises Unreadable beyond `max_bytes`, or as `open_regular`."""
    fd, status = _opened(path, root, follow=follow)
    try:
        if status.st_size > max_bytes:
            raise Unreadable(f"{path}: {status.st_size} bytes, at most {max_bytes} are read")
        return read_exactly(fd, 0, status.st_size)
    finally:
        os.close(fd)


def read_exactly(fd: int, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`, or fewer where the file ends before."""
    pieces = []
    while size > 0:
        piece = os.pread(fd, size, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def is_inside(path: str, root: str) -> bool:
    """Whether the real path `path` is `root` or lies below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")
