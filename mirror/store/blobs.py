"""Blobs on disk: whole and verified ones, and the fills that bring new ones."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from mirror.store.pool import BlobPool
from mirror.store.pull import Pull
from mirror.store.threads import acquire, close_later

log = logging.getLogger(__name__)


class BlobStore:
    """`<path>/blobs/<alg>/<xx>/<hex>`, shared by any number of processes; in each, of one event loop.

    Nothing is found there that is not whole and right. `pool` is the same for threads. `on_stored(digest, size)`
    is called on the event loop for each blob that this process published, by a fill or by `put`; `on_over()` when
    a fill has ended, whichever way: what came of it may be left as a part.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits | None = None,
        on_stored: Callable[[Digest, int], None] = lambda digest, size: None,
        on_over: Callable[[], None] = lambda: None,
    ) -> None:
        self.counters = Counters()
        self._files = Files(path)
        self.pool = BlobPool(self._files)
        self._limits = limits or Limits()
        self._on_stored = on_stored
        self._on_over = on_over
        self._fills: dict[Digest, Fill] = {}
        self._reading: Counter[Digest] = Counter()
        self._stopping = False

    async def size(self, digest: Digest) -> int | None:
        """Size in bytes of a blob that is here; opens nothing."""
        return await asyncio.to_thread(self.pool.size, digest)

    async def told_size(self, digest: Digest) -> int | None:
        """Size in bytes of a blob that is here, or on its way as its upstream says."""
        fill = self._fills.get(digest)
        if fill is not None and fill.job.progress.size is not None:
            return fill.job.progress.size
        return await self.size(digest)

    def keeps(self, size: int) -> bool:
        """Whether a blob of `size` bytes is stored when it comes; larger ones are passed through."""
        limit = self._limits.max_blob_bytes
        return limit is None or size <= limit

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
        self,
        digest: Digest,
        size: int | None,
        fetch: Fetch,
        *,
        supplier: str = "",
        prove: Callable[[], Awaitable[object]] | None = None,
        keep: bool = True,
    ) -> AsyncIterator[Pull]:
        """A hold on the one fill of a blob, begun if none runs; the fill goes on when the hold is over.

        `size` in bytes, where a descriptor tells it. `supplier` names where `fetch` gets the bytes from, the
        repository and its host: a fill that fails with one supplier goes on with the others that joined it.

        Where it is not known yet that the supplier has the blob, `prove` finds out (a HEAD that raises): it is
        awaited before a body begins, unless the supplier's own answer to `fetch` shows it.

        `keep=False`: nothing is stored, every reader of a blob above VERIFY_FIRST_BYTES fetches for itself.
        Raises Unavailable after `stop`.
        """
        if self._stopping:
            raise Unavailable("the mirror is shutting down")
        fill = self._fills.get(digest)
        collapsed = fill is not None
        if fill is None:
            fill = Fill(Job(self._files, digest, size, self._limits, self.counters, self._on_stored), keep)
            self._fills[digest] = fill
        fill.join(supplier, fetch)
        if not collapsed:
            fill.start(self._over)
        try:
            with self._in_use(digest):
                yield Pull(fill, supplier, fetch, collapsed=collapsed, prove=prove)
        finally:
            fill.leave()

    async def put(self, digest: Digest, content: bytes) -> None:
        """Store small content, a manifest. Raises WrongContent where it is not what the digest names, OSError."""
        if not await asyncio.to_thread(digest.matches, content):
            raise WrongContent({"digest": digest})
        await asyncio.to_thread(self.pool.write, digest, content)
        self._on_stored(digest, len(content))

    def busy(self) -> set[Digest]:
        """All that this process reads or fills; `pool.in_use` knows of the other processes as well."""
        return {*self._fills, *self._reading}

    def is_filling(self, digest: Digest) -> bool:
        """Whether a fill of it runs here."""
        return digest in self._fills

    def may_have(self, digest: Digest, supplier: str) -> bool:
        """Whether a fill waits for its first answer, from `supplier` or others before it, or `supplier` has given it
        and that is written nowhere else yet.
        """
        fill = self._fills.get(digest)
        if fill is None:
            return False
        job = fill.job
        return supplier in job.answered_by or (job.progress.size is None and supplier in job.suppliers)

    def membership_written(self, digest: Digest, supplier: str) -> None:
        """That `supplier` has the blob stands in its repository, which is asked from now on: it may be forgotten."""
        fill = self._fills.get(digest)
        if fill is not None:
            fill.job.answered_by.discard(supplier)

    def running(self) -> int:
        """Fills running in this process, those included that follow another process's."""
        return len(self._fills)

    async def clean_parts(self) -> list[str]:
        """At start: remove parts that nobody will go on with; the names removed. Living processes' stay."""
        removed = await asyncio.to_thread(self.pool.clean_parts)
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
        self._on_over()

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
