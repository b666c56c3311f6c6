"""aiohttp's connection handling, with this registry's errors: what is no HTTP is answered like everything else."""

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
    """Makes a `Connection` for every client."""

    def __init__(self, handler: Any, **settings: Any) -> None:
        super().__init__(handler, **settings)
        self._settings = settings

    def __call__(self) -> Connection:
        """What the event loop asks for each time that a client connects."""
        return Connection(self, loop=self._loop, **self._settings)


def _malformed(error: HttpProcessingError) -> Answer:
    if isinstance(error, LineTooLong):
        return error_answer(Unsupported({"reason": "the request line or a header is too long"}), status=431)
    return error_answer(Unsupported({"reason": "this is no well-formed HTTP request"}), status=400)
