"""The bytes of one blob from wherever they can be had, in order and gapless, over cuts and other suppliers."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mirror.oci.digest import Digest
from mirror.oci.errors import BadGateway, Denied, OciError, Unavailable, Unknown

log = logging.getLogger(__name__)

# A supplier that asks for a longer pause than this is not waited for: readers hang on the answer.
MAX_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """One answer of an upstream: bytes from `start` on. `total_size` is the whole blob's, in bytes, where told.

    `doubt` is to be called where the bytes turn out to be wrong.
    """

    start: int
    total_size: int | None
    etag: str | None
    chunks: AsyncIterator[bytes]
    doubt: Callable[[], None] = lambda: None


class Fetch(Protocol):
    """Asks for the bytes from `start` to before `stop` (None: to the end), if they are still `etag`'s (If-Range)."""

    def __call__(
        self, start: int, etag: str | None, stop: int | None = None, /
    ) -> AbstractAsyncContextManager[Incoming]:
        """An answer that ignores the range starts at 0. Raises OciError or OSError, on entering or while reading."""


class WrongContent(BadGateway):
    """The bytes are not those that the digest names, or not as many as its descriptor says."""

    message = "the upstream sent other content than the digest names"


class Mark(NamedTuple):
    """An ETag and the supplier that gave it: it means nothing to another one."""

    supplier: str
    etag: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a feed goes on without a single new byte; every new byte begins the count anew."""

    attempts: int = 5
    first_pause_seconds: float = 0.1
    max_pause_seconds: float = 2.0


class Feed:
    """One reading of a blob.

    `suppliers` is looked at live: one that joins while the feed runs may carry it on. `size` is what is known
    of the blob's size in bytes, by its descriptor or by the first answer. Until a first answer came, each
    supplier is asked once only (a client retries by itself, and the caller can still tell its own client what
    is wrong), unless `begun` says that somebody hangs on bytes already given out.
    """

    def __init__(
        self,
        digest: Digest,
        suppliers: Mapping[str, Fetch],
        patience: Patience,
        *,
        size: int | None = None,
        mark: Mark | None = None,
        begun: bool = False,
        on_answer: Callable[[str, int | None, Incoming], None] = lambda supplier, size, incoming: None,
        on_error: Callable[[str, Exception], None] = lambda supplier, error: None,
    ) -> None:
        self.size = size
        self.mark = mark
        self._digest = digest
        self._suppliers = suppliers
        self._patience = patience
        self._answered = begun
        self._on_answer = on_answer
        self._on_error = on_error
        self._refused: set[str] = set()
        self._current: str | None = mark.supplier if mark else None
        self._position = 0
        self._skip = 0
        self._failures = 0
        # Some servers fail on Range itself (a part longer than their blob is 416): before giving up, ask for all.
        self._from_start = False

    async def chunks(self, position: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `position` to the end; close it (`aclosing`) when leaving early.

        The first piece is empty: it says that an answer came, which knows the size or not.
        Raises WrongContent where size contradicts, else the last supplier's error once patience is spent.
        """
        self._position, told = position, False
        while True:
            supplier = self._pick()
            try:
                async with self._suppliers[supplier](*self._request(supplier)) as incoming:
                    self._check(supplier, incoming)
                    if not told:
                        told = True
                        yield b""
                    async for chunk in incoming.chunks:
                        if piece := self._trim(chunk):
                            self._failures = 0
                            self._from_start = False
                            yield piece
                if self.size is None or self._position == self.size:
                    return
                raise BadGateway({"digest": self._digest, "reason": "the answer ended early"})
            except (OciError, OSError) as error:
                if self._answered and self._position == self.size and self.size:
                    return  # all that there is was had: the hash judges
                await self._after(supplier, error)

    def _request(self, supplier: str) -> tuple[int, str | None]:
        etag = self.mark.etag if self.mark and self.mark.supplier == supplier else None
        return (0, None) if self._from_start else (self._position, etag)

    def _check(self, supplier: str, incoming: Incoming) -> None:
        if incoming.start > self._position:
            raise BadGateway({"digest": self._digest, "reason": "the answer begins behind the byte asked for"})
        if incoming.total_size is not None:
            if self.size is None:
                self.size = incoming.total_size
            elif incoming.total_size != self.size:
                reason = f"{incoming.total_size} bytes, not {self.size}"
                raise WrongContent({"digest": self._digest, "reason": reason})
        if self.size is not None and self._position > self.size:
            raise WrongContent({"digest": self._digest, "reason": f"{self._position} bytes held of {self.size}"})
        if incoming.etag and self.mark is None:
            self.mark = Mark(supplier, incoming.etag)
        self._current = supplier
        self._skip = self._position - incoming.start
        self._answered = True
        self._on_answer(supplier, self.size, incoming)

    def _trim(self, chunk: bytes) -> bytes:
        """What of a chunk lies behind the bytes already had."""
        piece = chunk[self._skip :] if self._skip else chunk
        self._skip -= len(chunk) - len(piece)
        if self.size is not None and self._position + len(piece) > self.size:
            raise WrongContent({"digest": self._digest, "reason": f"more than {self.size} bytes"})
        self._position += len(piece)
        return piece

    def _pick(self) -> str:
        """The supplier in use, or the next that has not refused."""
        if self._current in self._suppliers and self._current not in self._refused:
            return str(self._current)
        left = [supplier for supplier in self._suppliers if supplier not in self._refused]
        self._current = left[0]
        return left[0]

    async def _after(self, supplier: str, error: OciError | OSError) -> None:
        """Settle a failure: pause and go on with the next supplier, or raise."""
        self._on_error(supplier, error)
        pause = 0.0
        wait = error.retry_after_seconds if isinstance(error, Unavailable) else None
        final = isinstance(error, Unknown | Denied | WrongContent) or (wait or 0.0) > MAX_PAUSE_SECONDS
        if not final and not self._answered and self._position and not self._from_start:
            self._from_start = True
            return
        if final or not self._answered:
            self._refused.add(supplier)
            self._from_start = False
        else:
            self._failures += 1
            if self._failures >= self._patience.attempts:
                raise error
            self._from_start = self._failures + 1 >= self._patience.attempts > 1
            doubled = self._patience.first_pause_seconds * 2 ** (self._failures - 1)
            pause = max(min(doubled, self._patience.max_pause_seconds), wait or 0.0)
        left = [each for each in self._suppliers if each not in self._refused]
        if not left:
            raise error
        # The next one in line, round and round; alone, the same again.
        order = list(self._suppliers)
        behind = order[order.index(supplier) + 1 :] if supplier in order else []
        self._current = next((each for each in behind if each in left), left[0])
        log.info("blob %s: %s at byte %d; on with %s", self._digest, error, self._position, self._current or "it")
        await asyncio.sleep(pause)
