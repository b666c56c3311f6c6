"""Clients that come: all that wait are taken in at once, on either event loop; none of them ends the listening."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mirror.server.accept import Acceptor, listening
from tests.hub import Authority
from tests.running import get, raw, wait_until
from tests.server_process import MirrorProcess

CLIENTS = 100
# Accepting, making a transport, telling its protocol.
ROUNDS = 10

LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@LOOPS
def test_all_who_wait_are_taken_in_within_a_few_rounds_of_the_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """One for each round would hold up a crowd as long as everybody before it is sent to."""
    made: list[asyncio.BaseTransport] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def crowd() -> int:
        sockets = await listening("127.0.0.1", 0, reuse_port=False)
        acceptor = Acceptor(sockets, Client, None)
        with ExitStack() as stack:
            for _ in range(CLIENTS):
                client = stack.enter_context(socket.socket())
                client.connect(sockets[0].getsockname())
            acceptor.start()
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            taken = len(made)
            for transport in made:
                own = transport.get_extra_info("socket")
                # Else the end of a body in several pieces waits for the client to acknowledge what is before it.
                assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await acceptor.stop()
            for transport in made:
                transport.close()
            await asyncio.sleep(0)
        return taken

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(crowd()) == CLIENTS


async def test_an_address_of_a_kind_that_the_kernel_has_not_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int, **settings: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return create(address, family=family, **settings)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    for one in await listening("", 0, reuse_port=False):
        with one:
            assert one.family == socket.AF_INET
    with pytest.raises(OSError, match="no IPv6"):
        await listening("::1", 0, reuse_port=False)


def test_without_descriptors_to_spare_clients_wait_and_are_served_later(tmp_path: Path) -> None:
    with MirrorProcess(tmp_path / "mirror.log") as mirror:
        host, _, port = mirror.host.rpartition(":")
        assert get(mirror.host, "/healthz").status == 200
        _, hard = resource.prlimit(mirror.pid, resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir(f"/proc/{mirror.pid}/fd")))
        resource.prlimit(mirror.pid, resource.RLIMIT_NOFILE, (highest + 3, hard))
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection((host, int(port))))
            wait_until(lambda: bool(mirror.events("client_not_accepted")), "the log tells of it")
        wait_until(lambda: get(mirror.host, "/healthz").status == 200, "those who come later are served")
        assert len(mirror.events("client_not_accepted")) < 10, "not again and again"


def test_who_speaks_no_tls_where_it_is_spoken_is_let_go_without_a_word(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("localhost", "127.0.0.1")
    config = tmp_path / "config.yaml"
    config.write_text(f"tls: {{cert: {cert}, key: {key}}}")
    with MirrorProcess(tmp_path / "mirror.log", "--config", str(config)) as mirror:
        wait_until(lambda: bool(mirror.events("serving")), "what it says at its start is said")
        said = len(mirror.events())
        for sent in (b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", bytes(500), b"\x16\x03\x01" + bytes(500)):
            assert b"HTTP" not in raw(mirror.host, sent)
        assert mirror.events()[said:] == []
        assert "Traceback" not in mirror.log.read_text()
