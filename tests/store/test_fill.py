import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.errors import BadGateway, BlobUnknown, Unavailable
from mirror.store.blobs import BlobStore
from mirror.store.feed import Patience, WrongContent
from mirror.store.job import Limits
from mirror.store.progress import VERIFY_FIRST_BYTES
from mirror.store.pump import QUEUE_BYTES
from tests.store.supplier import MIB, Answer, Supplier, drain, make_content, read_all, until

QUICK = Limits(patience=Patience(first_pause_seconds=0.001))
BIG = 3 * MIB + 17
CONTENT = make_content(BIG)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path, QUICK)
    yield store
    await store.stop()


def part_path(tmp_path: Path, digest: Digest) -> Path:
    return tmp_path / "parts" / digest.fallback_tag


async def kept(store: BlobStore, digest: Digest) -> bytes:
    await until(lambda: store.running() == 0)
    async with store.open(digest) as found:
        return os.pread(found.fd, found.size, found.offset)


async def fill(store: BlobStore, supplier: Supplier, size: int | None = None) -> bytes:
    async with store.join(supplier.digest, size, supplier.fetch) as pull:
        return await read_all(pull)


@pytest.mark.parametrize("size", [0, 1, 2, VERIFY_FIRST_BYTES, VERIFY_FIRST_BYTES + 1, BIG])
@pytest.mark.parametrize("told", [True, False])
async def test_blob_arrives_whole_and_is_kept(store: BlobStore, tmp_path: Path, size: int, told: bool) -> None:
    supplier = Supplier(make_content(size))
    assert await fill(store, supplier, size if told else None) == supplier.content
    assert await kept(store, supplier.digest) == supplier.content
    assert list((tmp_path / "parts").iterdir()) == []
    assert supplier.asked == [(0, None)]


async def test_sha512_is_checked_with_its_own_hash(store: BlobStore) -> None:
    supplier = Supplier(CONTENT)
    digest = Digest.of(CONTENT, "sha512")
    async with store.join(digest, BIG, supplier.fetch) as pull:
        assert await read_all(pull) == CONTENT
    assert await kept(store, digest) == CONTENT


@pytest.mark.parametrize("told", [True, False])
async def test_size_that_nobody_tells_is_known_at_the_end(store: BlobStore, told: bool) -> None:
    supplier = Supplier(CONTENT, [Answer(total_size=None)])
    assert await fill(store, supplier, BIG if told else None) == CONTENT
    assert await kept(store, supplier.digest) == CONTENT


async def fill_likely(store: BlobStore, supplier: Supplier, likely: int | None, body: bytearray) -> None:
    """As `fill`, by what somebody holds to be the size."""

    async def likely_size() -> int | None:
        return likely

    async with store.join(supplier.digest, None, supplier.fetch) as pull:
        size = await pull.started(likely_size)
        async for piece in pull.body.read(0, size):
            body.extend(piece)


@pytest.mark.parametrize("likely", [BIG, None, 0, 5, MIB])
async def test_a_body_begins_by_its_likely_size_where_no_answer_tells_it(
    store: BlobStore, likely: int | None
) -> None:
    supplier = Supplier(CONTENT, [Answer(total_size=None, gate_at=2 * MIB)])
    body = bytearray()
    filling = asyncio.create_task(fill_likely(store, supplier, likely, body))
    begins = likely == BIG
    await until(lambda: len(body) == 2 * MIB if begins else supplier.sent_to == 2 * MIB)
    supplier.answers[0].gate.set()
    await filling
    assert body == CONTENT
    assert await kept(store, supplier.digest) == CONTENT


@pytest.mark.parametrize("likely", [2 * MIB + 1, BIG - 1, BIG + 1, 10 * BIG])
async def test_a_likely_size_that_is_wrong_cuts_who_was_told_it_and_nobody_else(
    store: BlobStore, likely: int
) -> None:
    supplier = Supplier(CONTENT, [Answer(total_size=None, gate_at=2 * MIB)])
    body = bytearray()
    wrong = asyncio.create_task(fill_likely(store, supplier, likely, body))
    await until(lambda: len(body) == 2 * MIB)
    right = asyncio.create_task(fill(store, supplier))
    supplier.answers[0].gate.set()
    with pytest.raises(WrongContent):
        await wrong
    assert len(body) < likely
    assert CONTENT.startswith(body)
    assert await right == CONTENT
    assert await kept(store, supplier.digest) == CONTENT


async def test_who_began_by_a_likely_size_is_cut_when_another_process_drops_the_part(
    store: BlobStore, tmp_path: Path
) -> None:
    """Its next bytes would be those of another part."""
    answer = Answer(content=bytes(MIB) + CONTENT[MIB:], total_size=None, gate_at=2 * MIB)
    leader, follower = Supplier(CONTENT, [answer]), Supplier(CONTENT, [Answer(total_size=None)])
    other = BlobStore(tmp_path, QUICK)
    body = bytearray()
    leading = asyncio.create_task(fill(store, leader))
    await until(lambda: leader.sent_to == 2 * MIB)
    following = asyncio.create_task(fill_likely(other, follower, BIG, body))
    await until(lambda: len(body) == 2 * MIB)
    answer.gate.set()
    with pytest.raises(WrongContent):
        await leading
    with pytest.raises(Unavailable):
        await following
    assert len(body) < BIG
    await other.stop()


async def test_a_small_blob_is_not_begun_by_a_likely_size(store: BlobStore) -> None:
    supplier = Supplier(make_content(VERIFY_FIRST_BYTES), [Answer(total_size=None)])
    body = bytearray()
    await fill_likely(store, supplier, BIG, body)
    assert body == supplier.content


async def test_fifty_readers_cost_one_fetch(store: BlobStore) -> None:
    gate = asyncio.Event()
    supplier = Supplier(CONTENT, [Answer(gate_at=BIG // 2, gate=gate)])
    async with AsyncExitStack() as stack:
        pulls = [await stack.enter_async_context(store.join(supplier.digest, BIG, supplier.fetch)) for _ in range(50)]
        tasks = [asyncio.create_task(read_all(pull)) for pull in pulls]
        await until(lambda: supplier.sent_to == BIG // 2)
        gate.set()
        assert all(body == CONTENT for body in await asyncio.gather(*tasks))
    assert len(supplier.asked) == 1
    assert [pull.collapsed for pull in pulls] == [False] + [True] * 49


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_every_range_is_exact_whatever_is_cut(tmp_path: Path, data: st.DataObject) -> None:
    """Sizes around the small limit, any chunking, cuts anywhere, servers that ignore Range, ranges anywhere."""
    size = data.draw(
        st.one_of(st.integers(0, 3000), st.integers(VERIFY_FIRST_BYTES - 2, VERIFY_FIRST_BYTES + 70_000))
    )
    content = make_content(size, data.draw(st.integers(0, 10**6)))
    cuts = data.draw(st.lists(st.integers(0, size), max_size=4))
    answers = [Answer(cut_after=cut, ignores_range=data.draw(st.booleans())) for cut in sorted(cuts)]
    chunk_bytes = data.draw(st.integers(1, 100_000)) if size < 4000 else data.draw(st.integers(5000, 200_000))
    supplier = Supplier(content, answers, chunk_bytes)
    bounds = data.draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), min_size=1, max_size=6))
    store = BlobStore(tmp_path, Limits(far_bytes=data.draw(st.integers(0, 2 * MIB)), patience=QUICK.patience))
    told = data.draw(st.sampled_from([size, None]))
    async with AsyncExitStack() as stack:
        reads = []
        for low, high in (sorted(pair) for pair in bounds):
            pull = await stack.enter_async_context(store.join(supplier.digest, told, supplier.fetch))
            reads.append((content[low:high], read_all(pull, low, high)))
        for expected, body in zip(
            [each[0] for each in reads], await asyncio.gather(*(each[1] for each in reads)), strict=True
        ):
            assert body == expected
    assert await kept(store, supplier.digest) == content
    # Its readers' descriptors are closed in the background, and their lock with them.
    await until(lambda: store.pool.remove(supplier.digest))


async def test_five_cuts_fetch_next_to_nothing_twice(store: BlobStore) -> None:
    cuts = [100, 200_000, 200_001, MIB + 5, 3 * MIB]
    supplier = Supplier(CONTENT, [Answer(cut_after=cut) for cut in cuts])
    assert await fill(store, supplier) == CONTENT
    assert [offset for offset, _ in supplier.asked] == [0, *cuts]
    assert [etag for _, etag in supplier.asked] == [None] + ['"tag"'] * 5
    assert supplier.sent_bytes == BIG


async def test_answer_that_ends_early_is_a_cut(store: BlobStore) -> None:
    supplier = Supplier(CONTENT, [Answer(content=CONTENT[: MIB + 1], total_size=BIG)])
    assert await fill(store, supplier) == CONTENT
    assert [offset for offset, _ in supplier.asked] == [0, MIB + 1]


async def test_first_byte_comes_before_the_last_is_sent(store: BlobStore) -> None:
    answer = Answer(gate_at=64 * 1024)
    supplier = Supplier(CONTENT, [answer])
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        assert await pull.started() == BIG
        body = pull.body.read(0, BIG)
        first = await anext(aiter(body))
        assert first == CONTENT[: len(first)]
        assert supplier.sent_to <= 64 * 1024
        answer.gate.set()
        assert first + b"".join([piece async for piece in body]) == CONTENT


async def test_wrong_bytes_are_never_published_nor_the_last_one_given(store: BlobStore, tmp_path: Path) -> None:
    wrong = CONTENT[:-5] + b"wrong"
    supplier = Supplier(CONTENT, [Answer(content=wrong)])
    got = bytearray()
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        assert await pull.started() == BIG
        with pytest.raises(WrongContent):
            await drain(pull, got)
    assert len(got) < BIG
    assert wrong.startswith(bytes(got))
    await until(lambda: store.running() == 0)
    assert await store.size(supplier.digest) is None
    assert list((tmp_path / "parts").iterdir()) == []
    assert await fill(store, supplier) == CONTENT
    assert supplier.asked == [(0, None), (0, None)]


async def test_last_byte_waits_for_the_verdict(store: BlobStore) -> None:
    answer = Answer(gate_at=BIG)  # every byte is sent, but whether more follow is not known yet
    supplier = Supplier(CONTENT, [answer])
    got = bytearray()

    async def reader() -> None:
        async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
            await drain(pull, got)

    async with asyncio.TaskGroup() as group:
        group.create_task(reader())
        await until(lambda: len(got) == BIG - 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(got) == BIG - 1
        answer.gate.set()
    assert got == CONTENT


async def test_small_blob_gives_no_byte_before_it_is_right(store: BlobStore) -> None:
    content = make_content(5000)
    answer = Answer(gate_at=5000)
    supplier = Supplier(content, [answer])
    async with store.join(supplier.digest, 5000, supplier.fetch) as pull:
        started = asyncio.create_task(pull.started())
        await until(lambda: supplier.sent_to == 5000)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not started.done()
        answer.gate.set()
        assert await started == 5000
        assert await read_all(pull) == content


@pytest.mark.parametrize(
    "bad",
    [
        Answer(content=b"x" * 5000),
        Answer(content=b"x" * 4999, total_size=4999),
        Answer(content=make_content(5001)),
        Answer(content=make_content(5001), total_size=5000),
        Answer(cut_after=77),
    ],
)
async def test_small_blob_that_comes_wrong_is_asked_for_again_unseen(store: BlobStore, bad: Answer) -> None:
    supplier = Supplier(make_content(5000), [bad, bad])
    assert await fill(store, supplier, 5000) == supplier.content
    assert len(supplier.asked) == 3
    assert await kept(store, supplier.digest) == supplier.content


async def test_small_blob_that_one_supplier_has_wrong_comes_from_another(store: BlobStore) -> None:
    content = make_content(3000)
    bad, good = Supplier(content, [Answer(content=content[::-1])] * 9), Supplier(content)
    async with (
        store.join(good.digest, None, bad.fetch, supplier="bad") as one,
        store.join(good.digest, None, good.fetch, supplier="good") as two,
    ):
        assert await read_all(one) == await read_all(two) == content
    assert (len(bad.asked), len(good.asked)) == (1, 1)


async def test_small_blob_that_stays_wrong_is_an_error_before_the_body(store: BlobStore) -> None:
    supplier = Supplier(make_content(5000), [Answer(content=b"x" * 5000)] * 3)
    with pytest.raises(WrongContent):
        await fill(store, supplier, 5000)
    assert len(supplier.asked) == 3
    assert await store.size(supplier.digest) is None


@pytest.mark.parametrize("size", [BIG - 1, BIG + 1])
async def test_other_size_than_the_descriptors_is_wrong(store: BlobStore, tmp_path: Path, size: int) -> None:
    supplier = Supplier(CONTENT)
    with pytest.raises(WrongContent):
        await fill(store, supplier, size)
    await until(lambda: store.running() == 0)
    assert await store.size(supplier.digest) is None
    assert list((tmp_path / "parts").iterdir()) == []


async def test_more_bytes_than_told_are_wrong(store: BlobStore) -> None:
    supplier = Supplier(CONTENT, [Answer(content=CONTENT + b"!", total_size=None)])
    with pytest.raises(WrongContent):
        await fill(store, supplier, BIG)
    assert await store.size(supplier.digest) is None


async def test_blob_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, Limits(max_blob_bytes=MIB))
    supplier = Supplier(make_content(3 * QUEUE_BYTES), [Answer(total_size=None)])
    with pytest.raises(WrongContent):
        await fill(store, supplier)
    await until(lambda: store.running() == 0)
    assert supplier.sent_bytes <= 2 * QUEUE_BYTES
    assert list((tmp_path / "parts").iterdir()) == []


async def test_error_before_the_body_is_the_upstreams_and_asked_once(store: BlobStore, tmp_path: Path) -> None:
    supplier = Supplier(CONTENT, [Answer(error=BlobUnknown("no"))])
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        with pytest.raises(BlobUnknown):
            await pull.started()
    assert len(supplier.asked) == 1
    assert list((tmp_path / "parts").iterdir()) == []


async def test_part_stays_when_the_upstream_goes_and_is_gone_on_with(store: BlobStore, tmp_path: Path) -> None:
    down = Answer(error=BadGateway("down"))
    supplier = Supplier(CONTENT, [Answer(cut_after=2 * MIB), down, down, down, down, down])
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        with pytest.raises(BadGateway):
            await read_all(pull)
    await until(lambda: store.running() == 0)
    held = part_path(tmp_path, supplier.digest).stat().st_size
    assert held == 2 * MIB
    supplier.answers.clear()
    supplier.asked.clear()
    assert await fill(store, supplier, BIG) == CONTENT
    assert supplier.asked == [(held, '"tag"')]


async def test_server_that_fails_on_range_is_asked_for_all(store: BlobStore, tmp_path: Path) -> None:
    part_path(tmp_path, Digest.of(CONTENT)).write_bytes(CONTENT[:MIB])
    supplier = Supplier(CONTENT, [Answer(error=BadGateway("416"))])
    assert await fill(store, supplier, BIG) == CONTENT
    assert [offset for offset, _ in supplier.asked] == [MIB, 0]


@pytest.mark.parametrize("told", [True, False])
async def test_part_with_every_byte_is_judged(store: BlobStore, tmp_path: Path, told: bool) -> None:
    part_path(tmp_path, Digest.of(CONTENT)).write_bytes(CONTENT)
    supplier = Supplier(CONTENT)
    assert await fill(store, supplier, BIG if told else None) == CONTENT
    assert supplier.sent_bytes == 0
    assert await kept(store, supplier.digest) == CONTENT


@pytest.mark.parametrize("junk", [b"x" * MIB, b"x" * BIG, b"x" * (BIG + 5)])
async def test_part_with_wrong_bytes_costs_at_most_one_try(store: BlobStore, tmp_path: Path, junk: bytes) -> None:
    part_path(tmp_path, Digest.of(CONTENT)).write_bytes(junk)
    supplier = Supplier(CONTENT)
    try:
        assert await fill(store, supplier, BIG) == CONTENT
    except WrongContent:
        await until(lambda: store.running() == 0)
        assert await fill(store, supplier, BIG) == CONTENT
    assert await kept(store, supplier.digest) == CONTENT


async def test_another_repository_carries_the_fill_on(store: BlobStore) -> None:
    first = Supplier(CONTENT, [Answer(cut_after=MIB), Answer(error=BlobUnknown("gone"))])
    second = Supplier(CONTENT)
    async with (
        store.join(first.digest, BIG, first.fetch, supplier="a") as one,
        store.join(first.digest, BIG, second.fetch, supplier="b") as two,
    ):
        bodies = await asyncio.gather(read_all(one), read_all(two))
    assert list(bodies) == [CONTENT, CONTENT]
    assert second.asked == [(MIB, None)]  # the other's ETag means nothing to it


async def denied() -> None:
    raise BlobUnknown("not in that repository")


@pytest.mark.parametrize("size", [5000, BIG])
async def test_repository_without_the_blob_gets_nothing_of_anothers_fill(store: BlobStore, size: int) -> None:
    """Neither by joining it, nor by having begun it, nor when it is over."""
    without = Supplier(make_content(size), [Answer(error=BlobUnknown("gone"))] * 9)
    owner = Supplier(make_content(size))
    async with (
        store.join(owner.digest, None, without.fetch, supplier="without", prove=denied) as first,
        store.join(owner.digest, None, owner.fetch, supplier="owner", prove=denied) as second,
        store.join(owner.digest, None, without.fetch, supplier="third", prove=denied) as third,
    ):
        assert await read_all(second) == owner.content
        for pull in (first, third):
            with pytest.raises(BlobUnknown):
                await pull.started()
            with pytest.raises(RuntimeError):
                _ = pull.body
        await until(lambda: store.running() == 0)
        async with store.join(owner.digest, None, without.fetch, supplier="late", prove=denied) as late:
            with pytest.raises(BlobUnknown):
                await late.started()
    assert len(owner.asked) == 1


async def test_repository_that_answers_needs_no_other_proof(store: BlobStore) -> None:
    supplier = Supplier(CONTENT)
    async with store.join(supplier.digest, BIG, supplier.fetch, supplier="a", prove=denied) as pull:
        assert await read_all(pull) == CONTENT


async def test_fill_outlives_its_readers(store: BlobStore) -> None:
    answer = Answer(gate_at=MIB)
    supplier = Supplier(CONTENT, [answer])
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        await pull.started()
    assert store.busy() == {supplier.digest}
    assert store.pool.in_use(supplier.digest)
    answer.gate.set()
    assert await kept(store, supplier.digest) == CONTENT
    assert store.counters.finished == 1
    assert store.counters.written_bytes == BIG


async def test_slow_reader_does_not_slow_the_fill(store: BlobStore) -> None:
    supplier = Supplier(make_content(QUEUE_BYTES + 4 * MIB))
    async with store.join(supplier.digest, None, supplier.fetch) as pull:
        size = await pull.started()
        body = pull.body.read(0, size)
        first = await anext(aiter(body))
        assert await kept(store, supplier.digest) == supplier.content  # while the reader stands still
        rest = b"".join([piece async for piece in body])
    assert first + rest == supplier.content


async def test_evicted_blob_is_still_whole_for_who_reads_of_its_fill(store: BlobStore, tmp_path: Path) -> None:
    supplier = Supplier(CONTENT)
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        await pull.started()
        await until(lambda: store.running() == 0)
        assert store.pool.in_use(supplier.digest)
        assert not store.pool.remove(supplier.digest)
        next((tmp_path / "blobs").glob("*/*/*")).unlink()
        assert await read_all(pull) == CONTENT


async def test_small_blob_takes_no_memory_once_it_is_kept(store: BlobStore) -> None:
    supplier = Supplier(make_content(5000))
    async with store.join(supplier.digest, 5000, supplier.fetch) as pull:
        await pull.started()
        await until(lambda: store.running() == 0)
        assert pull._progress.content is None
        assert await read_all(pull) == supplier.content


async def test_near_range_waits_for_the_fill(store: BlobStore) -> None:
    answer = Answer(gate_at=MIB)
    supplier = Supplier(CONTENT, [answer])
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        await pull.started()
        task = asyncio.create_task(read_all(pull, 2 * MIB))
        await until(lambda: supplier.sent_to == MIB)
        answer.gate.set()
        assert await task == CONTENT[2 * MIB :]
    assert len(supplier.asked) == 1


@pytest.mark.parametrize("why", ["asked for", "too large", "no folder"])
async def test_blob_that_cannot_be_kept_is_passed_through(tmp_path: Path, why: str) -> None:
    store = BlobStore(tmp_path, Limits(max_blob_bytes=BIG - 1 if why == "too large" else None))
    if why == "no folder":
        (tmp_path / "parts").rmdir()
        (tmp_path / "parts").write_text("in the way")
    supplier = Supplier(CONTENT)
    async with store.join(supplier.digest, None, supplier.fetch, keep=why != "asked for") as pull:
        assert await read_all(pull) == CONTENT
        assert await read_all(pull, 5, MIB) == CONTENT[5:MIB]
    assert await store.size(supplier.digest) is None
    assert store.counters.passed_through == 1
    assert len(supplier.asked) == 3


async def test_passed_through_blob_is_resumed_over_cuts(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, QUICK)
    supplier = Supplier(CONTENT, [Answer(), Answer(cut_after=MIB), Answer(cut_after=2 * MIB)])
    async with store.join(supplier.digest, BIG, supplier.fetch, keep=False) as pull:
        assert await read_all(pull) == CONTENT
    assert [offset for offset, _ in supplier.asked] == [0, 0, MIB, 2 * MIB]


async def test_passed_through_wrong_bytes_never_give_the_last_one(store: BlobStore) -> None:
    wrong = b"x" * BIG
    supplier = Supplier(CONTENT, [Answer(), Answer(content=wrong)])
    got = bytearray()
    async with store.join(supplier.digest, BIG, supplier.fetch, keep=False) as pull:
        await pull.started()
        with pytest.raises(WrongContent):
            await drain(pull, got)
    assert bytes(got) == wrong[:-1]


async def test_small_blob_that_cannot_be_kept_is_checked_and_fetched_once(store: BlobStore) -> None:
    supplier = Supplier(make_content(5000), [Answer(content=b"x" * 5000)])
    async with (
        store.join(supplier.digest, 5000, supplier.fetch, keep=False) as one,
        store.join(supplier.digest, 5000, supplier.fetch, keep=False) as two,
    ):
        assert list(await asyncio.gather(read_all(one), read_all(two))) == [supplier.content] * 2
    assert len(supplier.asked) == 2
    assert await store.size(supplier.digest) is None


async def test_stop_cuts_readers_and_keeps_the_part(store: BlobStore, tmp_path: Path) -> None:
    supplier = Supplier(CONTENT, [Answer(gate_at=2 * MIB)])
    async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
        task = asyncio.create_task(read_all(pull))
        part = part_path(tmp_path, supplier.digest)
        await until(lambda: part.exists() and part.stat().st_size == 2 * MIB)
        await store.stop()
        with pytest.raises(Unavailable):
            await task
    assert part.read_bytes() == CONTENT[: 2 * MIB]
    assert supplier.open_answers == 0
    with pytest.raises(Unavailable):
        async with store.join(supplier.digest, BIG, supplier.fetch):
            pass
    later = BlobStore(tmp_path, QUICK)
    supplier.answers.clear()
    supplier.asked.clear()
    assert await fill(later, supplier, BIG) == CONTENT
    assert supplier.asked == [(2 * MIB, '"tag"')]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_thousand_readers_that_leave_leave_no_descriptor(store: BlobStore) -> None:
    gated = Answer(gate_at=MIB)
    filling, whole = Supplier(CONTENT, [gated]), Supplier(make_content(BIG, 2))
    await fill(store, whole)
    await until(lambda: store.running() == 0)

    async def reader(number: int) -> None:
        if number % 2:
            async with store.join(filling.digest, BIG, filling.fetch) as pull:
                await read_all(pull)
        else:
            async with store.open(whole.digest):
                await asyncio.Event().wait()

    async with store.join(filling.digest, BIG, filling.fetch) as pull:
        await pull.started()
        before = descriptors()
        for batch in range(10):
            tasks = [asyncio.create_task(reader(number)) for number in range(100)]
            for _ in range(batch):  # cut off at different points, the opening among them
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: descriptors() <= before)
    assert store.busy() == {filling.digest}
    gated.gate.set()
    await until(lambda: store.running() == 0)
    await until(lambda: descriptors() < before)
    assert store.busy() == set()


async def test_memory_is_bounded_by_the_queue_not_by_the_blob(store: BlobStore) -> None:
    """The network has to wait for the disk: more than the queue's bytes never wait between them."""
    supplier = Supplier(make_content(3 * QUEUE_BYTES), chunk_bytes=MIB)
    most = 0

    def look(position: int) -> None:
        nonlocal most
        written = next((each.job.progress.held for each in store._fills.values()), position)
        most = max(most, position - written)

    supplier.on_sent = look
    assert hashlib.sha256(await fill(store, supplier)).hexdigest() == supplier.digest.hex
    # What is written is told to the loop a turn later: one batch more may look as if it waited.
    assert most <= QUEUE_BYTES + 4 * MIB
