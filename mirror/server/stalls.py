"""Clients that take nothing: their answers end, rather than hold memory, files and fills for ever."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterable

from mirror.logs import event

log = logging.getLogger(__name__)

# An answer of which the client takes not one byte for so long is cut; whoever takes anything goes on.
SEND_TIMEOUT_SECONDS = 300.0
# A number of looks, rather than a clock: a process that was stopped for an hour cuts nobody when it goes on.
_LOOKS = 20
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
# `tcpi_bytes_acked` in Linux's `struct tcp_info` (linux/tcp.h).
_ACKED = slice(120, 128)


class Stalls:
    """Looks at every connection now and then: one timer, whose looks cost nothing while clients keep up."""

    def __init__(self, transports: Callable[[], Iterable[asyncio.Transport]], timeout_seconds: float) -> None:
        self._transports = transports
        self._timeout_seconds = timeout_seconds
        # Those that something waits for: what they had taken, and for how many looks it has been no more.
        self._waiting: dict[asyncio.Transport, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look for the first time after a part of the time-out."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_seconds / _LOOKS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.start()
        waiting = {}
        for transport in list(self._transports()):
            if not transport.get_write_buffer_size():
                continue
            taken = _taken(transport)
            before, looks = self._waiting.get(transport, (None, 0))
            looks = looks + 1 if before == taken else 0
            if looks < _LOOKS:
                waiting[transport] = taken, looks
            else:
                self._cut(transport)
        self._waiting = waiting

    def _cut(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        remote = str(peer[0]) if isinstance(peer, tuple) else None
        event(log, logging.INFO, "client_takes_nothing", remote=remote, seconds=self._timeout_seconds)
        transport.abort()


def _taken(transport: asyncio.Transport) -> int:
    """A number that changes whenever the client's side takes something.

    The buffer here shrinks in leaps: the kernel has one of megabytes before it. Where it does not tell how many bytes
    were acknowledged, the leaps have to do.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and _TCP_INFO is not None:
        try:
            told = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _ACKED.stop)
        except OSError:
            told = b""  # it has ended meanwhile
        if len(told) == _ACKED.stop:
            return int.from_bytes(told[_ACKED], sys.byteorder)
    return transport.get_write_buffer_size()
