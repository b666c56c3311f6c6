"""What a fill is about, and what everybody who works on it shares."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mirror.oci.digest import Digest
from mirror.oci.errors import Unavailable, Unknown
from mirror.store.feed import Feed, Fetch, Incoming, Mark, Patience, WrongContent
from mirror.store.parts import Files, Part
from mirror.store.progress import VERIFY_FIRST_BYTES, Progress
from mirror.store.pump import StorageFailed
from mirror.store.threads import to_the_end

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """What fills did since the start of this process, for the metrics."""

    started: int = 0
    finished: int = 0
    failed: int = 0
    passed_through: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_blob_bytes`: larger blobs are passed through. `far_bytes`: how far ahead of a fill a read has to be
    before it may be fetched apart; it also has to be more than a second away at the fill's speed so far.
    """

    max_blob_bytes: int | None = None
    far_bytes: int = 8 * 1024 * 1024
    patience: Patience = field(default_factory=Patience)


@dataclass(slots=True)
class Job:
    """One blob to be had. `expected_size` in bytes, where a descriptor told it; `suppliers` may grow."""

    files: Files
    digest: Digest
    expected_size: int | None
    limits: Limits
    counters: Counters
    on_stored: Callable[[Digest, int], None]
    progress: Progress = field(default_factory=Progress)
    suppliers: dict[str, Fetch] = field(default_factory=dict)
    # Who was seen, in this process, to have the blob before bodies began, till that is written down; and what a
    # supplier said last where it was an error.
    answered_by: set[str] = field(default_factory=set)
    errors: dict[str, Exception] = field(default_factory=dict)
    _answering: str | None = None
    # What to call where the bytes that came so far are wrong.
    _doubts: list[Callable[[], None]] = field(default_factory=list)
    _begun: tuple[float, int] | None = None

    def feed(self, size: int | None, mark: Mark | None = None) -> Feed:
        """A reading of the blob; its first answer lets bodies begin, except of small blobs."""
        return Feed(
            self.digest,
            self.suppliers,
            self.limits.patience,
            size=size,
            mark=mark,
            begun=self.progress.is_begun,
            on_answer=self._answered,
            on_error=self.errors.__setitem__,
        )

    def error_for(self, supplier: str) -> Exception | None:
        """Why nothing can be had, for who asks `supplier`; None so far. Another's "unknown" says nothing of it."""
        found = self.progress.error
        if found is None or supplier in self.errors:
            return found and self.errors[supplier]
        return Unavailable() if isinstance(found, Unknown) else found

    def doubt(self) -> None:
        """What came was wrong: the next reading begins with somebody else than who gave it."""
        for doubt in self._doubts:
            doubt()
        self._doubts.clear()
        if self._answering in self.suppliers:
            self.suppliers[self._answering] = self.suppliers.pop(self._answering)

    def _answered(self, supplier: str, size: int | None, incoming: Incoming) -> None:
        self._answering = supplier
        self._doubts.append(incoming.doubt)
        self.progress.is_coming = True
        if self.progress.size is None:
            self.answered_by.add(supplier)
        self.announce(size)

    def announce(self, size: int | None) -> None:
        """Bodies may begin where the size is known; small blobs wait for the verdict."""
        if size is not None and size > VERIFY_FIRST_BYTES:
            self.progress.announce(size)

    def grow(self, held: int) -> None:
        """Bytes up to `held` are in the part."""
        if self._begun is None:
            self._begun = (time.monotonic(), held)
        self.progress.grow(held)

    def speed(self) -> float:
        """Bytes per second since this process saw the fill begin; 0 before that."""
        if self._begun is None:
            return 0.0
        begun, held = self._begun
        return (self.progress.held - held) / max(time.monotonic() - begun, 1e-3)

    async def publish(self, publishing: Awaitable[None], part: Part) -> None:
        """Readers have it all by now: a failure costs the copy only."""
        try:
            await publishing
            self.on_stored(self.digest, part.size())
        except (StorageFailed, OSError) as error:
            log.warning("blob %s was not kept: %s", self.digest, error)
            await to_the_end(part.drop)

    async def give_up_storing(self, part: Part, hasher: Any = None) -> None:
        """Readers go on by themselves behind the bytes held, which stay readable as long as anybody reads.

        `hasher` has taken in the bytes held; None: they are read again. Raises WrongContent where that is all of them
        and they are not the blob's, Unavailable where nobody can be told how the blob goes on.
        """
        await to_the_end(part.drop)
        held, size = self.progress.held, self.progress.size
        if size is None or held > size:
            raise Unavailable("the blob cannot be stored")
        if hasher is None:
            hasher = await asyncio.to_thread(part.hash_state, held)
        if held == size:
            if hasher.hexdigest() != self.digest.hex:
                raise WrongContent({"digest": self.digest, "reason": "the hash differs"})
            self.progress.complete(size)
            return
        self.counters.passed_through += 1
        self.progress.pass_on(hasher, held)
