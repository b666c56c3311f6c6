"""Who shares an answer, and how long what it reads from stays open."""

import asyncio
import gc
import traceback
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mirror.oci.errors import BlobUnknown, Unavailable
from mirror.server.answer import Answer, answer, origin_headers
from mirror.server.crowds import Crowds
from mirror.sources.source import LOCAL, Origin
from mirror.store.body import BlobBody, ByteStream


class Opener:
    """Opens a body once it is let; tells how often, and whether it is open."""

    def __init__(self, body: BlobBody = b"body", origin: Origin = LOCAL, error: Exception | None = None) -> None:
        self.let = asyncio.Event()
        self.opened = self.closed = 0
        self._body, self._origin, self._error = body, origin, error

    async def __call__(self, stack: AsyncExitStack) -> tuple[Answer, Origin]:
        self.opened += 1
        stack.callback(self._close)
        await self.let.wait()
        if self._error is not None:
            raise type(self._error)()
        return answer(200, origin_headers(self._origin), self._body), self._origin

    def _close(self) -> None:
        self.closed += 1


class Member:
    """One who asks, in a task of its own, and stays until it is told to leave."""

    def __init__(self, crowds: Crowds, find: Opener, generation: int = 0) -> None:
        self._leave = asyncio.Event()
        self.got: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._stay(crowds, find, generation))

    async def _stay(self, crowds: Crowds, find: Opener, generation: int) -> None:
        try:
            async with crowds.member("blob", generation, find) as found:
                self.got.set_result(found)
                await self._leave.wait()
        except BaseException as error:
            self.got.set_exception(Exception(repr(error)) if isinstance(error, asyncio.CancelledError) else error)

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def settled() -> None:
    """Every task has come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def stream(is_arriving: bool) -> ByteStream:
    async def read(start: int, stop: int) -> AsyncIterator[bytes]:
        yield bytes(stop - start)

    return ByteStream(10, read, lambda: is_arriving)


async def test_who_comes_while_it_is_opened_gets_the_same_and_the_last_one_closes_it() -> None:
    crowds, find = Crowds(), Opener()
    members = [Member(crowds, find) for _ in range(5)]
    await settled()
    assert not any(member.got.done() for member in members)
    find.let.set()
    assert len({id(await member.got) for member in members}) == 1
    for member in members:
        assert (find.opened, find.closed) == (1, 0)
        await member.leave()
    assert (find.opened, find.closed) == (1, 1)
    assert not crowds._crowds


@pytest.mark.parametrize(
    ("body", "opened"), [(b"body", 2), (stream(is_arriving=False), 2), (stream(is_arriving=True), 1)]
)
async def test_who_comes_later_gets_the_same_only_while_it_arrives(body: BlobBody, opened: int) -> None:
    crowds, find = Crowds(), Opener(body)
    find.let.set()
    first = Member(crowds, find)
    await first.got
    second = Member(crowds, find)
    await second.got
    assert find.opened == opened
    await first.leave()
    await second.leave()
    assert find.closed == opened
    assert not crowds._crowds


async def test_what_changed_meanwhile_is_opened_anew() -> None:
    crowds, before, after = Crowds(), Opener(), Opener(b"other")
    old, new = Member(crowds, before, 1), Member(crowds, after, 2)
    before.let.set()
    after.let.set()
    assert ((await old.got).body, (await new.got).body) == (b"body", b"other")
    await old.leave()
    await new.leave()
    assert (before.closed, after.closed) == (1, 1)


async def test_an_error_is_everybodys_and_nobody_elses() -> None:
    crowds, find = Crowds(), Opener(error=BlobUnknown())
    members = [Member(crowds, find) for _ in range(3)]
    await settled()
    find.let.set()
    for member in members:
        with pytest.raises(BlobUnknown):
            await member.got
    assert (find.opened, find.closed) == (1, 1)
    late = Opener()
    late.let.set()
    member = Member(crowds, late)
    assert (await member.got).body == b"body"
    await member.leave()


async def test_an_error_leaves_nothing_behind_and_grows_with_nobody() -> None:
    crowds, find = Crowds(), Opener(error=BlobUnknown())

    async def refused() -> int:
        try:
            async with crowds.member("blob", 0, find):
                return 0
        except BlobUnknown as error:
            return len(traceback.extract_tb(error.__traceback__))

    asking = [asyncio.create_task(refused()) for _ in range(50)]
    await settled()
    held = [weakref.ref(crowd) for crowd in crowds._crowds.values()]
    gc.disable()
    try:
        find.let.set()
        lengths = await asyncio.gather(*asking)
        assert 0 < min(lengths) <= max(lengths) < 10
        assert [one() for one in held] == [None]
    finally:
        gc.enable()


async def test_who_waits_for_one_that_is_cancelled_is_not_left_waiting() -> None:
    crowds, find = Crowds(), Opener()
    first, second = Member(crowds, find), Member(crowds, find)
    await settled()
    first.task.cancel()
    with pytest.raises(Exception, match="CancelledError"):
        await first.got
    with pytest.raises(Unavailable):
        await second.got
    assert (find.opened, find.closed) == (1, 1)


async def test_one_who_gives_up_waiting_takes_nothing_from_the_others() -> None:
    crowds, find = Crowds(), Opener()
    first, second, third = (Member(crowds, find) for _ in range(3))
    await settled()
    second.task.cancel()
    with pytest.raises(Exception, match="CancelledError"):
        await second.got
    find.let.set()
    assert (await first.got) is (await third.got)
    await first.leave()
    assert find.closed == 0
    await third.leave()
    assert find.closed == 1


@pytest.mark.parametrize(
    ("status", "others"),
    [
        ("hit", "hit"),
        ("fwd=uri-miss; stored", "fwd=uri-miss; collapsed"),
        ("fwd=uri-miss", "fwd=uri-miss; collapsed"),
    ],
)
async def test_cache_status_tells_whose_request_was_forwarded(status: str, others: str) -> None:
    crowds, find = Crowds(), Opener(stream(is_arriving=True), Origin(status, fresh_until=0))
    first, second = Member(crowds, find), Member(crowds, find)
    find.let.set()
    assert (await first.got).headers["Cache-Status"] == f"mirror; {status}"
    assert (await second.got).headers["Cache-Status"] == f"mirror; {others}"
    await first.leave()
    await second.leave()
