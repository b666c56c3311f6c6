"""Fills that several processes share, or that a process left behind: with real processes."""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import BadGateway, BlobUnknown
from mirror.store.blobs import BlobStore
from mirror.store.feed import Patience
from mirror.store.job import Limits
from mirror.store.parts import ARRIVING_MODE, VERIFIED_MODE
from mirror.store.pull import Pull
from tests.store.process import CHUNK_BYTES, Process, Work
from tests.store.supplier import MIB, Answer, Supplier, make_content, read_all, until

SIZE = 4 * MIB + 5
CONTENT = make_content(SIZE)
DIGEST = Digest.of(CONTENT)
GATE = 32 * CHUNK_BYTES


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path, Limits(patience=Patience(first_pause_seconds=0.001)))
    yield store
    await store.stop()


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text().splitlines()


def part_of(folder: Path, digest: Digest = DIGEST) -> Path:
    return folder / "parts" / digest.fallback_tag


async def until_held(folder: Path, process: Process, size: int = GATE) -> None:
    assert await process.line() == "held"
    await until(lambda: part_of(folder).stat().st_size == size)


@asynccontextmanager
async def leading(store: BlobStore, supplier: Supplier) -> AsyncIterator[Pull]:
    """A hold on a fill that this store runs; who joins at another one follows."""
    async with store.join(DIGEST, SIZE, supplier.fetch) as pull:
        await until(lambda: bool(supplier.asked))
        yield pull


@pytest.mark.parametrize("told", [True, False])
async def test_two_processes_fetch_once_and_both_stream(tmp_path: Path, store: BlobStore, told: bool) -> None:
    supplier = Supplier(CONTENT)
    async with Process(tmp_path, Work(SIZE, "one", gate_at=GATE)) as one:
        await until_held(tmp_path, one)
        async with store.join(DIGEST, SIZE if told else None, supplier.fetch) as pull:
            body = b""
            size = await pull.started()
            async for piece in pull.body.read(0, size):
                body += piece
                if len(body) == GATE:
                    (tmp_path / "go").touch()
        assert body == CONTENT
        assert await one.line() == DIGEST.hex
    assert supplier.asked == []
    assert asked(tmp_path) == ["one 0"]


async def test_processes_that_start_together_fetch_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        names = ["one", "two", "three"]
        works = [Work(SIZE, name, told=name != "two") for name in names]
        processes = [await stack.enter_async_context(Process(tmp_path, work)) for work in works]
        assert [await process.line() for process in processes] == [DIGEST.hex] * 3
    assert len(asked(tmp_path)) == 1


async def test_small_blob_is_fetched_once_by_two_processes(tmp_path: Path, store: BlobStore) -> None:
    supplier = Supplier(make_content(3 * CHUNK_BYTES))
    async with Process(tmp_path, Work(3 * CHUNK_BYTES, "one", gate_at=CHUNK_BYTES)) as one:
        assert await one.line() == "held"
        async with store.join(supplier.digest, None, supplier.fetch) as pull:
            task = asyncio.create_task(read_all(pull))
            (tmp_path / "go").touch()
            assert await task == supplier.content
        assert await one.line() == supplier.digest.hex
    assert supplier.asked == []


async def test_fill_goes_on_here_when_the_process_that_ran_it_is_killed(tmp_path: Path, store: BlobStore) -> None:
    supplier = Supplier(CONTENT)
    async with Process(tmp_path, Work(SIZE, "one", gate_at=GATE)) as one:
        await until_held(tmp_path, one)
        async with store.join(DIGEST, SIZE, supplier.fetch) as pull:
            size = await pull.started()
            body = b""
            async for piece in pull.body.read(0, size):
                body += piece
                if len(body) == GATE:
                    await one.kill()
            assert body == CONTENT
    assert supplier.asked == [(GATE, None)]
    await until(lambda: store.running() == 0)
    assert store.pool.read(DIGEST) == CONTENT


async def test_killed_fill_is_resumed_after_the_restart(tmp_path: Path, store: BlobStore) -> None:
    async with Process(tmp_path, Work(SIZE, "one", gate_at=GATE)) as one:
        await until_held(tmp_path, one)
        await one.kill()
    assert await store.clean_parts() == []
    supplier = Supplier(CONTENT)
    async with store.join(DIGEST, SIZE, supplier.fetch) as pull:
        assert await read_all(pull) == CONTENT
    assert supplier.asked == [(GATE, None)]
    await until(lambda: store.running() == 0)
    assert store.pool.read(DIGEST) == CONTENT
    assert list((tmp_path / "parts").iterdir()) == []


async def test_process_that_gives_up_leaves_its_readers_elsewhere_whole(tmp_path: Path, store: BlobStore) -> None:
    """The other process's disk is full in the middle: what it drops is passed through here from there on."""
    supplier = Supplier(CONTENT)
    limit = GATE + CHUNK_BYTES
    async with Process(tmp_path, Work(SIZE, "one", gate_at=GATE, file_bytes=limit)) as one:
        await until_held(tmp_path, one)
        async with store.join(DIGEST, SIZE, supplier.fetch) as pull:
            task = asyncio.create_task(read_all(pull))
            await pull.started()
            (tmp_path / "go").touch()
            assert await task == CONTENT
            assert await one.line() == DIGEST.hex
    assert len(supplier.asked) == 1
    assert GATE <= supplier.asked[0][0] <= limit


async def test_disk_that_fills_up_costs_each_reader_one_fetch(tmp_path: Path, store: BlobStore) -> None:
    limit = 2 * MIB + 777
    async with Process(tmp_path, Work(SIZE, "one", file_bytes=limit)) as one:
        assert await one.line() == DIGEST.hex
    assert asked(tmp_path) == ["one 0", f"one {limit}"]
    assert store.pool.size(DIGEST) is None
    assert list((tmp_path / "parts").iterdir()) == []


async def test_small_blob_is_served_from_a_full_disk(tmp_path: Path, store: BlobStore) -> None:
    content = make_content(5000)
    async with Process(tmp_path, Work(5000, "one", file_bytes=100)) as one:
        assert await one.line() == Digest.of(content).hex
    assert asked(tmp_path) == ["one 0"]
    assert store.pool.size(Digest.of(content)) is None


async def test_cleaning_leaves_what_another_process_fills(tmp_path: Path, store: BlobStore) -> None:
    async with Process(tmp_path, Work(SIZE, "one", gate_at=GATE)) as one:
        await until_held(tmp_path, one)
        assert store.pool.clean_parts(max_age_seconds=-1) == []
        assert store.pool.in_use(DIGEST)
        (tmp_path / "go").touch()
        assert await one.line() == DIGEST.hex
    assert not store.pool.in_use(DIGEST)
    assert store.pool.remove(DIGEST)


async def test_wrong_bytes_reach_no_process_whole(tmp_path: Path, store: BlobStore) -> None:
    """A reader elsewhere of a fill that turns out wrong gets no last byte either."""
    other = BlobStore(tmp_path)
    gate = Answer(content=b"?" + CONTENT[1:], gate_at=SIZE - 10)
    wrong, never = Supplier(CONTENT, [gate]), Supplier(CONTENT, [Answer(error=ConnectionResetError("down"))])
    async with (
        leading(store, wrong) as here,
        other.join(DIGEST, SIZE, never.fetch) as there,
    ):
        tasks = [asyncio.create_task(read_all(pull)) for pull in (here, there)]
        await there.started()
        gate.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Exception) for result in results)
    await until(lambda: store.running() == other.running() == 0)
    assert store.pool.size(DIGEST) is None
    assert list((tmp_path / "parts").iterdir()) == []


async def test_reader_elsewhere_has_it_all_while_the_first_still_reads(tmp_path: Path, store: BlobStore) -> None:
    other = BlobStore(tmp_path)
    supplier, never = Supplier(CONTENT, [Answer(gate_at=GATE)]), Supplier(CONTENT)
    async with (
        leading(store, supplier) as here,
        other.join(DIGEST, SIZE, never.fetch) as there,
    ):
        await there.started()
        supplier.answers[0].gate.set()
        assert await asyncio.wait_for(read_all(there), 20) == CONTENT
        await until(lambda: other.running() == store.running() == 0)
        assert await read_all(here) == CONTENT
    assert never.asked == []


async def test_repository_elsewhere_gets_nothing_of_a_blob_that_it_does_not_have(
    tmp_path: Path, store: BlobStore
) -> None:
    async def denied() -> None:
        raise BlobUnknown("not in that repository")

    other, supplier = BlobStore(tmp_path), Supplier(CONTENT, [Answer(gate_at=GATE)])
    async with (
        leading(store, supplier),
        other.join(DIGEST, SIZE, supplier.fetch, supplier="another", prove=denied) as there,
    ):
        with pytest.raises(BlobUnknown):
            await there.started()
        supplier.answers[0].gate.set()


async def test_reader_elsewhere_goes_on_when_the_first_gives_up(tmp_path: Path, store: BlobStore) -> None:
    other = BlobStore(tmp_path)
    begun = Answer(gate_at=GATE - 1, cut_after=GATE)
    supplier = Supplier(CONTENT, [begun] + [Answer(error=BadGateway("down"))] * 9)
    better = Supplier(CONTENT)
    async with (
        leading(store, supplier) as here,
        other.join(DIGEST, SIZE, better.fetch) as there,
    ):
        await there.started()
        begun.gate.set()
        bodies = await asyncio.gather(read_all(here), asyncio.wait_for(read_all(there), 20), return_exceptions=True)
    assert isinstance(bodies[0], BadGateway)
    assert bodies[1] == CONTENT
    assert better.asked == [(GATE, '"tag"')]


async def test_old_sidecar_does_not_begin_a_body(tmp_path: Path, store: BlobStore) -> None:
    """What an earlier process knew of the size says nothing of whether an upstream answers now."""
    part_of(tmp_path).write_bytes(CONTENT[:GATE])
    (tmp_path / "parts" / f"{DIGEST.fallback_tag}.json").write_text(
        f'{{"size": {SIZE}, "etag": null, "supplier": null}}'
    )
    other = BlobStore(tmp_path)
    before = asyncio.Event()
    gone = [Supplier(CONTENT, [Answer(error=BlobUnknown("gone"), before=before)]) for _ in range(2)]
    async with leading(store, gone[0]) as here, other.join(DIGEST, SIZE, gone[1].fetch) as there:
        # It looks at the part, and at what is told of it, in turns.
        await until(lambda: other._fills[DIGEST].job.progress.held == GATE)
        started = [asyncio.create_task(pull.started()) for pull in (here, there)]
        before.set()
        results = await asyncio.gather(*started, return_exceptions=True)
    assert [type(result) for result in results] == [BlobUnknown, BlobUnknown]


async def test_believes_no_mark_of_a_verdict_that_it_did_not_see_come(tmp_path: Path, store: BlobStore) -> None:
    """After a crash of the machine a part may be marked as right and hold other bytes, or fewer."""
    part = part_of(tmp_path)
    part.write_bytes(CONTENT[:GATE])
    part.chmod(VERIFIED_MODE)
    supplier = Supplier(CONTENT, [Answer(gate_at=GATE + CHUNK_BYTES)])
    with part.open("rb") as holder:
        # Another process has the lock, and did not yet get to setting the mode back.
        fcntl.flock(holder, fcntl.LOCK_EX)
        async with store.join(DIGEST, SIZE, supplier.fetch) as pull:
            reading = asyncio.create_task(read_all(pull))
            await until(lambda: bool(store._fills[DIGEST].job.progress.held))
            assert not reading.done()
            fcntl.flock(holder, fcntl.LOCK_UN)  # and dies
            await until(lambda: part.stat().st_size == GATE + CHUNK_BYTES)
            assert part.stat().st_mode & 0o777 == ARRIVING_MODE
            supplier.answers[0].gate.set()
            assert await reading == CONTENT
    assert supplier.asked == [(GATE, None)]
