"""Blob files and their parts on disk, and the locks by which processes share them.

`blobs/<alg>/<xx>/<hex>` holds whole, verified blobs only. `parts/<alg>-<hex>` grows while a blob is filled;
beside it `….json` tells its size and ETag as soon as an upstream has. Blob and part are one inode, before and
after the rename, and its `flock` says who uses it:

- exclusive: the one process that fills it. The lock goes with the process; a part that nobody has locked is
  whoever's locks it next, from the bytes held on.
- shared, on a published blob: somebody reads it. Eviction removes a blob only under an exclusive lock taken
  without waiting. (A reader of a removed file would be safe on POSIX; but a blob in use is not the least recently
  used.)

A part is mode 0600 until its hash was found right and 0644 from then on: so other processes may give out the last
byte without waiting for fsync and rename. A mode left by a process that died proves nothing (the machine may have
lost pages); hence whoever locks a part sets it back first, and a reader believes 0644 only in a part that it saw
at 0600 before, or that has its blob's name.

What may be fetched apart of a fill is dealt out in numbered steps (`apart.py`). Each is a lock on one byte far behind
the file's end, of a kind that goes with the open file (fcntl(2), "Open file description locks").
"""

import contextlib
import enum
import fcntl
import json
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.feed import Mark

ARRIVING_MODE = 0o600
VERIFIED_MODE = 0o644

# Linux only; elsewhere each process has all steps for itself.
_OFD_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
_FIRST_STEP_OFFSET = 1 << 62


@dataclass(frozen=True, slots=True)
class Known:
    """What the sidecar of a part tells: the blob's size in bytes and where its bytes came from."""

    size: int | None = None
    mark: Mark | None = None


class Role(enum.Enum):
    """What a process is to the file it opened for a fill."""

    PUBLISHED = "it is the blob"
    LEADING = "this process fills it"
    FOLLOWING = "another process fills it"
    DROPPED = "it was removed: its bytes were wrong, or the disk was full"


class Files:
    """Where things lie below the cache's folder, and what is done to them. Every method may wait for the disk."""

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs"
        self.parts = root / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        self.blobs.mkdir(parents=True, exist_ok=True)

    def blob(self, digest: Digest) -> Path:
        return self.blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def part(self, digest: Digest) -> Path:
        return self.parts / digest.fallback_tag

    def sidecar(self, digest: Digest) -> Path:
        return self.parts / f"{digest.fallback_tag}.json"

    def free_bytes(self) -> int:
        """What this process may still write on the cache's file system."""
        found = os.statvfs(self.parts)
        return found.f_bavail * found.f_frsize

    def open_blob(self, digest: Digest) -> int | None:
        """A descriptor that holds the blob's shared lock; None where it is not here."""
        try:
            fd = os.open(self.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def claim(self, digest: Digest) -> "Part":
        """Open what there is of a blob: itself, or its part (made where there is none), locked if it can be."""
        while True:
            if (blob := self.open_blob(digest)) is not None:
                return Part(self, digest, blob, Role.PUBLISHED)
            fd = os.open(self.part(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, ARRIVING_MODE)
            part = Part(self, digest, fd, Role.FOLLOWING)
            if not part.try_lock():
                return part
            part.role = part.locked_role()
            if part.role is Role.LEADING and not self.blob(digest).exists():
                os.fchmod(fd, ARRIVING_MODE)
                return part
            if part.role is Role.LEADING:
                part.drop()  # published between the two looks: this part is a new, empty one
            part.close()

    def publish(self, source: Path, fd: int, digest: Digest) -> None:
        """Give a verified file its blob's name. Raises OSError; afterwards it is there whatever happens."""
        target = self.blob(digest)
        # Sync before renaming: after a crash, a full name must mean a full file.
        os.fsync(fd)
        fresh = [folder for folder in (target.parent, target.parent.parent) if not folder.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        sync_folder(target.parent)
        for folder in fresh:
            sync_folder(folder.parent)


@dataclass(slots=True)
class Part:
    """An open part, or the blob that it became. `close` it; `role` is what this process is to it."""

    files: Files
    digest: Digest
    fd: int
    role: Role

    def size(self) -> int:
        return os.fstat(self.fd).st_size

    def is_verified(self) -> bool:
        return stat.S_IMODE(os.fstat(self.fd).st_mode) == VERIFIED_MODE

    def is_linked(self) -> bool:
        return os.fstat(self.fd).st_nlink > 0

    def is_published(self) -> bool:
        """Whether the file has its blob's name."""
        return self.is_at(self.files.blob(self.digest))

    def try_lock(self) -> bool:
        """Take the exclusive lock, if nobody holds it."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def locked_role(self) -> Role:
        """What this process is to the file, having locked it; what is not its own is unlocked again."""
        if self.is_at(self.files.part(self.digest)):
            return Role.LEADING
        fcntl.flock(self.fd, fcntl.LOCK_SH)
        return Role.PUBLISHED if self.is_published() else Role.DROPPED

    def take_over(self) -> Role:
        """As `locked_role`, for a part whose holder is gone."""
        self.role = self.locked_role()
        if self.role is Role.LEADING:
            os.fchmod(self.fd, ARRIVING_MODE)
        return self.role

    def take_step(self, number: int) -> bool:
        """Take a step of what may be fetched apart, until the part is closed; False where another process has it."""
        if _OFD_SETLK is None:
            return True
        # struct flock: type, whence, start, length, pid (which has to be 0).
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _FIRST_STEP_OFFSET + number, 1, 0)
        try:
            fcntl.fcntl(self.fd, _OFD_SETLK, lock)
        except OSError:
            return False
        return True

    def share(self) -> bool:
        """Hold the file as its readers do, if whoever filled it lets go."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def known(self) -> Known:
        """What the sidecar says; nothing where there is none, or one that cannot be read."""
        try:
            found = json.loads(self.files.sidecar(self.digest).read_bytes())
            size, etag, supplier = found["size"], found["etag"], found["supplier"]
        except (OSError, ValueError, KeyError, TypeError):
            return Known()
        if not isinstance(size, int) or size < 0:
            return Known()
        marked = isinstance(etag, str) and isinstance(supplier, str)
        return Known(size, Mark(supplier, etag) if marked else None)

    def is_answered(self) -> bool:
        """Whether there is a sidecar: an upstream answers whoever fills this part, or has answered who began it."""
        return self.files.sidecar(self.digest).exists()

    def tell(self, known: Known) -> None:
        """Write the sidecar, for other processes and for a restart."""
        etag, supplier = (known.mark.etag, known.mark.supplier) if known.mark else (None, None)
        target = self.files.sidecar(self.digest)
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):  # cleaned away by a process that just starts: no harm
            fresh.write_text(json.dumps({"size": known.size, "etag": etag, "supplier": supplier}))
            fresh.replace(target)

    def forget(self) -> None:
        self.files.sidecar(self.digest).unlink(missing_ok=True)

    def write(self, content: bytes) -> None:
        """Make `content` the whole of it. Raises OSError."""
        os.ftruncate(self.fd, 0)
        offset = 0
        while offset < len(content):
            offset += os.pwrite(self.fd, memoryview(content)[offset:], offset)

    def mark_verified(self) -> None:
        os.fchmod(self.fd, VERIFIED_MODE)

    def publish(self) -> None:
        """Make it the blob; from here on this process is one of its readers. Raises OSError."""
        self.files.publish(self.files.part(self.digest), self.fd, self.digest)
        self.role = Role.PUBLISHED
        fcntl.flock(self.fd, fcntl.LOCK_SH)
        self.forget()

    def drop(self) -> None:
        """Remove it, under its lock; readers keep what they have open."""
        if self.role is Role.LEADING:
            self.forget()
            self.files.part(self.digest).unlink(missing_ok=True)
            self.role = Role.DROPPED
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def let_go(self) -> None:
        """Leave the part to whoever wants to go on with it."""
        if self.role is Role.LEADING:
            if not self.size():
                self.drop()
                return
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            self.role = Role.FOLLOWING

    def hash_state(self, count: int) -> object:
        """The hash over the first `count` bytes."""
        hasher = self.digest.hasher()
        for offset in range(0, count, 1 << 20):
            hasher.update(os.pread(self.fd, min(1 << 20, count - offset), offset))
        return hasher

    def close(self) -> None:
        os.close(self.fd)

    def is_at(self, path: Path) -> bool:
        """Whether the file has this name."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        own = os.fstat(self.fd)
        return (found.st_ino, found.st_dev) == (own.st_ino, own.st_dev)


def sync_folder(path: Path) -> None:
    """Make a rename in it outlast a crash."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
