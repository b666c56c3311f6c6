import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown
from mirror.store.blobs import BlobStore
from mirror.store.feed import Mark, WrongContent
from mirror.store.graph import BlobFiles
from mirror.store.parts import Known, Part
from mirror.store.pool import PART_MAX_AGE_SECONDS
from tests.store.supplier import Supplier, make_content, read_all, until

CONTENT = b"some manifest"
DIGEST = Digest.of(CONTENT)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = BlobStore(tmp_path)
    yield store
    await store.stop()


def put_part(tmp_path: Path, name: str, content: bytes, age_seconds: float = 0.0) -> Path:
    path = tmp_path / "parts" / name
    path.write_bytes(content)
    os.utime(path, (time.time() - age_seconds,) * 2)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_content_put_is_a_plain_file_by_its_digest(store: BlobStore, tmp_path: Path) -> None:
    assert await store.size(DIGEST) is None
    await store.put(DIGEST, CONTENT)
    assert (tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex).read_bytes() == CONTENT
    assert await store.size(DIGEST) == len(CONTENT)
    async with store.open(DIGEST) as found:
        assert os.pread(found.fd, found.size, found.offset) == CONTENT
    assert store.pool.read(DIGEST) == CONTENT
    assert names(tmp_path / "parts") == []


async def test_wrong_content_is_not_put(store: BlobStore) -> None:
    with pytest.raises(WrongContent):
        await store.put(DIGEST, b"other")
    assert await store.size(DIGEST) is None


async def test_content_put_by_many_at_once_is_whole(store: BlobStore, tmp_path: Path) -> None:
    await asyncio.gather(*(store.put(DIGEST, CONTENT) for _ in range(20)))
    assert store.pool.read(DIGEST) == CONTENT
    assert names(tmp_path / "parts") == []


async def test_unknown_blob_is_not_opened(store: BlobStore) -> None:
    with pytest.raises(BlobUnknown):
        async with store.open(DIGEST):
            pass
    assert store.busy() == set()


async def test_blob_being_read_is_not_removed_by_any_process(store: BlobStore, tmp_path: Path) -> None:
    other = BlobStore(tmp_path)
    await store.put(DIGEST, CONTENT)
    async with store.open(DIGEST):
        assert store.busy() == {DIGEST}
        assert other.busy() == set()
        for pool in (store.pool, other.pool):
            assert pool.in_use(DIGEST)
            assert not pool.remove(DIGEST)
    await until(lambda: not other.pool.in_use(DIGEST))
    assert other.pool.remove(DIGEST)
    assert other.pool.remove(DIGEST)  # gone is gone
    assert await store.size(DIGEST) is None


async def test_pool_is_what_eviction_asks_for(store: BlobStore) -> None:
    pool: BlobFiles = store.pool
    contents = [make_content(size) for size in (0, 5, 5000)]
    for content in contents:
        await store.put(Digest.of(content), content)
    sha512 = Digest.of(CONTENT, "sha512")
    await store.put(sha512, CONTENT)
    expected = {Digest.of(content): len(content) for content in contents} | {sha512: len(CONTENT)}
    assert dict(pool.iterate()) == expected


async def test_what_is_no_blob_is_passed_over(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "blobs" / "sha256" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "ab" / "notes.txt").write_text("mine")
    (tmp_path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex).mkdir(parents=True)
    assert list(store.pool.iterate()) == []


async def test_publishing_is_told_whoever_asked(tmp_path: Path) -> None:
    stored: list[tuple[Digest, int]] = []
    store = BlobStore(tmp_path, on_stored=lambda digest, size: stored.append((digest, size)))
    await store.put(DIGEST, CONTENT)
    small, large = Supplier(make_content(3000)), Supplier(make_content(2_000_000))
    for supplier in (small, large):
        async with store.join(supplier.digest, None, supplier.fetch) as pull:
            await read_all(pull)
        await until(lambda: store.running() == 0)
    assert stored == [(DIGEST, len(CONTENT)), (small.digest, 3000), (large.digest, 2_000_000)]


async def test_cleaning_removes_what_nobody_goes_on_with(store: BlobStore, tmp_path: Path) -> None:
    young, old, long, other = (Digest.of(bytes([number])) for number in range(4))
    put_part(tmp_path, young.fallback_tag, b"12345")
    put_part(tmp_path, f"{young.fallback_tag}.json", b'{"size": 9, "etag": null, "supplier": null}')
    put_part(tmp_path, old.fallback_tag, b"12345", PART_MAX_AGE_SECONDS + 60)
    put_part(tmp_path, f"{old.fallback_tag}.json", b"{}")
    put_part(tmp_path, long.fallback_tag, b"12345")
    put_part(tmp_path, f"{long.fallback_tag}.json", b'{"size": 4, "etag": null, "supplier": null}')
    put_part(tmp_path, f"{other.fallback_tag}.json", b"{}")
    put_part(tmp_path, f"{young.fallback_tag}.json.77", b"{")
    put_part(tmp_path, f"put-{DIGEST.fallback_tag}-1-a", b"12")
    put_part(tmp_path, "notes", b"")
    put_part(tmp_path, Digest.of(b"empty").fallback_tag, b"")
    await store.clean_parts()
    assert names(tmp_path / "parts") == [young.fallback_tag, f"{young.fallback_tag}.json"]


async def test_parts_that_rest_longest_are_shed_first_and_those_in_use_never(
    store: BlobStore, tmp_path: Path
) -> None:
    old, young, newest, led = (Digest.of(bytes([number])) for number in range(4))
    for digest, age in ((old, 300), (young, 200), (newest, 100), (led, 400)):
        put_part(tmp_path, digest.fallback_tag, b"12345", age)
        put_part(tmp_path, f"{digest.fallback_tag}.json", b"{}", age)
    part = store._files.claim(led)
    try:
        assert store.pool.shed_parts(15) == 15
        assert store.pool.shed_parts(9) == 5
        assert names(tmp_path / "parts") == sorted(
            f"{digest.fallback_tag}{end}" for digest in (newest, led) for end in ("", ".json")
        )
    finally:
        part.close()
    assert store.pool.shed_parts(0) == 0
    assert names(tmp_path / "parts") == []


async def test_a_part_that_was_begun_anew_meanwhile_is_not_shed(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = put_part(tmp_path, DIGEST.fallback_tag, b"12345")
    lock = Part.try_lock

    def replaced(self: Part) -> bool:
        put_part(tmp_path, "another", b"new").replace(part)
        return lock(self)

    monkeypatch.setattr(Part, "try_lock", replaced)
    assert await asyncio.to_thread(store.pool.shed_parts, 0) == 5
    assert await asyncio.to_thread(store.pool.clean_parts, -1) == []
    assert part.read_bytes() == b"new"


async def test_sidecar_tells_size_and_etag_or_nothing(store: BlobStore, tmp_path: Path) -> None:
    part: Part = store._files.claim(DIGEST)
    try:
        assert part.known() == Known()
        part.tell(Known(7, Mark("quay.io/team/app", '"x"')))
        assert part.known() == Known(7, Mark("quay.io/team/app", '"x"'))
        part.tell(Known(7, None))
        assert part.known() == Known(7, None)
        for broken in (b"", b"[]", b"{}", b'{"size": -1, "etag": 1, "supplier": 2}', b"\xff", b'{"size": "7"'):
            put_part(tmp_path, f"{DIGEST.fallback_tag}.json", broken)
            assert part.known() == Known()
    finally:
        part.close()
