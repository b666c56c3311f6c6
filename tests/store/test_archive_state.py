"""What was learnt of archives is there after a restart, and only for the very file that it was learnt of."""

from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.store.archive_file import Stamp
from mirror.store.archive_state import ArchiveState, UnpackRecord
from mirror.store.layer_hashes import StoredLayer
from mirror.store.tar_index import Member

KEY = Digest.of(b"key")
STAMP = Stamp(10, 20, 2**64 - 1)
LAYERS = {Member(512, 2**42): StoredLayer(KEY, Digest.of(b"x")), Member(0, 1): StoredLayer(KEY, KEY)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "archives.sqlite"


def test_known_again_after_a_restart_by_path_and_stamp(file: Path) -> None:
    odd = "/a/\udcff\n.tar"
    with ArchiveState(file) as state:
        state.remember_unpacked(odd, STAMP, UnpackRecord(KEY))
        state.remember_layers(odd, STAMP, LAYERS)
    with ArchiveState(file) as state:
        assert state.unpacked(odd, STAMP) == UnpackRecord(KEY)
        assert state.layers(odd, STAMP) == LAYERS
        assert state.keys() == {KEY}
        for other in (Stamp(11, 20, 2**64 - 1), Stamp(10, 21, 2**64 - 1), Stamp(10, 20, 3)):
            assert state.unpacked(odd, other) is None
            assert state.layers(odd, other) == {}
        assert state.unpacked("/other", STAMP) is None


def test_what_failed_is_remembered_until_the_next_start(file: Path) -> None:
    broken = {Member(7, 7): StoredLayer(KEY, None, "a bomb")}
    with ArchiveState(file) as state:
        state.remember_unpacked("/broken", STAMP, UnpackRecord(None, "a bomb"))
        state.remember_layers("/a", STAMP, LAYERS | broken)
        assert state.unpacked("/broken", STAMP) == UnpackRecord(None, "a bomb")
        assert state.layers("/a", STAMP) == LAYERS | broken
    with ArchiveState(file) as state:
        assert state.unpacked("/broken", STAMP) is None
        assert state.layers("/a", STAMP) == LAYERS


def test_of_a_replaced_archive_nothing_old_is_kept(file: Path) -> None:
    later = Stamp(1, 2, 3)
    with ArchiveState(file) as state:
        state.remember_layers("/a", STAMP, LAYERS)
        state.remember_layers("/a", later, {Member(5, 5): StoredLayer(KEY, KEY)})
        assert state.layers("/a", STAMP) == {}
        assert state.layers("/a", later) == {Member(5, 5): StoredLayer(KEY, KEY)}


def test_archives_that_are_gone_are_forgotten(file: Path) -> None:
    with ArchiveState(file) as state:
        for path in ("/a", "/b"):
            state.remember_unpacked(path, STAMP, UnpackRecord(KEY))
            state.remember_layers(path, STAMP, LAYERS)
        state.forget_others(["/b", "/c"])
        assert state.unpacked("/a", STAMP) is None
        assert state.layers("/a", STAMP) == {}
        assert state.unpacked("/b", STAMP) == UnpackRecord(KEY)
        assert state.layers("/b", STAMP) == LAYERS


def test_a_damaged_file_is_begun_anew(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"no database at all " * 100)
    with ArchiveState(file) as state:
        assert state.unpacked("/a", STAMP) is None
        state.remember_unpacked("/a", STAMP, UnpackRecord(KEY))
        assert state.unpacked("/a", STAMP) == UnpackRecord(KEY)


def test_two_processes_share_it(file: Path) -> None:
    with ArchiveState(file) as first, ArchiveState(file) as second:
        first.remember_unpacked("/a", STAMP, UnpackRecord(KEY))
        assert second.unpacked("/a", STAMP) == UnpackRecord(KEY)
        second.remember_unpacked("/a", STAMP, UnpackRecord(None, "now broken"))
        assert first.unpacked("/a", STAMP) == UnpackRecord(None, "now broken")
