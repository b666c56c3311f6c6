"""One answer on its way to a client, with the fault acted out."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.hub.faults import (
    BlackHole,
    Corrupt,
    Drip,
    EndlessHeaders,
    Fault,
    NoDigest,
    NoLength,
    Oversized,
    Redirect,
    RedirectLoop,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
)

PIECE_BYTES = 256 * 1024


@dataclass
class Logged:
    """One request as it came, and what was answered. Times are `loop.time()`."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: CIMultiDictProxy[str]
    kind: str
    started: float
    status: int = 0
    bytes_sent: int = 0
    first_byte_at: float | None = None


@dataclass
class Reply:
    """What a server means to answer, before faults."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    # For HEAD: the length to announce.
    length: int | None = None


class Answering(Protocol):
    """What a delivery needs of its server."""

    async def reply(self, request: web.BaseRequest, fault: Fault | None) -> Reply: ...

    async def pace(self, amount: int) -> None: ...

    async def closing(self) -> None: ...

    def fresh_number(self) -> int: ...


class Delivery:
    """One answer on its way, with the fault acted out."""

    def __init__(self, server: Answering, request: web.BaseRequest, entry: Logged, fault: Fault | None) -> None:
        self.server, self.request, self.entry, self.fault = server, request, entry, fault

    async def run(self) -> web.StreamResponse:
        request, fault, path = self.request, self.fault, self.entry.path
        match fault:
            case Reset():
                self._transport().abort()
                return web.Response()
            case BlackHole():
                await self.server.closing()
                return web.Response()
            case EndlessHeaders():
                return await self._endless_headers()
            case Stall(release=release, after_bytes=None):
                await release.wait()
        match fault:
            case Status(status, headers, body):
                reply = Reply(status, headers, body)
            case Redirect(location, status):
                reply = Reply(status, {"Location": location})
            case RedirectLoop(fresh=fresh):
                mark = f"?again={self.server.fresh_number()}" if fresh else ""
                reply = Reply(307, {"Location": path + mark})
            case Oversized(total_bytes, chunked):
                return await self._oversized(total_bytes, chunked)
            case _:
                reply = await self.server.reply(request, fault)
        return await self._send(reply)

    def _transport(self) -> asyncio.Transport:
        transport = self.request.transport
        assert isinstance(transport, asyncio.Transport)
        return transport

    async def _endless_headers(self) -> web.StreamResponse:
        transport = self._transport()
        transport.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000_000):
            if transport.is_closing():
                break
            transport.write(b"X-Endless-%d: %s\r\n" % (number, b"x" * 1000))
            self.entry.bytes_sent += 1000
            await asyncio.sleep(0)
        transport.abort()
        return web.Response()

    async def _oversized(self, total_bytes: int, chunked: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = total_bytes
        self.entry.status = 200
        await response.prepare(self.request)
        while self.entry.bytes_sent < total_bytes:
            await response.write(b" " * PIECE_BYTES)
            self.entry.bytes_sent += PIECE_BYTES
        return response

    async def _send(self, reply: Reply) -> web.StreamResponse:
        body = memoryview(reply.body)
        headers = CIMultiDict(reply.headers)
        length = len(body) if reply.length is None else reply.length
        match self.fault:
            case NoDigest():
                headers.popall("Docker-Content-Digest", None)
                headers.popall("ETag", None)
            case Corrupt(at) if body:
                flipped = bytearray(body)
                flipped[min(at, len(body) - 1)] ^= 0xFF
                body = memoryview(flipped)
            case WrongLength(by_bytes):
                length += by_bytes
        response = web.StreamResponse(status=reply.status, headers=headers)
        if isinstance(self.fault, NoLength):
            response.enable_chunked_encoding()
        elif reply.status != 304:
            response.content_length = length
        self.entry.status = reply.status
        await response.prepare(self.request)
        if self.request.method == "HEAD":
            return response
        await self._send_body(response, body)
        return response

    async def _send_body(self, response: web.StreamResponse, body: memoryview) -> None:
        stop, piece = len(body), PIECE_BYTES
        match self.fault:
            case Truncate(after_bytes):
                stop = min(after_bytes, stop)
            case Drip(bytes_per_second):
                piece = max(1, int(bytes_per_second / 20))
        position = 0
        while position < stop:
            size = min(piece, stop - position)
            match self.fault:
                case Stall(release=release, after_bytes=int(after)) | NoLength(release=release, after_bytes=after):
                    if position >= after:
                        await release.wait()
                    else:
                        size = min(size, after - position)
                case Drip(bytes_per_second):
                    await asyncio.sleep(size / bytes_per_second)
            await self.server.pace(size)
            await response.write(body[position : position + size])
            if self.entry.first_byte_at is None:
                self.entry.first_byte_at = asyncio.get_running_loop().time()
            position += size
            self.entry.bytes_sent += size
        if isinstance(self.fault, Truncate | WrongLength):
            # Closed, not aborted: what was sent arrives, then the end comes too early.
            self._transport().close()
