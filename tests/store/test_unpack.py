"""Compressed archives are unpacked whole or not at all, within bounds, once per content."""

import fcntl
import gzip
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.store.archive_file import ArchiveError, ArchiveInvalid, ArchiveUnreadable
from mirror.store.lock import locked
from mirror.store.unpack import UnpackFailed, archive_kind, drop_unpacked, unpack

MIB = 1024 * 1024
HEADER = tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT)
CONTENT = HEADER + random.Random(5).randbytes(300_000) + bytes(3 * MIB)


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


@pytest.fixture
def into(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "unpacked")


def left_in(into: str) -> list[str]:
    return sorted(path.name for path in Path(into).iterdir()) if Path(into).exists() else []


@pytest.mark.parametrize("name", ["a.tar.gz", "misnamed.tar"])
@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_unpacked_by_content_whatever_the_name(
    tmp_path: Path, into: str, name: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / name
    path.write_bytes(pack(CONTENT))
    done = unpack(str(path), into, 64 * MIB)
    assert Path(done.path).read_bytes() == CONTENT
    assert done.key == Digest.of(path.read_bytes())
    assert Path(done.path).name == f"{done.key.hex}.tar"
    assert left_in(into) == [Path(done.path).name]
    assert archive_kind(str(path)) in ("gzip", "zstd")


def test_who_waits_for_another_process_finds_its_tar(tmp_path: Path, into: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(CONTENT, mtime=0))
    target = Path(into) / f"{Digest.of(path.read_bytes()).hex}.tar"
    with ThreadPoolExecutor(1) as pool:
        with locked(f"{into}.lock"):
            waiting = pool.submit(unpack, str(path), into, 64 * MIB)
            # The other process is done before it lets go.
            target.parent.mkdir(parents=True)
            target.write_bytes(CONTENT)
            made = target.stat()
        assert waiting.result(30).path == str(target)
    assert (target.stat().st_ino, left_in(into)) == (made.st_ino, [target.name])


def test_two_archives_of_one_content_share_one_tar(tmp_path: Path, into: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(gzip.compress(CONTENT, mtime=0))
    first = unpack(str(tmp_path / "a"), into, 64 * MIB)
    made = Path(first.path).stat()
    second = unpack(str(tmp_path / "b"), into, 64 * MIB)
    assert (second.path, second.key) == (first.path, first.key)
    assert Path(first.path).stat() == made


def test_several_gzip_members_and_zstd_frames_are_one_content(tmp_path: Path, into: str) -> None:
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    parts = {
        "gz": [gzip.compress(HEADER[:9]), gzip.compress(HEADER[9:])],
        "zst": [skippable, zstd(HEADER[:9]), skippable, zstd(HEADER[9:])],
    }
    for name, members in parts.items():
        (tmp_path / name).write_bytes(b"".join(members))
        assert Path(unpack(str(tmp_path / name), into, MIB).path).read_bytes() == HEADER


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_cut_or_changed_anywhere_nothing_is_left(tmp_path: Path, into: str, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(CONTENT[:3000])
    path = tmp_path / "a"
    for cut in (5, 11, 100, len(whole) // 2, len(whole) - 4, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArchiveInvalid):
            unpack(str(path), into, MIB)
        path.write_bytes(whole[:cut] + bytes([whole[cut] ^ 0x55]) + whole[cut + 1 :])
        if cut > 11:
            with pytest.raises(ArchiveInvalid):
                unpack(str(path), into, MIB)
    path.write_bytes(whole + b"something behind")
    with pytest.raises(ArchiveInvalid):
        unpack(str(path), into, MIB)
    assert left_in(into) == []


def gzip_bomb() -> bytes:
    return gzip.compress(bytes(100 * MIB), 9)


def zstd_bomb() -> bytes:
    """4 GiB in run-length blocks of 128 KiB that take four bytes each (RFC 8878, 3.1.1)."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0x38])  # no checksum, no size; a window of 128 KiB
    block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return header + block * (4 * 1024 * 8) + b"\x01\0\0"


@pytest.mark.parametrize("bomb", [gzip_bomb, zstd_bomb])
def test_bombs_cost_neither_memory_nor_disk(tmp_path: Path, into: str, bomb: Callable[[], bytes]) -> None:
    (tmp_path / "bomb").write_bytes(bomb())
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveInvalid, match=f"more than {50 * MIB} bytes"):
            unpack(str(tmp_path / "bomb"), into, 50 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 80 * MIB
    finally:
        tracemalloc.stop()
    assert left_in(into) == []


def test_a_window_of_gibibytes_is_refused(tmp_path: Path, into: str) -> None:
    (tmp_path / "wide").write_bytes(b"\x28\xb5\x2f\xfd" + bytes([0x00, 0xA8]) + b"\x01\0\0")
    with pytest.raises(ArchiveInvalid, match="memory"):
        unpack(str(tmp_path / "wide"), into, MIB)


def test_the_last_bytes_of_the_disk_stay_free(tmp_path: Path, into: str) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(CONTENT))
    with pytest.raises(UnpackFailed, match="would stay free"):
        unpack(str(tmp_path / "a"), into, 64 * MIB, reserve_bytes=2**60)
    assert left_in(into) == []


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(CONTENT))
    (tmp_path / "file").touch()
    with pytest.raises(UnpackFailed):
        unpack(str(tmp_path / "a"), str(tmp_path / "file"), 64 * MIB)


def test_a_compressed_log_is_refused_before_it_is_unpacked(tmp_path: Path, into: str) -> None:
    (tmp_path / "log.gz").write_bytes(gzip.compress(b"line\n" * 1_000_000))
    with pytest.raises(ArchiveInvalid, match="not a tar"):
        unpack(str(tmp_path / "log.gz"), into, 2 * MIB)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xfd7zXZ\0" + bytes(100), b"BZh9" + bytes(100), bytes(1024)])
def test_other_kinds_are_refused(tmp_path: Path, into: str, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArchiveInvalid):
        unpack(str(tmp_path / "a"), into, MIB)
    assert left_in(into) == []


def test_fifos_are_errors_at_once(tmp_path: Path, into: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ArchiveUnreadable):
        unpack(str(tmp_path / "fifo"), into, MIB)


def test_dropping_keeps_what_is_used_young_or_being_written(tmp_path: Path, into: str) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(gzip.compress(HEADER + name.encode()))
        made.append(unpack(str(tmp_path / name), into, MIB))
    (Path(into) / "notes.txt").touch()
    (Path(into) / ".part-left").touch()
    (Path(into) / ".part-alive").touch()
    with (Path(into) / ".part-alive").open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert drop_unpacked(into, []) == []
        removed = drop_unpacked(into, [made[0].key], min_age_seconds=0)
    assert sorted(removed) == sorted([f"{into}/.part-left", made[1].path])
    assert left_in(into) == sorted([".part-alive", Path(made[0].path).name, "notes.txt"])
    assert drop_unpacked(str(tmp_path / "missing"), []) == []


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["gzip", "zstd"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4),
)
def test_mutated_content_is_unpacked_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, bytes]]
) -> None:
    text = HEADER + b"".join(b"line %d\n" % number for number in range(400))
    content = bytearray(gzip.compress(text, mtime=0) if kind == "gzip" else zstd(text))
    for number, new in changes:
        position = number % len(content)
        content[position : position + len(new)] = new
    folder = tmp_path_factory.getbasetemp()
    (folder / "mutated").write_bytes(bytes(content))
    try:
        done = unpack(str(folder / "mutated"), str(folder / "unpacked"), MIB)
    except ArchiveError:
        return
    # Only fields that mean nothing for the content (a time, a name) may have changed.
    assert Path(done.path).read_bytes() == text
