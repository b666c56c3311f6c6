"""Clients that take nothing are let go of; clients that take little are not."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mirror.server.http import Listener, TlsFiles
from tests.hub import Authority
from tests.running import open_below
from tests.server.conftest import NAME
from tests.server.paths import LONG, Paths, both_paths, plain
from tests.serving import until

TIMEOUT_SECONDS = 1.0
# More than the buffers of any socket here.
ANSWERS = 60

Way = Callable[[Paths], tuple[Listener, bytes]]


def from_memory(paths: Paths) -> tuple[Listener, bytes]:
    return paths.fast, plain(f"/v2/{LONG}/tags/list")


def from_disk(paths: Paths) -> tuple[Listener, bytes]:
    return paths.fast, plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}")


def ordinarily(paths: Paths) -> tuple[Listener, bytes]:
    return paths.ordinary, plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}")


WAYS = pytest.mark.parametrize("way", [from_memory, from_disk, ordinarily])


@asynccontextmanager
async def asking(
    listener: Listener, request: bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[asyncio.StreamReader]:
    """A client that asked for more than its buffers hold, and reads nothing by itself."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    host, _, port = listener.url.partition("://")[2].rpartition(":")
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    name = "localhost" if tls else None
    reader, writer = await asyncio.open_connection(sock=client, limit=2048, ssl=tls, server_hostname=name)
    try:
        writer.write(request * ANSWERS)
        await until(lambda: any(one.get_write_buffer_size() for one in listener._server.transports()))
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await writer.wait_closed()


@WAYS
@pytest.mark.parametrize("encrypted", [False, True])
async def test_who_takes_nothing_is_cut_and_leaves_nothing_open(
    tmp_path: Path, way: Way, encrypted: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files, trusting = None, None
    if encrypted:
        files = TlsFiles(*map(str, authority.issue("localhost")))
        trusting = ssl.create_default_context(cafile=authority.ca)
    async with both_paths(tmp_path, send_timeout_seconds=TIMEOUT_SECONDS, tls=files) as paths:
        listener, request = way(paths)
        async with asking(listener, request, trusting):
            await until(lambda: listener._server.open_connections == 0)
        await until(lambda: not open_below(tmp_path / "layouts"))
    (cut,) = [record.__dict__["fields"] for record in caplog.records if record.message == "client_takes_nothing"]
    assert cut == {"remote": "127.0.0.1", "seconds": TIMEOUT_SECONDS}
    assert "Traceback" not in caplog.text


@WAYS
async def test_who_takes_little_gets_everything(tmp_path: Path, way: Way) -> None:
    async with both_paths(tmp_path, send_timeout_seconds=TIMEOUT_SECONDS) as paths:
        listener, request = way(paths)
        # What the answers come to is told by a client that takes everything at once.
        async with asking(paths.ordinary, request) as reader:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        async with asking(listener, request) as reader:
            loop = asyncio.get_running_loop()
            began, taken = loop.time(), 0
            while loop.time() - began < 3 * TIMEOUT_SECONDS:
                taken += len(await reader.read(1024))
                await asyncio.sleep(TIMEOUT_SECONDS / 50)
            assert taken < length, "it is slow"
            rest = await reader.readexactly(ANSWERS * (len(head) + length) - taken)
            assert len(rest) > taken
