"""What every server of the tests shares: a port, a request log, faults, a bandwidth limit."""

import asyncio
import socket
import ssl
from fnmatch import fnmatchcase
from itertools import count
from typing import Self

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.hub.delivery import Delivery, Logged, Reply
from tests.hub.faults import Fault, Rule

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
        self._held: socket.socket | None = None
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
        if self._held is not None:
            self._held.close()
        self.hang_up()
        await self._runner.cleanup()

    async def accept(self) -> None:
        """Listen: on a free port the first time, on the same one after `refuse`."""
        assert self._runner is not None
        assert self._runner.server is not None
        listening, self._held = self._held or self._bind(), None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._runner.server, sock=listening, ssl=self._tls, backlog=512)

    async def refuse(self) -> None:
        """Close the port and every open connection, until `accept`: connections are refused."""
        assert self._listener is not None
        self._listener.close()
        self.hang_up()
        # Bound, not listening: refused all the same, and nobody else gets the port.
        self._held = self._bind()

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.address, self.port))
        self.port = bound.getsockname()[1]
        return bound

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
