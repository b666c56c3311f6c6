"""One registry behind two listeners, with and without the fast path, and conversations of raw bytes with them."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.server.http import Listener
from tests.content import LayoutWriter
from tests.server.conftest import NAME, Sample, write_sample
from tests.serving import DEADLINE_SECONDS, Mirror, serving

LAST = b"GET /healthz HTTP/1.1\r\nHost: last\r\nConnection: close\r\n\r\n"
# A server that says nothing for so long waits for more.
SILENCE_SECONDS = 1.5
RESET = b"(reset)"
LONG = "team/long"
# Its whole list has 240,000 bytes.
LONG_TAGS = 2_000

_DATE = re.compile(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")


@dataclass(frozen=True)
class Paths:
    """Both ways to the same content."""

    mirror: Mirror
    sample: Sample
    fast: Listener
    ordinary: Listener

    @property
    def ordinarily_answered(self) -> int:
        """How many requests of the fast listener went through aiohttp."""
        return self.fast._server.requests_count

    @property
    def held(self) -> int:
        """How many connections the front holds."""
        fronts = self.fast._server._fronts
        assert fronts is not None
        return len(fronts.holding)


@asynccontextmanager
async def both_paths(folder: Path, **settings: Any) -> AsyncIterator[Paths]:
    """The sample, and `team/long`, behind both."""
    sample = await asyncio.to_thread(_write, folder / "layouts")
    async with serving(folder / "mirror", layouts=[folder / "layouts"]) as mirror:
        registry = mirror.running.listener.registry
        async with (
            Listener(registry, "127.0.0.1", 0, **settings) as fast,
            Listener(registry, "127.0.0.1", 0, fast_path=False, **settings) as ordinary,
        ):
            yield Paths(mirror, sample, fast, ordinary)


def _write(layouts: Path) -> Sample:
    long = LayoutWriter(layouts / LONG)
    image = long.image([b"long"])
    for number in range(LONG_TAGS):
        long.tag(image, f"{'t' * 110}{number:06}")
    long.save()
    return write_sample(layouts)


@asynccontextmanager
async def connection(listener: Listener) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of plain bytes."""
    host, _, port = listener.url.partition("://")[2].rpartition(":")
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def answer(reader: asyncio.StreamReader, method: bytes) -> bytes:
    """One whole answer, or what came before the connection ended or fell silent."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionError:
        return b""  # it had ended when this was asked
    except TimeoutError:
        return b"(silence)"
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
    bodiless = method == b"HEAD" or head[9:12] == b"304" or length is None
    return head if bodiless or length is None else head + await reader.readexactly(int(length[1]))


async def one_by_one(listener: Listener, requests: Sequence[bytes]) -> list[bytes]:
    """The answers to requests of which each waits for the answer to the one before it, till the connection ends."""
    found = []
    async with connection(listener) as (reader, writer):
        for request in (*requests, LAST):
            if reader.at_eof() or writer.is_closing():
                break
            writer.write(request)
            found.append(undated(await answer(reader, request.partition(b" ")[0])))
        found.append(await rest(reader))
    # Whether a client that asks once more sees the end before or after that is a matter of microseconds.
    return [one for one in found if one not in (b"", RESET)]


async def together(listener: Listener, requests: Sequence[bytes]) -> bytes:
    """Everything that comes back when they are sent in one piece."""
    async with connection(listener) as (reader, writer):
        writer.write(b"".join((*requests, LAST)))
        return undated(await rest(reader))


async def rest(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await reader.read()
    except TimeoutError:
        return b"(silence)"
    except ConnectionError:
        return RESET


def undated(found: bytes) -> bytes:
    return _DATE.sub(b"Date: now", found)


def plain(target: str, method: str = "GET", *lines: str) -> bytes:
    """A request as the front knows it."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: mirror.example", *lines, "", ""]).encode()


def manifest(*lines: str, method: str = "GET") -> bytes:
    """A request that is answered from memory, once it was asked."""
    return plain(f"/v2/{NAME}/manifests/1.0", method, *lines)


async def all_that_comes(listener: Listener, request: bytes) -> bytes:
    """Of the answer, and whatever follows it, until the connection ends."""
    found = b""
    async with connection(listener) as (reader, writer):
        writer.write(request)
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                found += piece
    return undated(found)
