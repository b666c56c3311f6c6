"""An answer of the fast path that takes time: it is found, and sent as its client takes it, in a task of its own."""

import asyncio
import logging
from collections.abc import Callable

from mirror.server.answer import CLOCK, Answer
from mirror.server.errors import internal_error
from mirror.server.registry import Pending
from mirror.server.request import Request
from mirror.server.send import let_go, respond

log = logging.getLogger(__name__)

# What is taken of further requests while one is being answered.
MAX_BEHIND_BYTES = 64 * 1024
# A longer piece is not copied to go with the head.
MAX_JOINED_BYTES = 16 * 1024


# Whose connection it is goes on with it, and with what came behind the request.
GiveBack = Callable[[bytes], None]


class Deliveries:
    """Those of one listener."""

    def __init__(self) -> None:
        # Those that have a connection now.
        self.holding: set[Delivery] = set()
        self.ending = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, delivery: "Delivery", found: Answer | Pending, note: Callable[[Answer], None]) -> None:
        """Answer with what was found, or what that comes to; `note` hears of it first."""
        self.holding.add(delivery)
        task = asyncio.create_task(delivery.run(found, note))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    async def stop(self) -> None:
        """Cut what is left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request_failed", exc_info=error)


class Delivery(asyncio.Protocol):
    """Has a connection while one answer is sent on it, as its `Outlet`; to the end where it does not go back.

    What comes behind the request is kept for whose connection it is, within a bound.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        transport: asyncio.Transport,
        request: Request,
        give_back: GiveBack,
        *,
        closes: bool,
        is_paused: bool,
    ) -> None:
        self.transport = transport
        self._deliveries = deliveries
        self._request = request
        self._give_back = give_back
        self._closes = closes
        self._has_begun = False
        # A head that waits for the first piece of its body: one packet, and one time that the client wakes up.
        self._held = b""
        # More is written than the client takes; and what then waits for it.
        self._is_paused = is_paused
        self._drained: asyncio.Future[None] | None = None
        self._behind = b""
        transport.set_protocol(self)
        transport.resume_reading()

    async def run(self, found: Answer | Pending, note: Callable[[Answer], None]) -> None:
        """Send everything; then the connection ends, or goes back."""
        try:
            try:
                await respond(self, self._request.target, found, note)
            except ConnectionError as error:
                let_go(error)
                self.transport.abort()
            except Exception as error:
                log.error("request_failed", extra={"fields": {"target": self._request.target[:300]}}, exc_info=error)
                await self._fail()
            else:
                self._end()
        except BaseException:
            self.transport.abort()
            raise

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._behind += data
        if len(self._behind) > MAX_BEHIND_BYTES:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was sent away."""
        self._deliveries.holding.discard(self)
        self.resume_writing()

    async def begin(self, answer: Answer) -> None:
        """See `Outlet`."""
        clock = CLOCK.tick()
        self._held = answer.head + (clock.last_tail if self._closes else clock.tail)
        asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """See `Outlet`."""
        held, self._held = self._held, b""
        if held and not self.transport.is_closing():
            self._has_begun = True
            self.transport.write(held)

    async def whole(self, answer: Answer) -> None:
        """See `Outlet`."""
        await self.write(answer.message(self._closes) or b"")

    async def write(self, piece: bytes | bytearray | memoryview, /) -> None:
        """See `Outlet`."""
        if self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self._held and len(piece) <= MAX_JOINED_BYTES:
            piece, self._held = b"".join((self._held, piece)), b""
        self.flush()
        self._has_begun = True
        self.transport.write(piece)
        await self._drain()

    async def end(self) -> None:
        """See `Outlet`."""
        self.flush()
        await self._drain()

    async def _drain(self) -> None:
        if self._is_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _end(self) -> None:
        if self.transport.is_closing():
            return
        if self._closes or self._deliveries.ending:
            self.transport.close()
            return
        self._deliveries.holding.discard(self)
        self._give_back(self._behind)

    async def _fail(self) -> None:
        """The answer failed unforeseen: where it has begun, a second one would land inside its body."""
        self._held = b""
        if self._has_begun:
            self.transport.abort()
            return
        self._closes = True
        found = internal_error()
        try:
            await self.whole(found.bodiless if self._request.method == "HEAD" else found)
        except ConnectionError:
            self.transport.abort()
        self.transport.close()
