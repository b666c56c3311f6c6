"""aiohttp's connection handling, with this registry's errors: what is no HTTP is answered like everything else."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from mirror.logs import event
from mirror.oci.errors import Unsupported
from mirror.server.answer import Answer
from mirror.server.errors import error_answer, internal_error
from mirror.server.front import Front, Fronts, Note
from mirror.server.registry import Registry
from mirror.server.send import let_go

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """One client's connection. `is_answering` while a request of it is being answered."""

    is_answering = False

    def close(self) -> None:
        """End it with the answer that is being sent, or at once where there is none."""
        super().close()
        if not self.is_answering and self.transport is not None:
            self.transport.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The last answer of a connection whose request could not be read, or whose answer failed unforeseen.

        Raises ConnectionError, which ends the connection, where the client is gone, and where an answer has begun:
        a second one would land inside its body.
        """
        if isinstance(exc, ConnectionError):
            # The client went away, or was cut off, which is told where it is done.
            let_go(exc)
            raise ConnectionError("the answer was not sent to its end") from exc
        if isinstance(exc, HttpProcessingError):
            # Scanners send garbage all day long: nothing that an operator should read.
            event(log, logging.DEBUG, "malformed_request", remote=request.remote, reason=type(exc).__name__)
            found = _malformed(exc)
        else:
            log.error("request_failed", extra={"fields": {"target": request.path_qs[:300]}}, exc_info=exc)
            found = internal_error()
        if request.writer.output_size > 0:
            raise ConnectionError("an answer had begun")
        body = found.body if isinstance(found.body, bytes) else b""
        headers = {**found.headers, "Server": "mirror"}
        response = web.Response(status=found.status, headers=headers, body=body)
        response.force_close()
        return response


@contextmanager
def answering(request: web.BaseRequest) -> Iterator[None]:
    """Within it the request's connection is not idle; what is sent must be sent when it ends."""
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.is_answering = True
    try:
        yield
    finally:
        if isinstance(connection, Connection):
            connection.is_answering = False


class Server(web.Server):
    """Makes a connection for every client: a `Front` where there is a fast path, else a `Connection`."""

    def __init__(self, handler: Any, **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._settings = settings
        self._fronts: Fronts | None = None

    def accelerate(self, registry: Registry, note: Note) -> None:
        """Answer before aiohttp what a front understands. `note` is called for every answer."""
        self._fronts = Fronts(registry, note, self._take_over, self._settings["keepalive_timeout"])

    def __call__(self) -> Connection | Front:  # type: ignore[override]  # aiohttp only hands it to the event loop
        """What the event loop asks for each time that a client connects."""
        return self._ordinary() if self._fronts is None else self._fronts()

    @property
    def open_connections(self) -> int:
        """How many clients are connected, or have not yet got everything that was written to them."""
        return sum(1 for _ in self.transports())

    def transports(self) -> Iterator[asyncio.Transport]:
        """Of every connection, whoever answers on it now."""
        yield from self._connections.values()
        if self._fronts is not None:
            yield from self._fronts.transports()

    def pre_shutdown(self) -> None:
        """Idle connections end here, others with their answer."""
        if self._fronts is not None:
            self._fronts.close()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Cut what is left."""
        if self._fronts is not None:
            await self._fronts.abort()
        await super().shutdown(timeout)

    def _ordinary(self) -> Connection:
        return Connection(self, loop=self._loop, **self._settings)

    def _take_over(self, front: Front, data: bytes) -> None:
        connection, transport = self._ordinary(), front.transport
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if front.is_paused:
            connection.pause_writing()
            transport.resume_reading()
        connection.data_received(data)


def _malformed(error: HttpProcessingError) -> Answer:
    if isinstance(error, LineTooLong):
        return error_answer(Unsupported({"reason": "the request line or a header is too long"}), status=431)
    return error_answer(Unsupported({"reason": "this is no well-formed HTTP request"}), status=400)
