"""What is done to blobs and parts outside of fills. Every function may wait for the disk."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.parts import ARRIVING_MODE, Files, Part, Role


def write_blob(files: Files, digest: Digest, content: bytes) -> None:
    """Store verified content, whole or not at all. Raises OSError."""
    fresh = files.parts / f"put-{digest.fallback_tag}-{os.getpid()}-{os.urandom(4).hex()}"
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, ARRIVING_MODE)
    part = Part(files, digest, fd, Role.LEADING)
    try:
        part.try_lock()  # tells the cleaning of another process that starts now that somebody is at it
        part.write(content)
        part.mark_verified()
        files.publish(fresh, fd, digest)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        part.close()


def remove_blob(files: Files, digest: Digest) -> bool:
    """Remove a blob unless some process reads it; whether it is gone."""
    try:
        fd = os.open(files.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    part = Part(files, digest, fd, Role.PUBLISHED)
    try:
        if not part.try_lock():
            return False
        # Replaced by another process meanwhile: then that one is new, and not meant.
        if part.is_published():
            files.blob(digest).unlink(missing_ok=True)
        return True
    finally:
        part.close()


def iterate_blobs(files: Files) -> Iterator[tuple[Digest, int]]:
    """Every blob with its size in bytes; what vanishes meanwhile is passed over."""
    for path in files.blobs.glob("*/*/*"):
        digest = Digest.parse_tag(f"{path.parent.parent.name}-{path.name}")
        with contextlib.suppress(FileNotFoundError):
            if digest is not None and path.is_file():
                yield digest, path.stat().st_size


def clean_parts(files: Files, now_seconds: float, max_age_seconds: float) -> list[str]:
    """Remove parts that are too old, longer than their blob, or of no digest; the names removed.

    What a living process has locked stays.
    """
    removed: list[str] = []
    for path in sorted(files.parts.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and _remove_litter(files, path, now_seconds - max_age_seconds):
                removed.append(path.name)
    return removed


def _remove_litter(files: Files, path: Path, oldest_seconds: float) -> bool:
    name, _, kind = path.name.partition(".")
    digest = Digest.parse_tag(name)
    if digest is not None and kind:
        # A sidecar goes with its part, a half-written one always.
        if kind == "json" and files.part(digest).exists():
            return False
        path.unlink()
        return True
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    part = Part(files, digest or Digest.of(b""), fd, Role.LEADING)
    try:
        if not part.try_lock():
            return False
        size = part.known().size if digest else -1
        if path.stat().st_mtime >= oldest_seconds and (size is None or part.size() <= size):
            return False
        # Under the lock: whoever claims it at this moment then sees that it is gone.
        path.unlink()
        if digest is not None:
            part.forget()
        return True
    finally:
        part.close()
