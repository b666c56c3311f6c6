"""The cache as a whole: blobs, names and their index in one folder, kept below their size."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.eviction import Evictor
from mirror.store.index import CacheIndex
from mirror.store.job import Limits
from mirror.store.names import NameStore

log = logging.getLogger(__name__)

# Evictions begin this long after a blob came, so that a pull of many layers asks once.
EVICT_AFTER_SECONDS = 0.2


class Cache:
    """Everything that is kept of upstreams, below `path`. Enter it to use it."""

    def __init__(self, path: Path, max_bytes: int | None, pins: Sequence[str] = ()) -> None:
        self.index = CacheIndex(path / "index.db")
        self.names = NameStore(path / "names", self.index)
        # A blob that the whole cache cannot hold is not worth emptying it for.
        self.blobs = BlobStore(path, Limits(max_blob_bytes=max_bytes), self._stored)
        self.evictor = Evictor(self.blobs.pool, self.names, self.index, max_bytes, pins)
        self.evicted_bytes = 0
        self.evicted_tags = 0
        self._evicting: asyncio.Task[None] | None = None
        self._scanning: asyncio.Task[None] | None = None

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """For commands that look at the files and fill nothing."""
        try:
            yield self
        finally:
            self._close()

    async def __aenter__(self) -> Self:
        await self.blobs.clean_parts()
        self._scanning = asyncio.create_task(self._scan(), name="scan of the cache")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Fills stop at once, their parts stay."""
        await self.blobs.stop()
        tasks = [task for task in (self._scanning, self._evicting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        try:
            self.names.fold()
        except OSError as error:
            log.warning("names of the cache were not folded: %s", error)
        self.index.close()

    def _stored(self, digest: Digest, size: int) -> None:
        self.index.blob_added(digest, size)
        if self._evicting is None or self._evicting.done():
            self._evicting = asyncio.create_task(self._evict(), name="eviction")

    async def _scan(self) -> None:
        await asyncio.to_thread(self.evictor.scan)
        await self._evict()

    async def _evict(self) -> None:
        await asyncio.sleep(EVICT_AFTER_SECONDS)
        try:
            evicted = await asyncio.to_thread(self.evictor.evict)
        except OSError as error:
            log.warning("eviction failed: %s", error)
            return
        self.evicted_bytes += evicted.bytes
        self.evicted_tags += evicted.tags
