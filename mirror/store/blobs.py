"""Blobs on disk: whole and verified ones, and the fills that bring new ones."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, Unavailable
from mirror.store.body import FileSlice
from mirror.store.feed import Fetch, WrongContent
from mirror.store.fill import Fill
from mirror.store.job import Counters, Job, Limits
from mirror.store.parts import Files
from mirror.store.pull import Pull
from mirror.store.threads import acquire, close_later
from mirror.store.upkeep import clean_parts, iterate_blobs, remove_blob, write_blob

log = logging.getLogger(__name__)

# A part that nobody went on with for this long will not be gone on with.
PART_MAX_AGE_SECONDS = 7 * 24 * 3600.0


class BlobStore:
    """`<path>/blobs/<alg>/<xx>/<hex>`, shared by any number of processes; in each, of one event loop.

    Nothing is found there that is not whole and right. The locks are explained in `parts.py`.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.counters = Counters()
        self._files = Files(path)
        self._limits = limits or Limits()
        self._fills: dict[Digest, Fill] = {}
        self._reading: Counter[Digest] = Counter()
        self._stopping = False

    async def size(self, digest: Digest) -> int | None:
        """Size in bytes of a blob that is here; opens nothing."""
        try:
            found = await asyncio.to_thread(os.stat, self._files.blob(digest))
        except FileNotFoundError:
            return None
        return found.st_size

    @asynccontextmanager
    async def open(self, digest: Digest) -> AsyncIterator[FileSlice]:
        """A blob that is here, in use (no eviction) as long as the context is. Raises BlobUnknown."""
        fd = await acquire(partial(self._files.open_blob, digest), _close_if_open)
        if fd is None:
            raise BlobUnknown({"digest": digest})
        with self._in_use(digest):
            try:
                yield FileSlice(fd, 0, os.fstat(fd).st_size)
            finally:
                close_later(fd)

    @asynccontextmanager
    async def join(
        self, digest: Digest, size: int | None, fetch: Fetch, *, supplier: str = "", keep: bool = True
    ) -> AsyncIterator[Pull]:
        """A hold on the one fill of a blob, begun if none runs; the fill goes on when the hold is over.

        `size` in bytes, where a descriptor tells it. `supplier` names where `fetch` gets the bytes from: a fill
        that fails with one supplier goes on with the others that joined it. `keep=False`: nothing is stored, every
        reader of a blob above VERIFY_FIRST_BYTES fetches for itself. Raises Unavailable after `stop`.
        """
        if self._stopping:
            raise Unavailable("the mirror is shutting down")
        fill = self._fills.get(digest)
        collapsed = fill is not None
        if fill is None:
            fill = Fill(Job(self._files, digest, size, self._limits, self.counters), keep)
            self._fills[digest] = fill
        fill.join(supplier, fetch)
        if not collapsed:
            fill.start(self._over)
        try:
            with self._in_use(digest):
                yield Pull(fill, supplier, fetch, collapsed)
        finally:
            fill.leave()

    async def put(self, digest: Digest, content: bytes) -> None:
        """Store small content, a manifest. Raises WrongContent where it is not what the digest names, OSError."""
        if not digest.matches(content):
            raise WrongContent({"digest": digest})
        if await self.size(digest) is None:
            await asyncio.to_thread(write_blob, self._files, digest, content)

    async def remove(self, digest: Digest) -> bool:
        """Remove a blob, unless it is being read in any process; whether it is gone."""
        return await asyncio.to_thread(remove_blob, self._files, digest)

    def iterate(self) -> Iterator[tuple[Digest, int]]:
        """Every blob here with its size in bytes; to be used in a thread."""
        return iterate_blobs(self._files)

    def in_use(self, digest: Digest) -> bool:
        """Whether this process reads or fills it; `remove` knows of the other processes as well."""
        return digest in self._fills or digest in self._reading

    def busy(self) -> set[Digest]:
        """All that are in use in this process."""
        return {*self._fills, *self._reading}

    def running(self) -> int:
        """Fills running in this process, those included that follow another process's."""
        return len(self._fills)

    async def parts_bytes(self) -> int:
        """What parts take on the disk: the bytes in flight, of all processes."""
        return await asyncio.to_thread(self._files.parts_bytes)

    async def clean_parts(self) -> list[str]:
        """At start: remove parts that nobody will go on with; the names removed. Living processes' stay."""
        removed = await asyncio.to_thread(clean_parts, self._files, time.time(), PART_MAX_AGE_SECONDS)
        if removed:
            log.info("removed %d parts that were left behind", len(removed))
        return removed

    async def stop(self) -> None:
        """At shutdown: fills end at once, their parts stay, and who reads of them gets Unavailable."""
        self._stopping = True
        await asyncio.gather(*(fill.stop() for fill in list(self._fills.values())))

    def _over(self, fill: Fill) -> None:
        if self._fills.get(fill.job.digest) is fill:
            del self._fills[fill.job.digest]

    @contextmanager
    def _in_use(self, digest: Digest) -> Iterator[None]:
        self._reading[digest] += 1
        try:
            yield
        finally:
            self._reading[digest] -= 1
            if not self._reading[digest]:
                del self._reading[digest]


def _close_if_open(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
