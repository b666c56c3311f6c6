"""A fill whose thread fails at what is not the disk's: readers get the blob all the same, or never its last byte."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.feed import WrongContent
from tests.serving import DEADLINE_SECONDS
from tests.store.supplier import MIB, Answer, Supplier, drain, read_all
from tests.store.test_fill import BIG, CONTENT, QUICK, part_path

REAL = Digest.hasher


class NoMemory:
    """A hash that once, at byte `at`, has taken in half of what it was given, and has no memory for the rest."""

    def __init__(self, at: int) -> None:
        self._hash = hashlib.sha256()
        self._left = at

    def update(self, data: memoryview) -> None:
        if len(data) > self._left:
            self._hash.update(data[: len(data) // 2])
            self._left = 1 << 60
            raise MemoryError
        self._left -= len(data)
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@pytest.fixture
def fails_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the next fill's first hash fail at a byte."""

    def arrange(at: int) -> None:
        made: list[Any] = [NoMemory(at)]
        monkeypatch.setattr(Digest, "hasher", lambda digest: made.pop() if made else REAL(digest))

    return arrange


@pytest.mark.parametrize("at", [0, MIB, BIG - 1])
@pytest.mark.parametrize("told", [True, False])
async def test_readers_get_all_of_it(tmp_path: Path, fails_at: Callable[[int], None], at: int, told: bool) -> None:
    store, supplier = BlobStore(tmp_path, QUICK), Supplier(CONTENT)
    fails_at(at)
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with store.join(supplier.digest, BIG if told else None, supplier.fetch) as pull:
            assert await read_all(pull) == CONTENT
    await store.stop()


async def test_the_last_byte_of_what_was_hashed_by_nobody_waits_for_its_verdict_too(
    tmp_path: Path, fails_at: Callable[[int], None]
) -> None:
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    store, supplier = BlobStore(tmp_path, QUICK), Supplier(CONTENT, [Answer(content=wrong)])
    fails_at(BIG - 1)
    got = bytearray()
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
            await pull.started()
            with pytest.raises(WrongContent):
                await drain(pull, got)
    assert bytes(got) == wrong[:-1]
    assert await store.size(supplier.digest) is None
    await store.stop()


async def test_a_part_that_could_not_be_hashed_again_is_not_taken_for_a_wrong_one(
    tmp_path: Path, fails_at: Callable[[int], None]
) -> None:
    part_path(tmp_path, Digest.of(CONTENT)).parent.mkdir(parents=True, exist_ok=True)
    part_path(tmp_path, Digest.of(CONTENT)).write_bytes(CONTENT[: 2 * MIB])
    store, supplier = BlobStore(tmp_path, QUICK), Supplier(CONTENT)
    fails_at(MIB)
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with store.join(supplier.digest, BIG, supplier.fetch) as pull:
            assert await read_all(pull) == CONTENT
    await store.stop()
