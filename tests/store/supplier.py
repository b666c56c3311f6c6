"""An upstream for the tests of fills: real bytes, and the faults that a test asks for, at the byte it names."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mirror.oci.digest import Digest
from mirror.store.feed import Incoming
from mirror.store.pull import Pull

MIB = 1024 * 1024


def make_content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class Answer:
    """How one request is answered. `cut_after` and `gate_at` are positions in the blob."""

    content: bytes | None = None
    cut_after: int | None = None
    gate_at: int | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    ignores_range: bool = False
    total_size: int | None = -1
    error: Exception | None = None
    # Waited for before anything is answered.
    before: asyncio.Event | None = None


@dataclass
class Supplier:
    """Its `fetch` answers each request by the next of `answers`, and with all of the content after those."""

    content: bytes
    answers: list[Answer] = field(default_factory=list)
    chunk_bytes: int = 64 * 1024
    asked: list[tuple[int, str | None]] = field(default_factory=list)
    sent_bytes: int = 0
    sent_to: int = 0
    open_answers: int = 0
    on_sent: Callable[[int], None] = lambda position: None

    @property
    def digest(self) -> Digest:
        return Digest.of(self.content)

    @asynccontextmanager
    async def fetch(self, offset: int, etag: str | None, stop: int | None = None) -> AsyncGenerator[Incoming, None]:
        answer = self.answers[len(self.asked)] if len(self.asked) < len(self.answers) else Answer()
        self.asked.append((offset, etag))
        await asyncio.sleep(0)
        if answer.before is not None:
            await answer.before.wait()
        if answer.error is not None and answer.cut_after is None:
            raise answer.error
        content = self.content if answer.content is None else answer.content
        start = 0 if answer.ignores_range else offset
        total = len(content) if answer.total_size == -1 else answer.total_size
        self.open_answers += 1
        try:
            sent = content if answer.ignores_range else content[:stop]
            yield Incoming(start, total, '"tag"', self._chunks(sent, start, answer))
        finally:
            self.open_answers -= 1

    async def _chunks(self, content: bytes, start: int, answer: Answer) -> AsyncGenerator[bytes, None]:
        position = start
        stops = sorted({answer.cut_after, answer.gate_at, len(content)} - {None}, key=lambda stop: stop or 0)
        for stop in stops:
            assert stop is not None
            while position < stop:
                chunk = content[position : min(position + self.chunk_bytes, stop)]
                position += len(chunk)
                self.sent_bytes += len(chunk)
                yield chunk
                self.sent_to = position
                self.on_sent(position)
                await asyncio.sleep(0)
            if stop == answer.gate_at:
                await answer.gate.wait()
            if stop == answer.cut_after:
                raise answer.error or ConnectionResetError("cut")


async def read_all(pull: Pull, start: int = 0, stop: int | None = None) -> bytes:
    size = await pull.started()
    return b"".join([piece async for piece in pull.body.read(start, size if stop is None else stop)])


async def drain(pull: Pull, into: bytearray, start: int = 0) -> None:
    """As `read_all`, for tests that look at what has come so far."""
    size = await pull.started()
    async for piece in pull.body.read(start, size):
        into.extend(piece)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll a condition, with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 conditions of files and processes have no event
            await asyncio.sleep(0.002)
