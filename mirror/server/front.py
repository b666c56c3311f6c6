"""The fast path: a protocol before aiohttp's that answers from memory, in one write, what needs nothing else.

What is not in memory a `Delivery` sends. Whatever it does not understand, or fails at, it leaves unread to aiohttp's
connection, which asks the same `find` and sends the same bytes: without this module all is as it is with it, only
slower.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

from mirror.server.answer import Answer
from mirror.server.delivery import Deliveries, Delivery
from mirror.server.heads import END, MAX_HEAD_BYTES, Head, Heads
from mirror.server.registry import Pending, Registry
from mirror.server.request import Request

MAX_PIPELINED = 32
# The idle time-out is looked after so many times while it lasts.
_IDLE_SWEEPS = 20

# Counts and logs an answer that goes out: the request, who asked, and the answer.
Note = Callable[[Request, str | None, Answer], None]

# Lets aiohttp go on with a connection, as if what is given had not been read.
HandOver = Callable[["Front", bytes], None]


class Fronts:
    """Makes the fronts of one listener, and is what they share."""

    def __init__(self, registry: Registry, note: Note, hand_over: HandOver, idle_timeout_seconds: float) -> None:
        self.registry = registry
        self.note = note
        self.hand_over = hand_over
        self.heads = Heads()
        # Those that hold a connection now.
        self.holding: set[Front] = set()
        self.deliveries = Deliveries()
        self._idle_timeout_seconds = idle_timeout_seconds
        self._loop = asyncio.get_running_loop()
        # So many sweeps were made. Idle time is counted in them: a clock would cost each answer a part of its time,
        # and what a process did not hear while it was stopped was nobody's idleness.
        self.sweeps = 0
        self._sweeping: asyncio.TimerHandle | None = None

    def __call__(self) -> "Front":
        if self._sweeping is None:
            self._sweep()
        return Front(self)

    def close(self) -> None:
        """End every connection that waits for a request, once what was written to it is sent; others later."""
        self.deliveries.ending = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for front in list(self.holding):
            _close(front.transport)

    async def abort(self) -> None:
        """Cut what is left."""
        for transport in list(self.transports()):
            transport.abort()
        await self.deliveries.stop()

    def transports(self) -> Iterator[asyncio.Transport]:
        """Of every connection that is not aiohttp's."""
        yield from (front.transport for front in self.holding)
        yield from (delivery.transport for delivery in self.deliveries.holding)

    def _sweep(self) -> None:
        """One timer for all of them: one for each would cost every answer a part of its time."""
        self.sweeps += 1
        for front in list(self.holding):
            if front.active_in < self.sweeps - _IDLE_SWEEPS and not front.is_paused:
                _close(front.transport)
        self._sweeping = self._loop.call_later(self._idle_timeout_seconds / _IDLE_SWEEPS, self._sweep)


def _close(transport: asyncio.Transport) -> None:
    """Once: with asyncio's TLS a second time would keep it from being aborted."""
    if not transport.is_closing():
        transport.close()


class Front(asyncio.Protocol):
    """One client's connection, as long as every answer comes from memory. It never keeps what it has read."""

    transport: asyncio.Transport

    def __init__(self, fronts: Fronts) -> None:
        self._fronts = fronts
        self._find = fronts.registry.find
        self._note = fronts.note
        self._known_head = fronts.heads.get
        self._read = fronts.heads.read
        self._remote: str | None = None
        # By the fronts' sweeps: when the last request came.
        self.active_in = fronts.sweeps
        # More is written than the client takes: nothing is read till it has.
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, (tuple, list)) else peer
        self._fronts.holding.add(self)
        if self._fronts.deliveries.ending:
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
        self.active_in = self._fronts.sweeps
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered; aiohttp gets the rest."""
        self.active_in = self._fronts.sweeps
        head = self._known_head(data) or self._read(data)
        if head is None:
            self._answer_several(data)
        elif not self._answer(head):
            self._hand_over(data)

    def _answer(self, head: Head) -> bool:
        """Whether it was answered, or is being: nothing is sent before everything has gone well."""
        request = head.request
        try:
            found = self._find(request)
            message = found.message(head.closes) if type(found) is Answer else None
        except Exception:
            return False
        if message is None or type(found) is not Answer:
            self._deliver(head, found)
            return True
        self._note(request, self._remote, found)
        self.transport.write(message)
        if head.closes:
            self.transport.close()
        return True

    def _deliver(self, head: Head, found: Answer | Pending) -> None:
        fronts, request = self._fronts, head.request
        fronts.holding.discard(self)
        delivery = Delivery(
            fronts.deliveries, self.transport, request, self._take_back, closes=head.closes, is_paused=self.is_paused
        )
        fronts.deliveries.start(delivery, found, partial(self._note, request, self._remote))

    def _take_back(self, behind: bytes) -> None:
        """Nothing of the answer waits any more."""
        self.active_in = self._fronts.sweeps
        self.is_paused = False
        self.transport.set_protocol(self)
        self._fronts.holding.add(self)
        self.transport.resume_reading()
        if behind:
            self.data_received(behind)

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
            if position == len(data):
                return
            if isinstance(delivery := self.transport.get_protocol(), Delivery):
                delivery.data_received(data[position:])
                return
            if self.is_paused:
                break
        self._hand_over(data[position:])

    def _hand_over(self, data: bytes) -> None:
        self._fronts.holding.discard(self)
        self._fronts.hand_over(self, data)
