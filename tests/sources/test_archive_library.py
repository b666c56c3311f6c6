"""Bytes out of archives: from the file that was read, and from no other by its name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.sources.archive_reader import ArchiveReader
from mirror.sources.library import Library
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.sources.snapshot import Snapshot
from mirror.store.archive_state import ArchiveState
from mirror.store.body import FileSlice
from tests.sources import archives
from tests.sources.archives import packed, tar_of
from tests.sources.read_archives import BASE, LIMIT, TOP, at, only

IMAGE = archives.podman(["team/app:1"], [BASE, TOP])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ArchiveReader]:
    with ArchiveState(tmp_path / "cache" / "archives.sqlite") as state:
        yield ArchiveReader(state, str(tmp_path / "cache" / "unpacked"), LIMIT)


def served(library: Library, place: Place | None, content: bytes) -> bytes | None:
    with library.blob(Digest.of(content), place, frozenset({len(content)})) as body:
        if body is None:
            return None
        assert isinstance(body, FileSlice)
        return os.pread(body.fd, body.size, body.offset)


@pytest.mark.parametrize("name", ["app.tar", "app.tgz"])
def test_an_image_of_an_archive_is_served_whole(tmp_path: Path, reader: ArchiveReader, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(tar_of(IMAGE) if name == "app.tar" else packed(tar_of(IMAGE)))
    if name == "app.tgz":
        reader.unpack(at(path))
    place = only(reader.read(at(path), Namer()))
    library = Library(Snapshot.of([place], {}))
    entry = place.entries[0]
    found = library.manifest(entry.descriptor.digest, place, entry.descriptor.media_type)
    assert found is not None
    assert found.manifest.content == entry.content
    for near in (place, None):
        assert [served(library, near, layer) for layer in (BASE, TOP)] == [BASE, TOP]
    config = archives.config([BASE, TOP])
    assert library.content(Digest.of(config), place, LIMIT) == config
    assert served(library, place, b"something else") is None


def test_another_archive_by_the_same_name_is_not_taken_for_it(tmp_path: Path, reader: ArchiveReader) -> None:
    path = archives.write(tmp_path / "app.tar", IMAGE)
    place = only(reader.read(at(path), Namer()))
    library = Library(Snapshot.of([place], {}))
    with library.blob(Digest.of(BASE), place, frozenset({len(BASE)})) as body:
        assert isinstance(body, FileSlice)
        archives.write(tmp_path / "new", {"first": b"moves everything", **IMAGE}).rename(path)
        # What has begun goes on with the file that it began with.
        assert os.pread(body.fd, body.size, body.offset) == BASE
    assert served(library, place, BASE) is None
    assert library.content(Digest.of(archives.config([BASE, TOP])), place, LIMIT) is None
