"""Archive files as they lie on disk: opened without being trapped, and known again by what `stat` says."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from mirror.store.files import Unreadable, open_regular, read_exactly

BLOCK_BYTES = 512
Kind = Literal["tar", "gzip", "zstd", "xz", "bzip2"]

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)


class ArchiveError(Exception):
    """Why an archive is not served. The text is for people; it does not name the path, which the caller knows."""


class ArchiveUnreadable(ArchiveError):
    """Not a regular file, not permitted, or the disk fails."""


class ArchiveChanging(ArchiveError):
    """It was written to while it was read, or is no longer what was read: to be tried again later."""


class ArchiveInvalid(ArchiveError):
    """Its bytes are wrong: not an archive, cut short, or out of the bounds that are set here."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells that a file is still the one that was read; `size` in bytes."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """An archive open for reading at any offset; `stamp` is from the moment of opening."""

    fd: int
    stamp: Stamp

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stamp.size

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`: fewer only where the file ends. Raises ArchiveUnreadable."""
        try:
            return read_exactly(self.fd, offset, size)
        except OSError as error:
            raise ArchiveUnreadable(f"reading failed: {error.strerror}") from None

    def chunks(self, offset: int, size: int, chunk_bytes: int = 1024 * 1024) -> Iterator[bytes]:
        """Exactly `size` bytes from `offset`, in pieces. Raises ArchiveChanging where the file ends before."""
        while size > 0:
            chunk = self.read(offset, min(chunk_bytes, size))
            if not chunk:
                raise ArchiveChanging("it was cut short while it was read")
            yield chunk
            offset, size = offset + len(chunk), size - len(chunk)

    def check_unchanged(self) -> None:
        """Raises ArchiveChanging unless size and modification time are those of the moment of opening."""
        if Stamp.of(os.fstat(self.fd)) != self.stamp:
            raise ArchiveChanging("it was changed while it was read")


@contextmanager
def open_archive(path: str | Path, stamp: Stamp | None = None) -> Iterator[ArchiveFile]:
    """The archive at `path`, open as long as the context is, and found unchanged on leaving it.

    With `stamp`, only the very file that had it. Raises ArchiveUnreadable and ArchiveChanging; an ArchiveInvalid
    raised inside becomes ArchiveChanging where the file changed meanwhile: half-written is not broken.
    """
    with ExitStack() as opened:
        try:
            fd, status = opened.enter_context(open_regular(str(path)))
        except (Unreadable, OSError, ValueError) as error:
            raise ArchiveUnreadable(str(error).removeprefix(f"{path}: ")) from None
        archive = ArchiveFile(fd, Stamp.of(status))
        if stamp is not None and stamp != archive.stamp:
            raise ArchiveChanging("it is no longer the file that was read")
        try:
            yield archive
        except ArchiveInvalid:
            archive.check_unchanged()
            raise
        archive.check_unchanged()


def sniff(start: bytes) -> Kind | None:
    """What a file is by its first 512 bytes, whatever its name says; None: no archive."""
    block = start[:BLOCK_BYTES]
    # Before the magic numbers: a tar begins with a name, which may read as one of them.
    if len(block) == BLOCK_BYTES and (not any(block) or has_right_checksum(block)):
        return "tar"
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    # Zstandard's skippable frames, 0x184D2A5?, which pzstd begins with (RFC 8878, 3.1.2).
    return "zstd" if start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5 else None


def has_right_checksum(block: bytes) -> bool:
    """Whether a block's checksum field is the sum of its bytes (POSIX.1-2017, pax, "ustar Interchange Format")."""
    field = block[148:156].rstrip(b"\0 ").lstrip(b" ")
    if not field or len(field) > 8 or not all(0x30 <= byte <= 0x37 for byte in field):
        return False
    return int(field, 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])
