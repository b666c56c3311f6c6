"""The listener: takes clients in, answers them around `find`, rereads TLS, ends gracefully."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from aiohttp import web

from mirror.logs import event
from mirror.server.accept import Acceptor, listening
from mirror.server.access_log import AccessLog
from mirror.server.answer import Answer
from mirror.server.outlet import AiohttpOutlet
from mirror.server.protocol import Server, answering
from mirror.server.registry import Registry
from mirror.server.request import Request
from mirror.server.send import respond
from mirror.server.stalls import SEND_TIMEOUT_SECONDS, Stalls

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the listener's certificate chain and its key."""

    cert: str
    key: str


class Listener:
    """One port that answers from a registry. Enter it to listen."""

    def __init__(
        self,
        registry: Registry,
        host: str,
        port: int,
        *,
        tls: TlsFiles | None = None,
        shutdown_timeout_seconds: float = 20,
        idle_timeout_seconds: float = 75,
        send_timeout_seconds: float = SEND_TIMEOUT_SECONDS,
        access_log: bool = False,
        fast_path: bool = True,
        reuse_port: bool = False,
        on_stopping: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.registry = registry
        self._host, self._port = host, port
        self._tls = tls
        self._context = _tls_context(tls) if tls else None
        self._shutdown_timeout_seconds = shutdown_timeout_seconds
        self._idle_timeout_seconds = idle_timeout_seconds
        self._send_timeout_seconds = send_timeout_seconds
        self._access_log = AccessLog() if access_log else None
        self._fast_path = fast_path
        self._reuse_port = reuse_port
        self._on_stopping = on_stopping
        self._server: Server
        self._stalls: Stalls
        self._acceptor: Acceptor
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = Server(
            self._handle,
            access_log=None,
            # Counted from the last answer: also the time that a slowly sent head may take.
            keepalive_timeout=self._idle_timeout_seconds,
            # What is pushed is refused; so long its body is read on, for the client to come to the answer.
            lingering_time=2,
        )
        if self._fast_path:
            self._server.accelerate(self.registry, self._note)
        sockets = await listening(self._host, self._port, reuse_port=self._reuse_port)
        host, port = sockets[0].getsockname()[:2]
        self._acceptor = Acceptor(sockets, self._server, self._context)
        self._acceptor.start()
        self._stalls = Stalls(self._server.transports, self._send_timeout_seconds)
        self._stalls.start()
        self.url = f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops accepting, finishes what is being sent within the time-out, then cuts the rest."""
        await self._acceptor.stop()
        self._server.pre_shutdown()  # idle connections end here, others with their answer
        if self._on_stopping is not None:
            await self._on_stopping()
        try:
            async with asyncio.timeout(self._shutdown_timeout_seconds):
                # A connection stays until its last byte has left: an answer that was written is not yet sent.
                while self._server.open_connections:  # noqa: ASYNC110 there is no event for it
                    await asyncio.sleep(0.01)
        except TimeoutError:
            event(log, logging.WARNING, "answers_cut_at_shutdown", count=self._server.open_connections)
        self._stalls.stop()
        # What is left now is cut, not waited for again.
        await self._server.shutdown(0.1)
        if self._access_log is not None:
            self._access_log.flush()

    async def reload_tls(self) -> None:
        """Read certificate and key again: new connections get them, running ones stay. Bad files change nothing."""
        if self._tls is None or self._context is None:
            return
        try:
            # Into a context of its own first, so that a pair that does not match spoils nothing.
            await asyncio.to_thread(_tls_context, self._tls)
            _load(self._context, self._tls)
        except OSError as error:
            event(log, logging.ERROR, "tls_not_reread", cert=self._tls.cert, key=self._tls.key, reason=str(error))
        else:
            event(log, logging.INFO, "tls_reread", cert=self._tls.cert)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        with answering(request):
            asked = Request.read(request.method, request.raw_path, request.headers)
            outlet = AiohttpOutlet(request)
            note = partial(self._note, asked, request.remote)
            await respond(outlet, asked.target, self.registry.find(asked), note)
            return outlet.response

    def _note(self, request: Request, remote: str | None, answer: Answer) -> None:
        """Count and log an answer that goes out."""
        self.registry.sent(request.method, answer)
        if self._access_log is not None:
            self._access_log.note(request, answer, remote)


def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Raises OSError, which names the files, where they are no certificate and its key."""
    try:
        # A key that needs a passphrase is an error: OpenSSL would ask for it on the terminal, and wait.
        context.load_cert_chain(files.cert, files.key, password="")
    except OSError as error:
        raise OSError(f"tls: {files.cert} and {files.key}: {error}") from None
