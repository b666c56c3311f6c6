"""The cache as a whole: blobs, names and their index in one folder, kept below their size."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.eviction import Evicted, Evictor
from mirror.store.index import CacheIndex
from mirror.store.job import Limits
from mirror.store.names import NameStore

log = logging.getLogger(__name__)

# What part of the cache's size the parts may take that wait for somebody to go on with them.
PARTS_SHARE = 0.5
# Where an eviction was not enough, the next one follows after this; where all that could go is in use or pinned,
# after pauses that grow.
EVICT_PAUSE_SECONDS = 0.2
MAX_EVICT_PAUSE_SECONDS = 30.0


class Cache:
    """Everything that is kept of upstreams, below `path`. Enter it to use it."""

    def __init__(self, path: Path, max_bytes: int | None, pins: Sequence[str] = ()) -> None:
        self._grown = asyncio.Event()
        # First of all, for it makes the folder or says why not.
        # A blob that the whole cache cannot hold is not worth emptying it for.
        self.blobs = BlobStore(path, Limits(max_blob_bytes=max_bytes), self._stored, self._grown.set)
        self.index = CacheIndex(path / "index.db")
        self.names = NameStore(path / "names", self.index)
        self.evictor = Evictor(self.blobs.pool, self.names, self.index, max_bytes, pins)
        self.evicted_bytes = 0
        self.evicted_tags = 0
        self._evicting: asyncio.Task[None] | None = None
        self._max_bytes = max_bytes

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """For commands that look at the files and fill nothing."""
        try:
            yield self
        finally:
            self._close()

    async def __aenter__(self) -> Self:
        await self.blobs.clean_parts()
        self._evicting = asyncio.create_task(self._keep_below(), name="eviction")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Fills stop at once, their parts stay."""
        await self.blobs.stop()
        if self._evicting is not None:
            self._evicting.cancel()
            await asyncio.gather(self._evicting, return_exceptions=True)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        try:
            self.names.fold()
        except OSError as error:
            log.warning("names of the cache were not folded: %s", error)
        self.index.close()

    def _stored(self, digest: Digest, size: int) -> None:
        self.index.blob_added(digest, size)
        self._grown.set()

    def _shed_parts(self) -> int:
        """Parts of fills that broke off count too; how many bytes they are. For a thread."""
        if self._max_bytes is None:
            return 0
        return self.blobs.pool.shed_parts(int(self._max_bytes * PARTS_SHARE))

    async def _keep_below(self) -> None:
        """Evict whenever something came; and go on where an eviction was not enough, or could not be."""
        await asyncio.to_thread(self.evictor.scan)
        self._grown.set()
        pause: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._grown.wait()
            # Before the eviction, which begins at once: what comes while it runs is the next one's.
            self._grown.clear()
            try:
                resting_bytes = await asyncio.to_thread(self._shed_parts)
                evicted = await asyncio.to_thread(self.evictor.evict, resting_bytes)
                over = await asyncio.to_thread(self.evictor.over, resting_bytes)
            except OSError as error:
                log.warning("eviction failed: %s", error)
                evicted, over = Evicted(), True
            self.evicted_bytes += evicted.bytes
            self.evicted_tags += evicted.tags
            if not over:
                pause = None
            elif evicted.blobs:
                pause = EVICT_PAUSE_SECONDS
            else:
                pause = min(2 * (pause or EVICT_PAUSE_SECONDS), MAX_EVICT_PAUSE_SECONDS)
