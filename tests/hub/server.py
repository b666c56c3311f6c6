"""What every server of the tests shares: a port, a request log, faults, a bandwidth limit."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from typing import Self

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.hub.faults import (
    BlackHole,
    Corrupt,
    Drip,
    EndlessHeaders,
    Fault,
    NoDigest,
    Oversized,
    Redirect,
    RedirectLoop,
    Reset,
    Rule,
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


# How long a sender that was held up (a busy machine, a slow reader) may catch up for, as buffers on a way let it.
_BURST_SECONDS = 0.2


class Throttle:
    """A bandwidth shared by all connections of a server."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def take(self, amount: int) -> None:
        """Wait until `amount` bytes may be sent."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(now - _BURST_SECONDS, self._free_at) + amount / self._rate
        await asyncio.sleep(max(0, self._free_at - now))


class Server:
    """An HTTP server on a port of its own. Subclasses answer in `reply`.

    `requests` logs what came; `count` counts in it; `fault` makes the matching requests fail.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        self.requests: list[Logged] = []
        self.rules: list[Rule] = []
        self.address = address
        self.port = 0
        self._tls = tls
        self._throttle = Throttle(bytes_per_second) if bytes_per_second else None
        self._listener: asyncio.Server | None = None
        self._runner: web.ServerRunner | None = None
        self._closing = asyncio.Event()
        self._fresh = count()
        self._seen: set[object] = set()

    @property
    def host(self) -> str:
        """`address:port`."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections a request came on."""
        return len(self._seen)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}"

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self._closing.set()
        if self._listener is not None:
            self._listener.close()
        self.hang_up()
        await self._runner.cleanup()

    async def accept(self) -> None:
        """Listen: on a free port the first time, on the same one after `refuse`."""
        assert self._runner is not None
        assert self._runner.server is not None
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.address, self.port))
        self.port = listening.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._runner.server, sock=listening, ssl=self._tls, backlog=512)

    async def refuse(self) -> None:
        """Close the port and every open connection, until `accept`: connections are refused."""
        assert self._listener is not None
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Drop every open connection; the port stays open."""
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def fault(
        self,
        fault: Fault,
        *,
        kind: str | None = None,
        method: str | None = None,
        path: str = "*",
        times: int | None = None,
        skip: int = 0,
    ) -> Rule:
        """Make matching requests fail: the next `times` of them after `skip` (None: until `heal`).

        `kind` is ping, manifest, blob, tags, referrers, token, upload, other; `path` a glob. The first rule that
        matches wins; `rule.hits` counts.
        """
        rule = Rule(fault, kind, method, path, times, skip)
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget every fault."""
        self.rules.clear()

    def select(self, method: str | None = None, path: str = "*", kind: str | None = None) -> list[Logged]:
        """The logged requests of that method, path glob and kind."""
        return [
            entry
            for entry in self.requests
            if method in (None, entry.method) and kind in (None, entry.kind) and fnmatchcase(entry.path, path)
        ]

    def count(self, method: str | None = None, path: str = "*", kind: str | None = None) -> int:
        """How many requests of that method, path glob and kind came."""
        return len(self.select(method, path, kind))

    def kind_of(self, path: str) -> str:
        """The kind of a path, for faults and counts."""
        return "other"

    async def reply(self, request: web.BaseRequest, fault: Fault | None) -> Reply:
        """What to answer. `fault` is passed for those that only the subclass can act out."""
        raise NotImplementedError

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        kind = self.kind_of(path)
        headers = CIMultiDictProxy(CIMultiDict(request.headers))
        started = asyncio.get_running_loop().time()
        entry = Logged(request.method, path, dict(request.query), headers, kind, started)
        self.requests.append(entry)
        self._seen.add(request.protocol)
        rule = next((rule for rule in self.rules if rule.take(kind, request.method, path)), None)
        fault = rule.fault if rule else None
        return await Delivery(self, request, entry, fault).run()

    async def pace(self, amount: int) -> None:
        """Wait until the bandwidth limit lets `amount` bytes through."""
        if self._throttle:
            await self._throttle.take(amount)

    async def closing(self) -> None:
        """Wait until the server closes."""
        await self._closing.wait()

    def fresh_number(self) -> int:
        return next(self._fresh)


class Delivery:
    """One answer on its way, with the fault acted out."""

    def __init__(self, server: Server, request: web.BaseRequest, entry: Logged, fault: Fault | None) -> None:
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
        if reply.status != 304:
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
                case Stall(release=release, after_bytes=int(after)):
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
