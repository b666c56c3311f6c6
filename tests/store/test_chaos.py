"""Two stores on one folder, as two processes have them, and everything that goes wrong at once."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.oci.errors import OciError
from mirror.store.blobs import BlobStore
from mirror.store.feed import Patience
from mirror.store.job import Limits
from mirror.store.progress import VERIFY_FIRST_BYTES
from tests.store.supplier import Answer, Supplier, make_content, until

SIZES = st.one_of(st.integers(0, 2000), st.integers(VERIFY_FIRST_BYTES - 1, VERIFY_FIRST_BYTES + 90_000))


def answers(size: int, content: bytes) -> st.SearchStrategy[Answer]:
    spot = st.integers(0, max(size - 1, 0))
    return st.one_of(
        st.builds(Answer, cut_after=st.integers(0, size), ignores_range=st.booleans()),
        st.builds(Answer, content=spot.map(lambda at: content[:at] + b"\0\0" + content[at + 2 :])),
        st.builds(Answer, content=st.integers(0, size).map(lambda end: content[:end]), total_size=st.none()),
        st.builds(Answer, error=st.builds(ConnectionRefusedError)),
    )


@dataclass(frozen=True)
class Reader:
    """Reads a range of the store that is named; `pieces`: leaves after so many."""

    store: int
    start: int
    stop: int
    pieces: int | None = None
    told: bool = True

    async def read(self, store: BlobStore, supplier: Supplier) -> bytes:
        body, size, left = b"", len(supplier.content), self.pieces
        async with store.join(supplier.digest, size if self.told else None, supplier.fetch) as pull:
            assert await pull.started() == size
            async for piece in pull.body.read(self.start, self.stop):
                body += piece
                if left is not None:
                    left -= 1
                    if left < 0:
                        raise asyncio.CancelledError
        return body


def readers(size: int) -> st.SearchStrategy[Reader]:
    bounds = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)
    pieces = st.one_of(st.none(), st.integers(0, 3))
    return st.builds(
        lambda store, bounds, pieces, told: Reader(store, bounds[0], bounds[1], pieces, told),
        st.integers(0, 1),
        bounds,
        pieces,
        st.booleans(),
    )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_body_is_right_or_cut_and_what_is_kept_is_right(tmp_path: Path, data: st.DataObject) -> None:
    size = data.draw(SIZES)
    content = make_content(size, size)
    limits = Limits(far_bytes=data.draw(st.integers(0, 2**21)), patience=Patience(3, 0.001, 0.002))
    stores = [BlobStore(tmp_path, limits) for _ in range(2)]
    chunk_bytes = 300 if size < 4000 else 70_000
    suppliers = [
        Supplier(content, data.draw(st.lists(answers(size, content), max_size=4)), chunk_bytes) for _ in stores
    ]
    # Two who want it all, one at each store, and others.
    asking = [Reader(0, 0, size), Reader(1, 0, size), *data.draw(st.lists(readers(size), max_size=6))]
    stop_after = data.draw(st.one_of(st.none(), st.integers(0, 60)))
    before = descriptors()
    tasks = [asyncio.create_task(each.read(stores[each.store], suppliers[each.store])) for each in asking]
    if stop_after is not None:
        for _ in range(stop_after):
            await asyncio.sleep(0)
        await stores[0].stop()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    for reader, result in zip(asking, results, strict=True):
        assert isinstance(result, bytes | OciError | OSError | asyncio.CancelledError)
        if isinstance(result, bytes) and (reader.start, reader.stop) == (0, size):
            assert result == content
    await until(lambda: not any(store.running() for store in stores))
    pool, digest = stores[1].pool, suppliers[0].digest
    if pool.size(digest) is not None:
        assert pool.read(digest) == content
    await until(lambda: descriptors() <= before)
    assert not any(store.busy() for store in stores)
    assert pool.remove(digest)
    pool.clean_parts(max_age_seconds=-1)
    assert list((tmp_path / "parts").iterdir()) == []
