"""The index over the files of the cache: last uses, revalidations, sizes."""

import logging
import sqlite3
import time
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.index import CacheIndex, StoredLinks, Use
from tests.store.blob_files import name_of, some_descriptor

NAME = name_of("docker.io/library/ubuntu")
BLOB = Digest.of(b"blob")


def test_times_outlive_the_process(tmp_path: Path) -> None:
    with CacheIndex(tmp_path / "index.db") as index:
        assert index.rebuilt
        index.touch(NAME, "latest", 1000)
        index.touch(NAME, BLOB, 1500)
        index.touch_checked(NAME, "latest", 2000)
        index.touch(NAME, "latest", 500)
    with CacheIndex(tmp_path / "index.db") as index:
        assert not index.rebuilt
        assert index.uses() == {(str(NAME), "latest"): Use(2000, 2000), (str(NAME), BLOB): Use(1500, 0)}
        assert index.checked_at(NAME, "latest") == 2000
        assert index.checked_at(NAME, "else") == 0


def test_usage_counts_each_blob_once_whoever_reports_it(tmp_path: Path) -> None:
    with CacheIndex(tmp_path / "index.db") as one, CacheIndex(tmp_path / "index.db") as other:
        for index in (one, other, one):
            index.blob_added(BLOB, 5000)
            index.flush()
        assert other.usage_bytes() == 8192
        assert other.blob_count() == 1
        one.blob_added(BLOB, 3)
        one.flush()
        assert other.usage_bytes() == 4096
        other.blob_removed(BLOB)
        other.blob_removed(Digest.of(b"never there"))
        other.flush()
        assert one.usage_bytes() == 0
        assert one.blobs() == {}


def test_a_write_that_another_process_keeps_from_beginning_is_lost_and_later_ones_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CacheIndex(tmp_path / "index.db") as index:
        other = sqlite3.connect(tmp_path / "index.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        index.blob_added(BLOB, 5000)
        index.flush()
        assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
            "the cache's index cannot be used"
        ]
        other.execute("ROLLBACK")
        other.close()
        index.blob_added(BLOB, 5000)
        deadline = time.monotonic() + 30
        while not index.blobs():
            assert time.monotonic() < deadline, "its thread goes on"


def test_who_still_asks_a_closed_index_gets_nothing_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A mirror whose port is taken ends in the middle of its first look at the cache."""
    with CacheIndex(tmp_path / "index.db") as index:
        pass
    index.blob_added(BLOB, 5000)
    index.flush()
    assert index.blobs() == {}
    assert caplog.records == []


def test_what_was_touched_is_written_within_seconds_without_being_asked(tmp_path: Path) -> None:
    with CacheIndex(tmp_path / "index.db") as one, CacheIndex(tmp_path / "index.db") as other:
        one.touch(NAME, "latest", 1000)
        deadline = time.monotonic() + 30
        while not other.uses():
            assert time.monotonic() < deadline
        one.touch_checked(NAME, "latest", 3000)
        while other.checked_at(NAME, "latest", reread=True) != 3000:
            assert time.monotonic() < deadline


def test_links_of_manifests_are_kept_and_dropped_with_them(tmp_path: Path) -> None:
    image, index_of_it = some_descriptor("image").digest, some_descriptor("index").digest
    links = {
        image: StoredLinks((), (BLOB,), index_of_it),
        index_of_it: StoredLinks((image,), (), None),
    }
    with CacheIndex(tmp_path / "index.db") as index:
        index.add_links(links)
    with CacheIndex(tmp_path / "index.db") as index:
        assert index.links() == links
        index.touch(NAME, image, 1000)
        index.flush()
        index.forget_digests([image])
        assert index.links() == {index_of_it: StoredLinks((image,), (), None)}
        assert index.uses() == {}


def test_a_forgotten_name_takes_its_times_with_it_also_those_not_yet_written(tmp_path: Path) -> None:
    other = name_of("quay.io/a/b")
    with CacheIndex(tmp_path / "index.db") as index:
        for name in (NAME, other):
            index.touch_checked(name, "latest", 1000)
            index.touch_checked(name, "edge", 1000)
        index.forget(NAME)
        index.forget(other, ["edge"])
        assert index.checked_at(NAME, "latest") == 0
        index.flush()
        assert index.uses() == {(str(other), "latest"): Use(1000, 1000)}
        index.keep_names([NAME])
        assert index.uses() == {}


def test_what_is_forgotten_is_not_brought_back_by_a_write_under_way(tmp_path: Path) -> None:
    with CacheIndex(tmp_path / "index.db") as index:
        for _ in range(200):
            index.touch_checked(NAME, "latest", 1000)
            index.forget(NAME, ["latest"])
            index.flush()
            assert index.uses() == {}


@pytest.mark.parametrize("damage", ["no database", "half", "newer", "torn middle", "other tables", "empty"])
def test_a_damaged_or_unknown_index_is_made_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "index.db"
    with CacheIndex(path) as index:
        for number in range(2000):
            index.touch(NAME, str(number), 1000)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    content = path.read_bytes()
    match damage:
        case "no database":
            path.write_bytes(b"no database " * 1000)
        case "half":
            path.write_bytes(content[: len(content) // 2 + 100])
        case "torn middle":
            path.write_bytes(content[:8192] + b"\xff" * (len(content) - 12288) + content[-4096:])
        case "newer":
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA user_version = 99")
            database.close()
        case "other tables":
            with sqlite3.connect(path) as database:
                database.execute("DROP TABLE totals")
            database.close()
        case "empty":
            path.write_bytes(b"")
    with caplog.at_level(logging.WARNING), CacheIndex(path) as index:
        assert index.rebuilt
        assert index.uses() == {}
        index.touch(NAME, "latest", 1000)
        index.blob_added(BLOB, 10)
        index.flush()
        assert index.uses() == {(str(NAME), "latest"): Use(1000, 0)}
        assert index.usage_bytes() == 4096
    assert len(caplog.records) == (0 if damage == "empty" else 1)
    with CacheIndex(path) as index:
        assert not index.rebuilt


def test_where_nothing_can_be_written_the_index_lives_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING), CacheIndex(tmp_path / "file" / "index.db") as index:
        index.touch_checked(NAME, "latest", 1000)
        index.blob_added(BLOB, 10)
        index.flush()
        assert index.usage_bytes() == 4096
        assert index.checked_at(NAME, "latest", reread=True) == 1000
    assert len(caplog.records) == 1


def test_damage_while_running_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "index.db"
    with caplog.at_level(logging.WARNING), CacheIndex(path) as index:
        with sqlite3.connect(path) as database:
            database.executescript("DROP TABLE uses; DROP TABLE totals;")
        database.close()
        for turn in range(3):
            index.touch(NAME, str(turn))
            index.flush()
            assert index.usage_bytes() == 0
            assert index.uses() == {}
            assert index.checked_at(NAME, "latest") == 0
    assert len(caplog.records) == 1
