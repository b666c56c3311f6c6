"""One reader's hold on a fill."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from mirror.oci.errors import OciError
from mirror.store.body import ByteStream
from mirror.store.feed import Feed, Fetch, WrongContent
from mirror.store.fill import Fill
from mirror.store.progress import VERIFY_FIRST_BYTES
from mirror.store.threads import PIECE_BYTES, read_piece

log = logging.getLogger(__name__)

# Tells a blob's size in bytes, as far as anybody knows.
LikelySize = Callable[[], Awaitable[int | None]]

# So few bytes at first, then twice as many each time: where many begin at once, each waits for all the others.
_FIRST_BYTES = 4 * 1024
# A read is far ahead of a fill that needs longer than this to get there.
_FAR_SECONDS = 1.0


class Pull:
    """A reader of the blob that `fill` is about. `collapsed`: it joined a fill that was running already."""

    def __init__(
        self,
        fill: Fill,
        supplier: str,
        fetch: Fetch,
        *,
        collapsed: bool,
        prove: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self.collapsed = collapsed
        # Done before the blob's last piece is given out.
        self.before_end: asyncio.Future[None] | None = None
        # The size in bytes that this reader is told.
        self._told: int | None = None
        self._fill = fill
        self._progress = fill.job.progress
        self._supplier = supplier
        self._fetch = fetch
        self._prove = prove

    async def started(self, likely_size: LikelySize | None = None) -> int:
        """The blob's size in bytes, once its body can begin.

        Where bytes come of which no answer tells how many there are, `likely_size` does; if it is wrong, this body is
        cut. Raises the supplier's own error (OciError or OSError) where nothing can be had, so that the answer can
        still be an error; or what `prove` raises. A blob up to VERIFY_FIRST_BYTES was checked by then.
        """
        progress, likely = self._progress, None
        while progress.size is None and likely is None:
            if (error := self._fill.job.error_for(self._supplier)) is not None:
                raise error
            if likely_size is not None and progress.is_coming and progress.held > VERIFY_FIRST_BYTES:
                likely, likely_size = await likely_size(), None
                if likely is not None and likely <= progress.held:
                    likely = None
            else:
                await progress.change()
        # Another repository's answer, another process's part or the pool say nothing of this one.
        if self._prove is not None and self._supplier not in self._fill.job.answered_by:
            await self._prove()
        self._prove = None
        progress.is_ahead = progress.size is None
        self._told = told = likely or 0 if progress.size is None else progress.size
        return told

    @property
    def is_certain(self) -> bool:
        """Whether an answer or the blob itself has told the size."""
        return self._progress.size is not None

    @property
    def body(self) -> ByteStream:
        """The blob, behind `started`; to be read as long as the hold lasts."""
        if self._told is None:
            raise RuntimeError("a body begins when the fill has started")
        return ByteStream(self._told, self._read, lambda: self._progress.is_running)

    async def _read(self, start: int, stop: int) -> AsyncGenerator[bytes | bytearray, None]:
        progress, position, alone, patient = self._progress, start, False, True
        while position < stop:
            ready = min(stop, self._deliverable())
            if progress.error is not None:
                raise progress.error
            if position < ready:
                piece = await self._piece(position, min(ready, position + max(_FIRST_BYTES, position - start)))
                position += len(piece)
                if position == progress.size:
                    await self._end()
                yield piece
                if position < min(stop, self._deliverable()):
                    # What is there already would go on until this socket is full: everybody has a turn.
                    await asyncio.sleep(0)
            elif progress.passing:
                await self._end()
                async with aclosing(self._passed(position, stop)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            elif not alone and self._is_far(position, patient) and (count := self._share(position, stop)):
                alone = True
                async with aclosing(self._fetched_apart(position, count)) as pieces:
                    async for piece in pieces:
                        position += len(piece)
                        yield piece
            elif alone or not self._is_ahead(position):
                await progress.change()
            else:
                # Where the fill stands still, the read becomes a far one in time.
                try:
                    async with asyncio.timeout(_FAR_SECONDS):
                        await progress.change()
                except TimeoutError:
                    patient = False

    def _deliverable(self) -> int:
        """As `Progress` has it; before the size is certain, all but the last byte of what is likely."""
        size, told = self._progress.size, self._told or 0
        if size is None:
            return min(self._progress.held, told - 1)
        if size != told:
            raise WrongContent(
                {"digest": self._fill.job.digest, "reason": f"{size} bytes, not {told} as it is listed"}
            )
        return self._progress.deliverable

    async def _end(self) -> None:
        if self.before_end is not None:
            await asyncio.shield(self.before_end)

    async def _piece(self, position: int, ready: int) -> bytes | bytearray:
        size = min(PIECE_BYTES, ready - position)
        progress = self._progress
        if progress.content is not None:
            return progress.content[position : position + size]
        # Whoever has kept up with the fill wants the same now.
        if progress.latest[0] == position and len(progress.latest[1]) == size:
            return progress.latest[1]
        piece = await read_piece(progress.fd, size, position)
        if not piece:
            raise OSError(f"the file of blob {self._fill.job.digest} was cut short")
        progress.latest = (position, piece)
        return piece

    def _is_ahead(self, position: int) -> bool:
        return position - self._progress.held > self._fill.job.limits.far_bytes

    def _is_far(self, position: int, patient: bool) -> bool:
        """`patient`: what a fill brings first goes to those who read from its start, before anybody asks for more."""
        job = self._fill.job
        if patient and not job.progress.held:
            return False
        return self._is_ahead(position) and position - job.progress.held > job.speed() * _FAR_SECONDS

    def _share(self, position: int, stop: int) -> int:
        """How many bytes from `position` on may be fetched apart.

        Never the last byte: that waits for the verdict, as all readers do.
        """
        fill, size = self._fill, self._progress.size or 0
        wanted = min(stop, size - 1) - position
        if fill.part is None or wanted <= 0 or not fill.apart.may_have(size):
            return 0
        return fill.apart.take(fill.part, size, wanted)

    async def _fetched_apart(self, position: int, count: int) -> AsyncGenerator[bytes, None]:
        """Bytes far ahead of the fill, by one request of their own; where it fails or ends, the fill gets there."""
        digest, apart, left = self._fill.job.digest, self._fill.apart, count
        apart.reads += 1
        try:
            async with self._fetch(position, None, position + count) as incoming:
                if incoming.start != position or incoming.total_size not in (None, self._progress.size):
                    return  # it does not do ranges, or has another blob
                async for chunk in incoming.chunks:
                    if piece := chunk[:left]:
                        yield piece
                    left -= len(piece)
                    if not left:
                        return
        except (OciError, OSError) as error:
            log.info("blob %s, fetched apart from byte %d, broke off: %s", digest, position, error)
        finally:
            apart.reads -= 1
            self._progress.wake()  # another may begin, however long the fill stands still

    async def _passed(self, position: int, stop: int) -> AsyncGenerator[bytes, None]:
        """The rest of a blob that is not stored, by a request of this reader's own.

        Who reads to the end from where the hash is known gets the last byte only if all of them are right.
        """
        size = self._progress.size
        hasher = self._progress.hash_at(position) if stop == size else None
        suppliers, patience = {self._supplier: self._fetch}, self._fill.job.limits.patience
        feed = Feed(self._fill.job.digest, suppliers, patience, size=size, begun=True)
        held_back = b""
        left = stop - position
        async with aclosing(feed.chunks(position)) as chunks:
            async for chunk in chunks:
                piece = chunk[:left]
                left -= len(piece)
                if hasher is not None:
                    await asyncio.to_thread(hasher.update, piece)
                    piece, held_back = (held_back + piece)[:-1], piece[-1:]
                if piece:
                    yield piece
                if not left:
                    break
        if hasher is not None:
            if hasher.hexdigest() != self._fill.job.digest.hex:
                raise WrongContent({"digest": self._fill.job.digest, "reason": "the hash differs"})
            yield held_back
