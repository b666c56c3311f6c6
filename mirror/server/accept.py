"""Taking in the clients that connect: many at once, however much else the event loop has to do.

An event loop's own server may take one for each of its rounds (libuv), and a round is long while many are sent to.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from mirror.logs import event

log = logging.getLogger(__name__)

# Of those that wait in the kernel, so many in one round; and how many may wait there.
_AT_ONCE = 128
_BACKLOG = 1024
# Without a descriptor to spare nobody can be taken in, and asking at once again would keep a processor busy.
_PAUSE_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def listening(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """Bound sockets, one for each address that `host` has; "" has all of this machine. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                one = socket.create_server(address, family=family, backlog=_BACKLOG, reuse_port=reuse_port)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                missing = error  # a name's address in IPv6, where the kernel has none
            else:
                one.setblocking(False)
                # For all who come: what is written in several pieces must not wait for an acknowledgement.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.append(one)
    except OSError:
        for one in sockets:
            one.close()
        raise
    if missing is not None and not sockets:
        raise missing
    return sockets


class Acceptor:
    """Gives each client that comes to one of `sockets` a protocol. They are its own from `start` on."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._sockets = sockets
        self._protocol = protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        # Those whose transport is being made, which with TLS takes a handshake.
        self._arriving: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin."""
        for one in self._sockets:
            self._loop.add_reader(one.fileno(), self._accept, one)

    async def stop(self) -> None:
        """Let nobody in any more. Who is in by then has a protocol, unless a handshake keeps it."""
        for pause in self._pauses.values():
            pause.cancel()
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())
            one.close()
        arriving = list(self._arriving)
        if self._tls is not None:
            await asyncio.sleep(0)  # each has begun, and closes its socket itself
            for task in arriving:
                task.cancel()
        await asyncio.gather(*arriving, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                event(log, logging.ERROR, "client_not_accepted", reason=error)
                self._loop.remove_reader(listening.fileno())
                self._pauses[listening] = self._loop.call_later(_PAUSE_SECONDS, self._go_on, listening)
                return
            client.setblocking(False)
            task = self._loop.create_task(self._take_in(client))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _go_on(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._loop.add_reader(listening.fileno(), self._accept, listening)

    async def _take_in(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client, ssl=self._tls)
        except OSError:
            client.close()  # it went away, or speaks another protocol: nothing that an operator should read
