import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.store.pump import QUEUE_BYTES, Pump, StorageFailed
from tests.serving import DEADLINE_SECONDS
from tests.store.supplier import MIB, make_content, until


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


async def test_writes_behind_what_is_held_and_hashes_all(fd: int) -> None:
    content = make_content(3 * MIB + 1)
    os.write(fd, content[:MIB])
    told: list[int] = []
    pump = Pump(fd, hashlib.sha256(), MIB, told.append)
    try:
        pump.post(pump.rehash)
        for start in range(MIB, len(content), 1000):
            await pump.put(content[start : start + 1000])
        assert await pump.call(pump.hasher.hexdigest) == hashlib.sha256(content).hexdigest()
        await until(lambda: bool(told) and told[-1] == len(content))
    finally:
        await pump.close()
    assert os.pread(fd, len(content) + 1, 0) == content
    assert told == sorted(told)


async def test_network_waits_while_the_queue_is_full(fd: int) -> None:
    pump = Pump(fd, hashlib.sha256(), 0, lambda written: None)
    open_the_way = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        # The thread stands still, as on a slow disk.
        pump.post(lambda: asyncio.run_coroutine_threadsafe(open_the_way.wait(), loop).result())
        for _ in range(QUEUE_BYTES // MIB):
            await pump.put(bytes(MIB))
        one_more = asyncio.create_task(pump.put(b"!"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not one_more.done()
        open_the_way.set()
        await one_more
        await pump.call(lambda: None)
        assert pump.written == QUEUE_BYTES + 1
    finally:
        open_the_way.set()
        await pump.close()


async def test_disk_that_refuses_is_said_with_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"1234")
    fd = os.open(tmp_path / "part", os.O_RDONLY)
    pump = Pump(fd, hashlib.sha256(), 4, lambda written: None)
    try:
        pump.post(pump.rehash)
        await pump.put(b"5678")
        with pytest.raises(StorageFailed):
            await pump.call(lambda: None)
        with pytest.raises(StorageFailed):
            await pump.put(b"9")
        assert (pump.written, pump.hashed) == (4, 4)
    finally:
        await pump.close()
        os.close(fd)


async def test_part_shorter_than_held_is_not_written_on(fd: int) -> None:
    os.write(fd, b"123")
    pump = Pump(fd, hashlib.sha256(), 4, lambda written: None)
    try:
        pump.post(pump.rehash)
        await pump.put(b"5")
        with pytest.raises(StorageFailed):
            await pump.call(lambda: None)
    finally:
        await pump.close()
    assert os.pread(fd, 10, 0) == b"123"


class NoRoom:
    """A hash that has no memory for what it is given."""

    def update(self, data: memoryview) -> None:
        raise MemoryError


async def test_a_failure_that_is_no_disks_is_said_too_and_leaves_nobody_waiting(fd: int) -> None:
    pump = Pump(fd, NoRoom(), 0, lambda written: None)
    await pump.put(b"1234")
    # What fails here is not closed: that would wait for a thread that is gone.
    with pytest.raises(StorageFailed, match="MemoryError"):
        await asyncio.wait_for(pump.call(lambda: None), DEADLINE_SECONDS)
    with pytest.raises(StorageFailed):
        await pump.put(b"5")
    assert (pump.written, pump.hashed) == (4, 0)
    await pump.close()
