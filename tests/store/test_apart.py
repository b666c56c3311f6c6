"""Reads far ahead of a fill: what may be fetched apart for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.oci.errors import BadGateway
from mirror.store.blobs import BlobStore
from mirror.store.feed import Patience
from mirror.store.job import Limits
from tests.store.supplier import MIB, Answer, Supplier, drain, make_content, read_all, until

QUICK = Limits(patience=Patience(first_pause_seconds=0.001))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path, QUICK)
    yield store
    await store.stop()


async def test_far_range_begins_with_one_request_of_its_own_and_goes_on_with_the_fill(store: BlobStore) -> None:
    content = make_content(20 * MIB)
    fill_answer, size = Answer(gate_at=MIB), 20 * MIB
    supplier = Supplier(content, [fill_answer])
    got = bytearray()

    async def reader() -> None:
        async with store.join(supplier.digest, size, supplier.fetch) as pull:
            await drain(pull, got, 18 * MIB)

    async with store.join(supplier.digest, size, supplier.fetch) as pull:
        await pull.started()
        task = asyncio.create_task(reader())
        await until(lambda: bool(got))
        assert [offset for offset, _ in supplier.asked] == [0, 18 * MIB]
        await until(lambda: supplier.open_answers == 1)
        fill_answer.gate.set()
        await task
        assert got == content[18 * MIB :]
    assert len(supplier.asked) == 2


async def test_far_range_that_is_short_comes_whole_while_the_fill_stands(store: BlobStore) -> None:
    content = make_content(20 * MIB)
    supplier = Supplier(content, [Answer(gate_at=MIB)])
    async with store.join(supplier.digest, 20 * MIB, supplier.fetch) as pull:
        await pull.started()
        assert await read_all(pull, 18 * MIB, 18 * MIB + 60_000) == content[18 * MIB : 18 * MIB + 60_000]
    assert supplier.sent_bytes <= MIB + 60_000, "no byte more than was asked for"


@pytest.mark.parametrize(
    "bad",
    [
        Answer(cut_after=18 * MIB + 1000),
        Answer(error=BadGateway("416")),
        Answer(ignores_range=True),
        Answer(total_size=21 * MIB),
    ],
)
async def test_far_range_that_breaks_off_waits_for_the_fill(store: BlobStore, bad: Answer) -> None:
    content, size = make_content(20 * MIB), 20 * MIB
    fill_answer = Answer(gate_at=MIB)
    supplier = Supplier(content, [fill_answer, bad])
    async with store.join(supplier.digest, size, supplier.fetch) as pull:
        await pull.started()
        task = asyncio.create_task(read_all(pull, 18 * MIB))
        await until(lambda: len(supplier.asked) == 2 and supplier.open_answers == 1)
        fill_answer.gate.set()
        assert await task == content[18 * MIB :]
    assert len(supplier.asked) == 2
    assert supplier.sent_bytes <= size + MIB


async def test_far_ranges_cost_the_upstream_a_small_share_of_the_blob_and_wait_beyond_that(tmp_path: Path) -> None:
    """Of two processes as of one: a store is to another what a process is."""
    size = 40 * MIB
    content, fill_answer = make_content(size), Answer(gate_at=MIB)
    supplier, stores = Supplier(content, [fill_answer]), [BlobStore(tmp_path, QUICK) for _ in range(2)]
    starts = range(10 * MIB, 39 * MIB, 512 * 1024)
    async with AsyncExitStack() as stack:
        pulls = []
        for store in stores:
            pulls.append(await stack.enter_async_context(store.join(supplier.digest, size, supplier.fetch)))
            await pulls[-1].started()
        reads = [asyncio.create_task(read_all(pulls[start // MIB % 2], start)) for start in starts]
        share = MIB + size // 64
        await until(lambda: supplier.sent_bytes > MIB + share - 64 * 1024 and supplier.open_answers == 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert supplier.sent_bytes <= MIB + share
        assert len({offset for offset, _ in supplier.asked}) == len(supplier.asked) > 8, "many got a little"
        fill_answer.gate.set()
        for start, read in zip(starts, reads, strict=True):
            assert await read == content[start:]
    assert supplier.sent_bytes <= size + share


async def test_share_that_is_spent_stays_spent_when_its_readers_have_gone(tmp_path: Path) -> None:
    size, short = 20 * MIB, 60_000
    content, fill_answer = make_content(size), Answer(gate_at=MIB)
    supplier, (store, other) = Supplier(content, [fill_answer]), (BlobStore(tmp_path, QUICK) for _ in range(2))
    share = (MIB + size // 64) // (64 * 1024)
    starts = [10 * MIB + number * short for number in range(share + 1)]
    async with store.join(supplier.digest, size, supplier.fetch) as pull:
        await pull.started()
        for start in starts[:-1]:
            async with other.join(supplier.digest, size, supplier.fetch) as there:
                assert await read_all(there, start, start + short) == content[start : start + short]
        async with other.join(supplier.digest, size, supplier.fetch) as there:
            last = asyncio.create_task(read_all(there, starts[-1], starts[-1] + short))
            for _ in range(50):
                await asyncio.sleep(0)
            fill_answer.gate.set()
            assert await last == content[starts[-1] : starts[-1] + short]
        assert await read_all(pull) == content
    assert [offset for offset, _ in supplier.asked] == [0, *starts[:-1]]
    await until(lambda: store.running() == other.running() == 0)


async def test_range_that_a_fast_fill_reaches_soon_waits_for_it(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, Limits(far_bytes=MIB))
    content, answer = make_content(12 * MIB), Answer(gate_at=10 * MIB)
    supplier = Supplier(content, [answer])
    async with store.join(supplier.digest, 12 * MIB, supplier.fetch) as pull:
        await until(lambda: supplier.sent_to == 10 * MIB)
        await until(lambda: store._fills[supplier.digest].job.progress.held == 10 * MIB)
        task = asyncio.create_task(read_all(pull, 11 * MIB + 500_000))
        for _ in range(20):
            await asyncio.sleep(0)
        answer.gate.set()
        assert await task == content[11 * MIB + 500_000 :]
    assert len(supplier.asked) == 1


async def test_range_before_a_fast_fill_that_stops_is_a_far_one_in_time(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, Limits(far_bytes=MIB))
    content, answer = make_content(12 * MIB), Answer(gate_at=2 * MIB)
    supplier = Supplier(content, [answer])
    async with store.join(supplier.digest, 12 * MIB, supplier.fetch) as pull:
        await until(lambda: store._fills[supplier.digest].job.progress.held == 2 * MIB)
        assert await read_all(pull, 11 * MIB, 11 * MIB + 1000) == content[11 * MIB : 11 * MIB + 1000]
        assert [offset for offset, _ in supplier.asked] == [0, 11 * MIB]
        answer.gate.set()
    await until(lambda: store.running() == 0)


async def test_far_range_leaves_the_fill_its_first_bytes_unless_none_come(
    store: BlobStore,
) -> None:
    content, answer = make_content(20 * MIB), Answer(gate_at=0)
    supplier = Supplier(content, [answer])
    async with store.join(supplier.digest, 20 * MIB, supplier.fetch) as pull:
        await pull.started()
        task = asyncio.create_task(read_all(pull, 18 * MIB, 18 * MIB + 1000))
        for _ in range(20):
            await asyncio.sleep(0)
        assert [offset for offset, _ in supplier.asked] == [0]
        assert await task == content[18 * MIB : 18 * MIB + 1000]
        assert [offset for offset, _ in supplier.asked] == [0, 18 * MIB]
