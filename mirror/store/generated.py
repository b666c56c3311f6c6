"""Manifests that this program made: kept by digest, so that whoever was told of one finds it, in any process."""

import contextlib
import logging
import os
import threading
from pathlib import Path

from cachetools import LRUCache

from mirror.oci.digest import Digest
from mirror.store.files import Unreadable, read_regular

log = logging.getLogger(__name__)

MAX_BYTES = 4 * 1024 * 1024
MEMORY_BYTES = 8 * 1024 * 1024
# Each is some hundred bytes; beyond this many the oldest quarter goes: they can be made again.
MAX_FILES = 40_000


class GeneratedManifests:
    """Files `<folder>/<hex>` of small content with their digest. Blocks; may be used from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._memory: LRUCache[Digest, bytes] = LRUCache(MEMORY_BYTES, getsizeof=len)
        self._count: int | None = None

    def get(self, digest: Digest) -> bytes | None:
        """What was put under this digest."""
        with self._lock:
            found = self._memory.get(digest)
        if found is not None:
            return found
        with contextlib.suppress(FileNotFoundError, Unreadable, OSError):
            content = read_regular(str(self._path(digest)), MAX_BYTES)
            if digest.matches(content):
                self._remember(digest, content)
                return content
        return None

    def put(self, content: bytes) -> Digest:
        """Keep this content. Where the disk cannot, it is kept in memory, with a log line."""
        digest = Digest.of(content)
        if self.get(digest) is not None:
            return digest
        self._remember(digest, content)
        try:
            self._write(digest, content)
        except OSError as error:
            log.warning("a generated manifest is kept in memory only: %s", error)
        return digest

    def _write(self, digest: Digest, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room()
        part = self._folder / f".{digest.hex}.{os.getpid()}.{threading.get_ident()}"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path(digest))

    def _make_room(self) -> None:
        with self._lock:
            if self._count is None or self._count >= MAX_FILES:
                files = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
                oldest = files[: MAX_FILES // 4] if len(files) >= MAX_FILES else []
                for file in oldest:
                    file.unlink(missing_ok=True)
                self._count = len(files) - len(oldest)
            self._count += 1

    def _remember(self, digest: Digest, content: bytes) -> None:
        with self._lock:
            if len(content) <= self._memory.maxsize:
                self._memory[digest] = content

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.hex
