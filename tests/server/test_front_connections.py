"""How connections of the fast path end, wait and fail: slow clients, idle ones, the mirror's own end."""

import asyncio
import socket
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.oci.errors import BadGateway
from mirror.server.answer import Answer
from mirror.server.answer import answer as reply
from mirror.server.http import Listener
from mirror.server.registry import Pending
from mirror.store.body import ByteStream
from tests.running import open_below
from tests.server.conftest import NAME
from tests.server.paths import (
    LONG,
    RESET,
    Paths,
    all_that_comes,
    answer,
    both_paths,
    connection,
    manifest,
    one_by_one,
    plain,
    rest,
    undated,
)
from tests.serving import DEADLINE_SECONDS, until


async def test_a_client_that_does_not_read_holds_no_more_than_a_few_answers(tmp_path: Path) -> None:
    async with both_paths(tmp_path) as paths:
        asked = plain(f"/v2/{LONG}/tags/list")
        size = len((await one_by_one(paths.fast, [asked]))[0])
        assert size > 200_000
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = paths.fast.url.partition("://")[2].rpartition(":")
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=client, limit=2 * size)
        try:
            for _ in range(200):
                writer.write(asked)
            await until(lambda: bool(waiting(paths)))
            for _ in range(100):
                await asyncio.sleep(0.001)
                assert max(waiting(paths), default=0) < 3 * size
            for _ in range(200):
                assert len(undated(await answer(reader, b"GET"))) == size
        finally:
            writer.close()


def waiting(paths: Paths) -> list[int]:
    """Bytes that wait for each client of the fast listener."""
    sizes = [transport.get_write_buffer_size() for transport in paths.fast._server.transports()]
    return [size for size in sizes if size]


async def test_a_client_that_does_not_read_heads_holds_no_more_than_a_few_either(tmp_path: Path) -> None:
    """Of a blob that lies on disk, so that each is found anew."""
    async with both_paths(tmp_path) as paths:
        asked = plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}", "HEAD")
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = paths.fast.url.partition("://")[2].rpartition(":")
        await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=client, limit=1024)
        try:
            # More than the sockets take; in pieces, since a head that comes in two would be aiohttp's.
            for _ in range(300):
                writer.write(asked * 50)
                await asyncio.sleep(0)
            await until(lambda: bool(waiting(paths)))
            for _ in range(1000):
                await asyncio.sleep(0.001)
                assert max(waiting(paths), default=0) < 100_000
            for _ in range(300 * 50):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()


async def test_the_end_closes_idle_connections_at_once_and_waits_for_unsent_bytes(tmp_path: Path) -> None:
    async with both_paths(tmp_path) as paths:
        asked = plain(f"/v2/{LONG}/tags/list")
        whole = (await one_by_one(paths.fast, [asked]))[0]
        registry = paths.mirror.running.listener.registry
        listener = Listener(registry, "127.0.0.1", 0, shutdown_timeout_seconds=DEADLINE_SECONDS)
        await listener.__aenter__()
        async with connection(listener) as (idle, idle_writer):
            idle_writer.write(manifest())
            await answer(idle, b"GET")
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, _, port = listener.url.partition("://")[2].rpartition(":")
            await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            assert listener._server._fronts is not None
            fronts = listener._server._fronts.holding
            await until(lambda: len(fronts) == 2)
            for front in fronts:
                front.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await loop.sock_sendall(client, asked)
            await until(lambda: any(front.is_paused for front in fronts))
            ending = asyncio.create_task(listener.__aexit__())
            assert await idle.read() == b""
            assert not ending.done()
            got = b""
            while piece := await loop.sock_recv(client, 65536):
                got += piece
            client.close()
            await ending
        assert undated(got) == whole


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(tmp_path: Path) -> None:
    async with (
        both_paths(tmp_path, idle_timeout_seconds=1) as paths,
        connection(paths.fast) as (idle, _),
        connection(paths.fast) as (busy, writer),
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        closing = asyncio.create_task(idle.read())
        while not closing.done() or loop.time() - began < 1.5:
            writer.write(manifest())
            assert (await answer(busy, b"GET")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.05)
        assert await closing == b""
        assert await busy.read() == b"", "and then it is idle itself"


async def test_who_breaks_off_leaves_no_descriptor_open(tmp_path: Path) -> None:
    async with both_paths(tmp_path) as paths:
        blob = plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}")
        for _ in range(1000):
            async with connection(paths.fast) as (reader, writer):
                writer.write(blob)
                await reader.readuntil(b"\r\n\r\n")
                writer.transport.abort()
        await until(lambda: not open_below(tmp_path / "layouts"))
        await until(lambda: paths.fast._server.open_connections == 0)


@pytest.mark.parametrize("begun", [False, True])
async def test_an_answer_that_fails_unforeseen_ends_as_on_the_ordinary_path(
    tmp_path: Path, begun: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its head an error and the end of the connection, within its body a cut."""

    async def broken(start: int, stop: int) -> AsyncIterator[bytes]:
        yield bytes(100)
        await asyncio.sleep(0)
        raise RuntimeError("unforeseen")

    @asynccontextmanager
    async def failing() -> AsyncIterator[Answer]:
        if not begun:
            raise RuntimeError("unforeseen")
        yield reply(200, {"Content-Type": "a/b"}, ByteStream(1000, broken, lambda: True))

    async with both_paths(tmp_path) as paths:
        monkeypatch.setattr(paths.fast.registry, "find", lambda request: Pending(failing))
        found = [await all_that_comes(listener, manifest()) for listener in (paths.fast, paths.ordinary)]
        assert found[0] == found[1]
        assert found[0].startswith(b"HTTP/1.1 200" if begun else b"HTTP/1.1 500")
        assert caplog.text.count("unforeseen") >= 2
        await until(lambda: paths.fast._server.open_connections == 0)


async def test_a_head_that_was_not_sent_yet_is_not_followed_by_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the first piece of its body, and that fails: the error comes in its place."""

    async def broken(start: int, stop: int) -> AsyncIterator[bytes]:
        if start < stop:
            raise RuntimeError("unforeseen")
        yield b""

    @asynccontextmanager
    async def failing() -> AsyncIterator[Answer]:
        yield reply(200, {"Content-Type": "a/b"}, ByteStream(1000, broken, lambda: True))

    async with both_paths(tmp_path) as paths:
        monkeypatch.setattr(paths.fast.registry, "find", lambda request: Pending(failing))
        found = await all_that_comes(paths.fast, manifest())
    assert found.startswith(b"HTTP/1.1 500")
    assert found.count(b"HTTP/1.1") == 1


async def test_an_error_that_many_meet_holds_nothing_of_any_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fill that failed keeps its error; what each of its readers was being sent is not to be kept with it."""
    error = BadGateway({"reason": "the answer ended early"})

    async def broken(start: int, stop: int) -> AsyncIterator[bytes]:
        piece = bytes(100)
        yield piece
        raise error

    @asynccontextmanager
    async def failing() -> AsyncIterator[Answer]:
        yield reply(200, {"Content-Type": "a/b"}, ByteStream(1000, broken, lambda: True))

    async with both_paths(tmp_path) as paths:
        monkeypatch.setattr(paths.fast.registry, "find", lambda request: Pending(failing))
        assert (await all_that_comes(paths.fast, manifest())).startswith(b"HTTP/1.1 200")
        await until(lambda: paths.fast._server.open_connections == 0)
    held = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert held
    assert not any("piece" in one or "chunk" in one for one in held)


async def test_an_answer_that_takes_longer_than_idle_connections_last_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def late() -> AsyncIterator[Answer]:
        await asyncio.sleep(1.5)
        yield reply(200, {}, b"late")

    async with both_paths(tmp_path, idle_timeout_seconds=1) as paths:
        monkeypatch.setattr(paths.fast.registry, "find", lambda request: Pending(late))
        async with connection(paths.fast) as (reader, writer):
            writer.write(manifest())
            assert (await reader.readexactly(12)).startswith(b"HTTP/1.1 200")


async def test_the_end_cuts_what_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    @asynccontextmanager
    async def endless() -> AsyncIterator[Answer]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        yield reply(200, {}, b"never")

    async with both_paths(tmp_path) as paths:
        registry = paths.mirror.running.listener.registry
        monkeypatch.setattr(registry, "find", lambda request: Pending(endless))
        listener = Listener(registry, "127.0.0.1", 0, shutdown_timeout_seconds=0.1)
        await listener.__aenter__()
        async with connection(listener) as (reader, writer):
            writer.write(manifest())
            fronts = listener._server._fronts
            assert fronts is not None
            await until(lambda: bool(fronts.deliveries.holding))
            await listener.__aexit__()
            assert ended.is_set()
            assert await rest(reader) in (b"", RESET)


async def test_who_asks_when_a_process_goes_on_that_was_stopped_is_not_idle(tmp_path: Path) -> None:
    async with both_paths(tmp_path, idle_timeout_seconds=1) as paths, connection(paths.fast) as (reader, writer):
        writer.write(manifest())
        await answer(reader, b"GET")
        writer.write(manifest())
        time.sleep(1.5)  # noqa: ASYNC251 the loop stands still, as that of a stopped process does
        await answer(reader, b"GET")
        await asyncio.sleep(0.4)
        writer.write(manifest())
        assert (await answer(reader, b"GET")).startswith(b"HTTP/1.1 200 OK\r\n")
