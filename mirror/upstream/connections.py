"""HTTP connections of one endpoint: to itself, to its token services, and to hosts that redirects lead to."""

import asyncio
import ssl
from types import SimpleNamespace
from typing import Literal

from aiohttp import (
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    ThreadedResolver,
    TraceConfig,
    TraceRequestHeadersSentParams,
)

from mirror import __version__
from mirror.upstream.addresses import AddressGate
from mirror.upstream.errors import Refused
from mirror.upstream.settings import TlsSettings, UpstreamSettings

USER_AGENT = f"mirror/{__version__}"
# What one read takes from a socket at most; the blobs are what it is for.
READ_BYTES = 256 * 1024

Role = Literal["own", "realm", "elsewhere"]


def tls_context(settings: TlsSettings, *, with_certificate: bool) -> ssl.SSLContext:
    """The context for connections out. Reads files and takes some 20 ms: not in the event loop.

    Raises OSError, which names the file, where one cannot be used.
    """
    context = ssl.create_default_context()
    if settings.ca is not None:
        try:
            context.load_verify_locations(settings.ca)
        except OSError as error:
            raise OSError(f"ca: {settings.ca}: {error}") from None
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if with_certificate and settings.client_cert is not None:
        try:
            # A key that needs a passphrase is an error: OpenSSL would ask for it on the terminal, and wait.
            context.load_cert_chain(settings.client_cert, settings.client_key, password="")
        except OSError as error:
            key = f" and client_key: {settings.client_key}" if settings.client_key else ""
            raise OSError(f"client_cert: {settings.client_cert}{key}: {error}") from None
    return context


def first_byte_timed(seconds: float) -> TraceConfig:
    """Has the time-out that a request brings as its context run for so long from when its head was sent."""

    async def sent(session: ClientSession, context: SimpleNamespace, params: TraceRequestHeadersSentParams) -> None:
        running = context.trace_request_ctx
        if isinstance(running, asyncio.Timeout) and not running.expired():
            running.reschedule(asyncio.get_running_loop().time() + seconds)

    trace = TraceConfig()
    trace.on_request_headers_sent.append(sent)
    return trace


class Connections:
    """One session per role, opened when first needed.

    `own` and `realm` show the client certificate, `elsewhere` never does, and connects only where the gate allows.
    No session keeps cookies, reads the environment, follows redirects by itself or unpacks what it reads.
    """

    def __init__(self, settings: UpstreamSettings, own_tls: ssl.SSLContext, other_tls: ssl.SSLContext) -> None:
        self.settings = settings
        self._tls = {"own": own_tls, "realm": own_tls, "elsewhere": other_tls}
        self._sessions: dict[Role, ClientSession] = {}
        self._closed = False
        self.gate = AddressGate()

    def session(self, role: Role) -> ClientSession:
        """The session of that role; call in the event loop. Raises Refused once closed."""
        if self._closed:
            raise Refused(self.settings.host, "the client is closed")
        if role not in self._sessions:
            self._sessions[role] = self._open(role)
        return self._sessions[role]

    def _open(self, role: Role) -> ClientSession:
        # Through a proxy, the socket is the proxy's, and the proxy looks names up.
        factory = None
        if self.settings.proxy_url is None:
            factory = {"own": self.gate.own_socket, "elsewhere": self.gate.checked_socket}.get(role)
        connector = TCPConnector(
            limit=0,  # bounded by the client, by kind of request
            ssl=self._tls[role],
            resolver=ThreadedResolver(),
            socket_factory=factory,
        )
        return ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            # Head and body are timed where they are read. `connect` covers DNS, TCP, proxy and TLS.
            timeout=ClientTimeout(total=None, connect=self.settings.connect_timeout_seconds),
            auto_decompress=False,
            trust_env=False,
            proxy=self.settings.proxy_url,
            read_bufsize=READ_BYTES,
            trace_configs=[first_byte_timed(self.settings.first_byte_timeout_seconds)],
        )

    async def close(self) -> None:
        self._closed = True
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()
