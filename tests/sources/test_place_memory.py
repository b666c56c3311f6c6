"""What scans remember for the next start: an index, never more than the files say."""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from mirror.sources.scan import Scan
from mirror.sources.scan_settings import Root, ScanSettings
from mirror.sources.scanners import scanner_of
from tests.sources.scans import FOLDERS, Content, settings_of, write, write_all


def start(settings_: ScanSettings) -> Scan:
    """What a new process finds at its first scan, and remembers."""
    scanner = scanner_of(settings_)
    scan = scanner.scan()
    scanner.save()
    return scan


@given(FOLDERS)
@settings(max_examples=40, deadline=None)
def test_a_warm_start_finds_what_a_cold_one_finds(folders: Mapping[str, Content]) -> None:
    with tempfile.TemporaryDirectory() as work:
        root = Path(work, "root")
        write_all(root, folders)
        wanted = settings_of(Path(work), root)
        cold = start(wanted)
        warm = start(wanted)
        assert warm.places == cold.places
        assert warm.problems == cold.problems
        assert warm.jobs == cold.jobs


@pytest.fixture
def warm(tmp_path: Path) -> ScanSettings:
    """Two layouts and an archive, all remembered."""
    root = tmp_path / "root"
    write_all(root, {"app": Content(("1", "")), "team/web": Content(("2",)), "saved.tar": Content(("shared:1",))})
    return settings_of(tmp_path, root)


def remembered_and_old(warm: ScanSettings) -> Scan:
    """Scan until the clock of the file system tells that nothing can have changed unseen."""
    scanner = scanner_of(warm)
    scan = scanner.scan()
    while scanner.scan().reads:
        pass
    scanner.save()
    return scan


def test_a_warm_start_reads_nothing(warm: ScanSettings) -> None:
    first = remembered_and_old(warm)
    assert first.reads == 3
    again = start(warm)
    assert again.reads == 0
    assert again.places == first.places


def test_only_what_changed_since_is_read(warm: ScanSettings, tmp_path: Path) -> None:
    remembered_and_old(warm)
    write(tmp_path / "root" / "app", Content(("9",)))
    again = start(warm)
    assert again.reads == 1
    assert {naming.tag for place in again.places for entry in place.entries for naming in entry.namings} >= {"9"}


def _delete(file: Path) -> None:
    file.unlink()


def _garbage(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)


def _torn(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _other_content(file: Path) -> None:
    database = sqlite3.connect(file)
    database.execute("UPDATE places SET content = replace(content, 'sha256', 'sha512')")
    database.commit()
    database.close()


def _other_schema(file: Path) -> None:
    file.unlink()
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE places (other INTEGER)")
    database.commit()
    database.close()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [_delete, _garbage, _torn, _other_content, _other_schema, _folder])
def test_a_damaged_memory_loses_nothing(warm: ScanSettings, damage: Callable[[Path], None]) -> None:
    first = remembered_and_old(warm)
    damage(Path(warm.places_file))
    again = start(warm)
    assert again.places == first.places
    assert again.reads == 3
    # A folder in its place is nothing that this program put there.
    assert start(warm).reads == (3 if damage is _folder else 0)


def test_another_configuration_is_another_memory(warm: ScanSettings) -> None:
    """Names depend on prefix, host and the mirror's own names."""
    remembered_and_old(warm)
    prefixed = replace(warm, roots=[Root(warm.roots[0].path, prefix="mine")])
    again = start(prefixed)
    assert again.reads == 3
    assert {str(place.name) for place in again.places} >= {"mine/app", "mine/team/web"}


def test_what_went_is_forgotten(warm: ScanSettings, tmp_path: Path) -> None:
    remembered_and_old(warm)
    (tmp_path / "root" / "saved.tar").unlink()
    start(warm)
    database = sqlite3.connect(warm.places_file)
    paths = [os.fsdecode(path) for (path,) in database.execute("SELECT path FROM places")]
    database.close()
    assert sorted(map(os.path.basename, paths)) == ["app", "web"]
