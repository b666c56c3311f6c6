"""How a file's bytes reach a client: put straight into its socket, or in pieces through a transport that encrypts."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Self

from mirror.server.outlet import Outlet
from mirror.store.body import FileSlice
from mirror.store.threads import PIECE_BYTES, read_cached, read_piece

# What waits in the transport for a client that takes nothing. More than aiohttp's StreamWriter takes without waiting.
REST_BYTES = 64 * 1024 + 1
# So much of one answer at a time, where a client takes it all at once; then others have their turn.
TURN_BYTES = 1024 * 1024

# Holds something only between two awaits: so one is enough for all answers of the process.
_BUFFER = memoryview(bytearray(PIECE_BYTES))


class BodyBroken(Exception):
    """The body cannot be had to its end: the file is shorter than it was, or another."""


class Direct:
    """Puts bodies into a client's socket past its transport, which would allocate and copy every piece. Enter it.

    Only what asyncio documents is asked of the transport: while it holds nothing, nobody else writes to its socket;
    what the socket does not take at once it gets a small part of, and tells when that is gone.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @classmethod
    def to(cls, transport: asyncio.Transport | None) -> Self | None:
        """None where what a socket takes is not what the client gets (TLS), or there is no socket any more."""
        if transport is None or transport.is_closing() or transport.get_extra_info("sslcontext"):
            return None
        return cls(transport) if transport.get_extra_info("socket") else None

    def __enter__(self) -> Self:
        self._transport.set_write_buffer_limits(high=0)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits()

    async def send(self, outlet: Outlet, file: FileSlice, start: int, stop: int) -> None:
        """Those bytes, behind the head. Raises BodyBroken, OSError; ConnectionError where the client is gone."""
        outlet.flush()
        position, end = file.offset + start, file.offset + stop
        paused_at = position
        while position < end:
            piece = await _piece(file, position, end)
            sent = self._put(piece)
            # A copy: the buffer is the next answer's as soon as this one waits.
            rest = bytes(piece[sent : sent + REST_BYTES])
            position += sent + len(rest)
            if rest:
                await outlet.write(rest)
            elif position < end and position - paused_at >= TURN_BYTES:
                await asyncio.sleep(0)
                paused_at = position

    def _put(self, piece: memoryview) -> int:
        """How much of it the socket took."""
        if self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self._transport.get_write_buffer_size():
            return 0
        try:
            return os.write(self._transport.get_extra_info("socket").fileno(), piece)
        except BlockingIOError:
            return 0


async def read_file(file: FileSlice, start: int, stop: int) -> AsyncIterator[bytes | bytearray]:
    """Those bytes in pieces of PIECE_BYTES. Raises BodyBroken, OSError."""
    position, end = file.offset + start, file.offset + stop
    while position < end:
        piece = await read_piece(file.fd, min(PIECE_BYTES, end - position), position)
        _check(file, len(piece), end - position)
        position += len(piece)
        yield piece


async def _piece(file: FileSlice, position: int, end: int) -> memoryview:
    """What comes next: in `_BUFFER` where it is in the page cache, so to be used before the next await."""
    wanted = min(PIECE_BYTES, end - position)
    count = read_cached(file.fd, _BUFFER[:wanted], position)
    if count is None:
        piece = memoryview(await asyncio.to_thread(os.pread, file.fd, wanted, position))
    else:
        piece = _BUFFER[:count]
    _check(file, len(piece), end - position)
    return piece


def _check(file: FileSlice, count: int, left: int) -> None:
    if not count:
        raise BodyBroken(f"the file ends {left} bytes early")
    if file.modified_ns is not None and os.fstat(file.fd).st_mtime_ns != file.modified_ns:
        raise BodyBroken("the file was written to meanwhile")
