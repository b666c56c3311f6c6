"""Text files that grow by whole lines and that several processes read while one writes.

A torn last line (a crash, a full disk) is no line: readers leave it out, the next writer cuts it off. The first
line is a comment that no other file has: together with inode, size and time it tells a reader exactly whether what
it has read is still the beginning of the file, so that only what was appended is read.
"""

import errno
import io
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HEAD_BYTES = 80
_TAIL_BYTES = 100
_MAX_TORN_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a file was read: the file as it was then, and the offset behind its last whole line.

    `head` is its first line, `tail` the end of what was read.
    """

    inode: int
    size: int
    modified_ns: int
    head: bytes
    tail: bytes
    consumed: int

    def may_begin(self, now: os.stat_result, head: bytes) -> bool:
        """Whether what was read may still be the beginning of a file with this status and beginning."""
        same = now.st_ino == self.inode and now.st_size >= self.size
        return same and bool(self.head) and head.startswith(self.head)


@dataclass(frozen=True, slots=True)
class Lines:
    """`lines` are new since the mark where `appended`, else everything that the file has. Comments are left out."""

    lines: list[str]
    mark: Mark | None
    appended: bool


class LineFile:
    """One such file. Writers hold a lock of the caller's; readers need none."""

    def __init__(self, path: Path | str, title: str) -> None:
        self.path = str(path)
        self._title = title

    def unchanged(self, mark: Mark | None) -> bool:
        """Whether the file is as it was read up to `mark` (None: it was not there). One stat, about 2 µs."""
        try:
            now = os.stat(self.path)
        except OSError:
            return mark is None
        return (
            mark is not None
            and now.st_size == mark.size
            and now.st_mtime_ns == mark.modified_ns
            and now.st_ino == mark.inode
        )

    def pending_bytes(self, mark: Mark | None) -> int:
        """About how many bytes a `read(mark)` would have to go through."""
        try:
            now = os.stat(self.path)
        except OSError:
            return 0
        same = mark is not None and now.st_ino == mark.inode and now.st_size >= mark.size
        return now.st_size - (mark.consumed if mark is not None and same else 0)

    def read(self, mark: Mark | None = None) -> Lines:
        """What was appended since `mark`, or everything where that cannot be told. A missing file has no lines.

        Raises OSError where a file that is there cannot be read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return Lines([], None, appended=False)
        with io.FileIO(descriptor) as file:
            now = os.fstat(descriptor)
            head = os.pread(descriptor, _HEAD_BYTES, 0)
            known = mark if mark is not None and mark.may_begin(now, head) else None
            content = _read_from(file, known)
            if known is not None and not content.startswith(known.tail):
                # Cut short in place and grown again: not by us, but read right all the same.
                known, content = None, _read_from(file, None)
        skipped, offset = (len(known.tail), known.consumed - len(known.tail)) if known else (0, 0)
        whole = content.rfind(b"\n") + 1
        lines = content[skipped:whole].decode("utf-8", "surrogateescape").split("\n")
        found = [line for line in lines if line and not line.startswith("#")]
        # A head that may still grow proves nothing later on.
        head = head[: head.find(b"\n") + 1]
        tail = content[max(0, whole - _TAIL_BYTES) : whole]
        new_mark = Mark(now.st_ino, now.st_size, now.st_mtime_ns, head, tail, offset + whole)
        return Lines(found, new_mark, known is not None)

    def append(self, lines: Iterable[str]) -> None:
        """Add whole lines with one write; the caller holds the lock. Raises OSError, also where the disk is full."""
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if not size:
                content = self._head() + content
            elif os.pread(descriptor, 1, size - 1) != b"\n":
                content = _cut_torn_line(descriptor, size) + content
            _write(descriptor, content, self.path)
            _stamp(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, lines: Iterable[str]) -> None:
        """Make `lines` the whole content, by rename; the caller holds the lock. Raises OSError."""
        content = self._head() + "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        replace_file(self.path, content)

    def prepare_empty(self) -> str:
        """The path of a file without lines, to be renamed to `path`; the caller holds the lock. Raises OSError."""
        return prepare_file(self.path, self._head(), sync=False)

    def remove(self) -> None:
        """Remove the file; the caller holds the lock."""
        Path(self.path).unlink(missing_ok=True)

    def _head(self) -> bytes:
        return f"# {self._title} {time.time_ns():x}-{secrets.token_hex(4)}\n".encode()


def replace_file(path: str, content: bytes) -> None:
    """Publish `content` as `path`, whole or not at all, also after a crash. The caller holds the lock."""
    os.replace(prepare_file(path, content), path)


def prepare_file(path: str, content: bytes, *, sync: bool = True) -> str:
    """Write `content` beside `path`; what is left is to rename the answer to `path`. The caller holds the lock."""
    part = f"{path}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _write(descriptor, content, part)
        _stamp(descriptor)
        if sync:
            # Sync before renaming: after a crash, a full name must mean a full file.
            os.fsync(descriptor)
    except OSError:
        # Where the disk is full, half a file is the last thing it needs.
        Path(part).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return part


def _read_from(file: io.FileIO, mark: Mark | None) -> bytes:
    file.seek(mark.consumed - len(mark.tail) if mark else 0)
    return file.read()


def _cut_torn_line(descriptor: int, size: int) -> bytes:
    """Cut the file back to its last whole line; what is to be written first where there is none near the end."""
    start = max(0, size - _MAX_TORN_BYTES)
    last = os.pread(descriptor, size - start, start).rfind(b"\n")
    if last < 0 and start > 0:
        return b"\n"
    os.ftruncate(descriptor, start + last + 1)
    return b""


def _write(descriptor: int, content: bytes, path: str) -> None:
    written = os.write(descriptor, content)
    while written < len(content):
        more = os.write(descriptor, content[written:])
        if not more:
            raise OSError(errno.ENOSPC, "written in part", path)
        written += more


def _stamp(descriptor: int) -> None:
    # The kernel's clock for files ticks every 4 ms, and inodes are used again: two files of one tick look alike.
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))
