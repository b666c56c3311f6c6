"""Compressed archives, unpacked once into the cache: `<cache>/unpacked/<sha256 of the compressed bytes>.tar`.

Members can then be served by offset. Archives of one content share one tar; what is there under its name is whole.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.archive_file import (
    BLOCK_BYTES,
    ArchiveChanging,
    ArchiveError,
    ArchiveFile,
    ArchiveInvalid,
    Kind,
    Stamp,
    open_archive,
    sniff,
)
from mirror.store.decompress import MemberReader, decompressed
from mirror.store.lock import locked

MIB = 1024 * 1024
# Left free on the cache's disk, for everybody else's files.
RESERVE_BYTES = 256 * MIB
_PART_PREFIX = ".part-"
_CHECK_SPACE_EVERY_BYTES = 16 * MIB


class UnpackFailed(ArchiveError):
    """The cache's disk is full, or fails: nothing is wrong with the archive, which is to be tried again later."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`key` is the digest of the compressed bytes; the tar of them is at `path`. `stamp` is the archive's own."""

    key: Digest
    path: str
    stamp: Stamp


def archive_kind(path: str) -> Kind | None:
    """What the file at `path` is, by its first bytes; None: no archive. Raises ArchiveUnreadable, ArchiveChanging."""
    with open_archive(path) as archive:
        return sniff(archive.read(0, BLOCK_BYTES))


def unpack(path: str, into: str, max_bytes: int, reserve_bytes: int = RESERVE_BYTES) -> Unpacked:
    """Unpack the gzip or Zstandard file at `path` into the folder `into`, unless its content is there already.

    Blocks for as long as reading and writing all of it takes: for a thread or process of its own. At most
    `max_bytes` are written, and not the disk's last `reserve_bytes`; of a failure nothing remains. Raises
    ArchiveInvalid (also for what unpacks to more), ArchiveChanging, ArchiveUnreadable, UnpackFailed.
    """
    with open_archive(path) as archive:
        kind = sniff(archive.read(0, BLOCK_BYTES))
        if kind is None or kind == "tar":
            raise ArchiveInvalid("not a compressed archive")
        key = _sha256(archive)
        target = unpacked_path(into, key)
        with _one_at_a_time(into):
            if not os.path.exists(target):
                with _writing(into, target) as fd:
                    reader = MemberReader(archive, 0, archive.size)
                    _write(fd, _only_tar(decompressed(kind, reader, max_bytes)), into, reserve_bytes)
                    # What was unpacked must be what was hashed; a file system's clock may be too coarse to tell.
                    if _sha256(archive) != key:
                        raise ArchiveChanging("it was changed while it was unpacked")
                    archive.check_unchanged()
        return Unpacked(key, target, archive.stamp)


def unpacked_path(into: str, key: Digest) -> str:
    """Where the tar of the compressed content `key` is, once it was unpacked."""
    return f"{into}/{key.hex}.tar"


def drop_unpacked(into: str, keep: Collection[Digest], min_age_seconds: float = 60) -> list[str]:
    """Remove the tars that no archive needs any more, and what crashes left; the paths removed.

    Younger ones than `min_age_seconds` stay: another process may have made them for an archive not seen here yet.
    A tar that is being read remains readable for whoever has it open.
    """
    kept = {f"{key.hex}.tar" for key in keep}
    removed = []
    try:
        entries = os.scandir(into)
    except FileNotFoundError:
        return []
    with entries:
        for entry in entries:
            ours = entry.name.endswith(".tar") or entry.name.startswith(_PART_PREFIX)
            if not ours or entry.name in kept or not entry.is_file(follow_symlinks=False):
                continue
            # Another process may clear up as well.
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_ctime >= min_age_seconds and not _is_being_written(entry):
                    Path(entry.path).unlink()
                    removed.append(entry.path)
    return removed


@contextmanager
def _one_at_a_time(into: str) -> Iterator[None]:
    """Processes that serve the same folders come by the same archives: one unpacks, the others find it done."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(f"{into}.lock"))
        except OSError as error:
            raise UnpackFailed(f"{into}.lock: {error.strerror}") from None
        yield


@contextmanager
def _writing(into: str, target: str) -> Iterator[int]:
    """A file that becomes `target` when the context is left without an error, and nothing otherwise."""
    try:
        Path(into).mkdir(parents=True, exist_ok=True)
        fd, part = tempfile.mkstemp(prefix=_PART_PREFIX, dir=into)
    except OSError as error:
        raise UnpackFailed(f"{into}: {error.strerror}") from None
    try:
        # Whoever clears up after crashes sees by the lock that this one is alive.
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
        # Sync before renaming: after a crash, a full name must mean a full file.
        os.fsync(fd)
        Path(part).rename(target)
        _sync_folder(into)
    except OSError as error:
        Path(part).unlink(missing_ok=True)
        raise UnpackFailed(f"{into}: {error.strerror}") from None
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _only_tar(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A compressed log is not unpacked to its end to find out that it is no archive."""
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= BLOCK_BYTES:
            break
    if sniff(start[:BLOCK_BYTES]) != "tar":
        raise ArchiveInvalid("not a tar archive inside")
    yield start
    yield from chunks


def _write(fd: int, chunks: Iterator[bytes], into: str, reserve_bytes: int) -> None:
    unchecked = _CHECK_SPACE_EVERY_BYTES
    for chunk in chunks:
        unchecked += len(chunk)
        if unchecked >= _CHECK_SPACE_EVERY_BYTES:
            if shutil.disk_usage(into).free < reserve_bytes + unchecked:
                raise OSError(errno.ENOSPC, f"less than {reserve_bytes} bytes would stay free")
            unchecked = 0
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(fd, rest) :]


def _is_being_written(entry: os.DirEntry[str]) -> bool:
    if not entry.name.startswith(_PART_PREFIX):
        return False
    fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sha256(archive: ArchiveFile) -> Digest:
    hasher = hashlib.sha256()
    for chunk in archive.chunks(0, archive.size):
        hasher.update(chunk)
    return Digest(f"sha256:{hasher.hexdigest()}")
