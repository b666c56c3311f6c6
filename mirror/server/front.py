"""The fast path: a protocol before aiohttp's that answers from memory, in one write, what needs nothing else.

Whatever it does not understand, cannot answer from memory, or fails at, it leaves unread to aiohttp's connection,
which asks the same `find` and sends the same bytes: without this module all is as it is with it, only slower.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from mirror.server.answer import CLOCK, Answer
from mirror.server.heads import END, MAX_HEAD_BYTES, Head, Heads
from mirror.server.registry import Registry
from mirror.server.request import Request
from mirror.store.threads import PIECE_BYTES

MAX_PIPELINED = 32

# The request, the answer, and who asked.
LogAnswer = Callable[[Request, Answer, str | None], None]


# Lets aiohttp go on with a connection, as if what is given had not been read; for one request only, or for good.
HandOver = Callable[["Front", bytes, bool], None]


class Fronts:
    """Makes the fronts of one listener, and is what they share."""

    def __init__(
        self, registry: Registry, log_answer: LogAnswer | None, hand_over: HandOver, idle_timeout_seconds: float
    ) -> None:
        self.registry = registry
        self.log_answer = log_answer
        self.hand_over = hand_over
        self.heads = Heads()
        # Those that hold a connection now.
        self.holding: set[Front] = set()
        self.ending = False
        self._idle_timeout_seconds = idle_timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> "Front":
        if self._sweeping is None:
            self._sweep()
        return Front(self, self._loop)

    def close(self) -> None:
        """End every connection that waits for a request, once what was written to it is sent."""
        self.ending = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for front in list(self.holding):
            front.transport.close()

    def abort(self) -> None:
        """Cut what is left."""
        for front in list(self.holding):
            front.transport.abort()

    def _sweep(self) -> None:
        """One timer for all of them: one for each would cost every answer a part of its time."""
        ended = self._loop.time() - self._idle_timeout_seconds
        for front in list(self.holding):
            if front.active_at <= ended and not front.is_paused:
                front.transport.close()
        self._sweeping = self._loop.call_later(self._idle_timeout_seconds / 20, self._sweep)


class Front(asyncio.Protocol):
    """One client's connection, as long as every answer comes from memory. It never keeps what it has read."""

    transport: asyncio.Transport

    def __init__(self, fronts: Fronts, loop: asyncio.AbstractEventLoop) -> None:
        self._fronts = fronts
        self._find = fronts.registry.find
        self._sent = fronts.registry.sent
        self._log_answer = fronts.log_answer
        self._read = fronts.heads.read
        self._time = loop.time
        self._remote: str | None = None
        # On the loop's clock: when the last request came.
        self.active_at = loop.time()
        # More is written than the client takes: nothing is read till it has.
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, (tuple, list)) else peer
        self._fronts.holding.add(self)
        if self._fronts.ending:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was sent away."""
        self._fronts.holding.discard(self)

    def pause_writing(self) -> None:
        """What is written waits for the client: its further requests do too."""
        self.is_paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.is_paused = False
        self.active_at = self._time()
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered at once; aiohttp gets the rest."""
        self.active_at = self._time()
        head = self._read(data)
        if head is None:
            self._answer_several(data)
        elif not self._answer(head):
            self._hand_over(data, once=not head.closes)
        elif head.closes:
            self.transport.close()

    def give_back(self, behind: bytes, is_paused: bool) -> None:
        """Take the connection again: aiohttp's has answered, and nothing is left in it. `behind` came meanwhile."""
        self.active_at = self._time()
        self.transport.set_protocol(self)
        self._fronts.holding.add(self)
        self.transport.resume_reading()
        if is_paused:
            self.pause_writing()
        if behind:
            self.data_received(behind)

    def _answer(self, head: Head) -> bool:
        """Whether it was answered: nothing is sent before everything has gone well."""
        request = head.request
        try:
            found = self._find(request)
            if type(found) is not Answer or type(found.body) is not bytes:
                return False
            clock = CLOCK.tick()
            tail = clock.last_tail if head.closes else clock.tail
            if not found.send_body or found.start == found.stop:
                message = found.head + tail
            elif found.stop - found.start == len(found.body) <= PIECE_BYTES:
                message = b"".join((found.head, tail, found.body))
            elif found.stop - found.start <= PIECE_BYTES:
                message = b"".join((found.head, tail, found.body[found.start : found.stop]))
            else:
                # In one write it would wait in memory, for every client that is slow.
                return False
        except Exception:
            return False
        self._sent(request.method, found)
        if self._log_answer is not None:
            self._log_answer(request, found, self._remote)
        self.transport.write(message)
        return True

    def _answer_several(self, data: bytes) -> None:
        """Requests that came together; what is no whole request ends it."""
        position = 0
        for _ in range(MAX_PIPELINED):
            end = data.find(END, position, position + MAX_HEAD_BYTES) + len(END)
            head = self._read(data[position:end]) if end >= len(END) else None
            # What follows a last request is no request: aiohttp has the say.
            if head is None or (head.closes and end < len(data)) or not self._answer(head):
                break
            position = end
            if head.closes:
                self.transport.close()
            if position == len(data):
                return
            if self.is_paused:
                break
        self._hand_over(data[position:], once=False)

    def _hand_over(self, data: bytes, *, once: bool) -> None:
        self._fronts.holding.discard(self)
        self._fronts.hand_over(self, data, once)
