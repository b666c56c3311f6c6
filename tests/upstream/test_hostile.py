"""Servers that never come to an end, below what a registry could do by mistake."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mirror.upstream import Endpoint
from mirror.upstream.errors import BadAnswer, TimedOut, UpstreamError
from tests.upstream.conftest import Connect

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def flood(first: bytes, piece: Callable[[int], bytes]) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that sends `first` and then pieces as long as somebody takes them; the bytes sent are counted."""
    sent = [0]

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            number = 0
            while not writer.is_closing():
                writer.write(piece(number))
                sent[0] += len(piece(number))
                number += 1
                await writer.drain()
                # The client shares this loop.
                await asyncio.sleep(0)
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(send, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent


@pytest.mark.parametrize(
    ("first", "piece", "kind"),
    [
        pytest.param(b"HTTP/1.1 200 ", lambda _: b"O" * 1000, BadAnswer, id="reason"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", lambda _: b"x" * 1000, BadAnswer, id="one header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", lambda n: b"X-%d: x\r\n" % n, BadAnswer, id="many headers"),
        pytest.param(b"", lambda _: b"HTTP/1.1 103 Early Hints\r\n\r\n", (TimedOut, BadAnswer), id="hints"),
        pytest.param(HEAD + b"1;", lambda _: b"x" * 1000, (TimedOut, BadAnswer), id="chunk extension"),
        pytest.param(HEAD + b"1", lambda _: b"0" * 1000, BadAnswer, id="chunk size"),
        pytest.param(HEAD + b"0\r\n", lambda n: b"X-%d: x\r\n" % n, (TimedOut, BadAnswer), id="trailers"),
        pytest.param(HEAD, lambda _: b"1\r\n \r\n" * 100, (TimedOut, BadAnswer), id="small chunks"),
    ],
)
async def test_what_never_ends_is_left(
    connect: Connect, first: bytes, piece: Callable[[int], bytes], kind: type[UpstreamError]
) -> None:
    async with flood(first, piece) as (url, sent):
        limits = {"connect_timeout_seconds": 1, "first_byte_timeout_seconds": 1, "idle_timeout_seconds": 0.5}
        client = await connect(Endpoint(url), **limits)
        with pytest.raises(kind):
            await client.get_manifest("a", "1")
        assert sent[0] < 256 * 2**20
