"""Archives from day to day: slow work once, remembered, and never for another file by the same name."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from mirror.oci.digest import Digest
from mirror.sources.archive import ArchivePath
from mirror.sources.archive_reader import ArchiveReader, NotAnArchive, NotUnpacked
from mirror.sources.naming import Namer
from mirror.store.archive_file import ArchiveInvalid
from mirror.store.archive_state import ArchiveState
from tests.sources import archives
from tests.sources.archives import layer, packed, tar_of

BASE = layer("base")
LIMIT = 1024 * 1024
NAMER = Namer()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ArchiveReader]:
    with ArchiveState(tmp_path / "cache" / "archives.sqlite") as state:
        yield ArchiveReader(state, str(tmp_path / "cache" / "unpacked"), LIMIT)


def at(path: Path) -> ArchivePath:
    return ArchivePath(str(path), str(path.parent), (path.name,))


def unpacked_files(reader: ArchiveReader) -> list[str]:
    return [path.name for path in Path(reader.unpacked_folder).iterdir()]


@pytest.mark.parametrize("name", ["app.tar.gz", "app.tar.zst"])
def test_a_compressed_archive_is_unpacked_once_and_served_from_there(
    folder: Path, reader: ArchiveReader, name: str
) -> None:
    content = tar_of(archives.podman(["team/app:1"], [BASE]))
    path = folder / name
    path.write_bytes(packed(content) if name.endswith("gz") else zstandard.compress(content))
    with pytest.raises(NotUnpacked):
        reader.read(at(path), NAMER)
    reader.unpack(at(path))
    contents = reader.read(at(path), NAMER)
    place = contents.places[0]
    assert (place.path, place.modified_ns) == (str(path), path.stat().st_mtime_ns)
    assert place.members is not None
    member = place.members[Digest.of(BASE)]
    assert Path(place.bytes_path).read_bytes()[member.offset : member.offset + member.size] == BASE
    assert str(reader.read(at(path), NAMER).places[0].entries[0].namings[0].name) == "docker.io/team/app"


def test_a_tar_is_served_where_it_lies(folder: Path, reader: ArchiveReader) -> None:
    path = archives.write(folder / "app.tar", archives.podman(["team/app:1"], [BASE]))
    place = reader.read(at(path), NAMER).places[0]
    assert place.bytes_path == str(path)


def test_layers_are_hashed_once_and_known_after_a_restart(folder: Path, tmp_path: Path) -> None:
    files = dict(archives.podman(["team/app:1"], [BASE]))
    files[f"{archives.sha256(BASE)}.tar"] = packed(BASE)
    path = archives.write(folder / "app.tar", files)
    file = tmp_path / "archives.sqlite"
    with ArchiveState(file) as state:
        reader = ArchiveReader(state, str(tmp_path / "unpacked"), LIMIT)
        contents = reader.read(at(path), NAMER)
        assert contents.needs_hashing
        reader.hash(contents)
    with ArchiveState(file) as state:
        reader = ArchiveReader(state, str(tmp_path / "unpacked"), LIMIT)
        contents = reader.read(at(path), NAMER)
        assert (contents.needs_hashing, contents.unverified) == ((), ())
        assert len(contents.places[0].entries) == 1
        # Another file by that name is another archive, for which nothing is known.
        archives.write(folder / "new", files).rename(path)
        assert reader.read(at(path), NAMER).needs_hashing


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(bytes(3 * LIMIT)), f"more than {LIMIT} bytes"),
        (packed(tar_of({}))[:-5], "gzip"),
        (packed(b"no tar" * 1000), "not a tar"),
        (packed(packed(tar_of({}))), "not a tar"),
    ],
)
def test_what_is_wrong_with_a_compressed_archive_is_said_at_each_reading(
    folder: Path, reader: ArchiveReader, content: bytes, reason: str
) -> None:
    path = folder / "app.tgz"
    path.write_bytes(content)
    reader.unpack(at(path))
    for _ in range(2):
        with pytest.raises(ArchiveInvalid, match=reason):
            reader.read(at(path), NAMER)


def test_a_replaced_archive_is_unpacked_anew(folder: Path, reader: ArchiveReader) -> None:
    path = folder / "app.tgz"
    path.write_bytes(packed(tar_of(archives.podman(["a/b:1"], [BASE]))))
    reader.unpack(at(path))
    path.write_bytes(packed(tar_of(archives.podman(["a/b:2"], [BASE]))))
    with pytest.raises(NotUnpacked):
        reader.read(at(path), NAMER)
    reader.unpack(at(path))
    assert reader.read(at(path), NAMER).places[0].entries[0].namings[0].tag == "2"


def test_a_tar_that_was_deleted_from_the_cache_is_unpacked_anew(folder: Path, reader: ArchiveReader) -> None:
    path = folder / "app.tgz"
    path.write_bytes(packed(tar_of({})))
    reader.unpack(at(path))
    for file in Path(reader.unpacked_folder).iterdir():
        file.unlink()
    with pytest.raises(NotUnpacked):
        reader.read(at(path), NAMER)


def test_tars_are_dropped_with_the_last_archive_of_their_content(folder: Path, reader: ArchiveReader) -> None:
    for name in ("a.tgz", "b.tgz"):
        (folder / name).write_bytes(packed(tar_of({})))
        reader.unpack(at(folder / name))
    (folder / "c.tgz").write_bytes(gzip.compress(tar_of({"x": b""})))
    reader.unpack(at(folder / "c.tgz"))
    assert len(unpacked_files(reader)) == 2
    reader.forget_others([str(folder / "a.tgz")], min_age_seconds=0)
    assert len(unpacked_files(reader)) == 1
    reader.forget_others([], min_age_seconds=0)
    assert unpacked_files(reader) == []


def test_other_files_are_told_from_broken_archives(folder: Path, reader: ArchiveReader) -> None:
    (folder / "README").write_text("hello " * 200)
    with pytest.raises(NotAnArchive):
        reader.read(at(folder / "README"), NAMER)
    (folder / "README").rename(folder / "README.tar")
    with pytest.raises(ArchiveInvalid):
        reader.read(at(folder / "README.tar"), NAMER)
