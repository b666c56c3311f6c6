"""Archives that are compressed, broken, unreadable, moved or gone: what is served of them, and what is kept."""

import gzip
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from mirror.oci.digest import Digest
from mirror.store.body import FileSlice
from tests.sources import archives
from tests.sources.archives import layer, packed, sha256, tar_of
from tests.sources.local_folder import MAX_UNPACKED_BYTES, LocalFolder, end_of_archive, root

BASE, TOP = layer("base"), layer("top")
SAVED = tar_of(archives.podman(["quay.io/team/app:1"], [BASE, TOP]))
APP = "quay.io/team/app"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def folder(tmp_path: Path, files: Path) -> Iterator[LocalFolder]:
    with LocalFolder(tmp_path / "cache", root(files)) as made:
        yield made


def unpacked(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "unpacked").glob("*"))


@pytest.mark.parametrize("name", ["app.tar.gz", "app.tgz", "app.tar.zst", "app.tar"])
def test_a_compressed_archive_is_served_once_unpacked_whatever_its_name(
    files: Path, folder: LocalFolder, name: str
) -> None:
    compressed = zstandard.compress(SAVED) if name.endswith("zst") else packed(SAVED)
    (files / name).write_bytes(compressed)
    first = folder.scanner.scan()
    assert first.places == ()
    assert [job.unpacks for job in first.jobs] == [True]
    assert folder.look().digest(APP, "1")
    assert folder.blob(APP, f"sha256:{sha256(BASE)}") == BASE


def test_two_archives_of_one_content_are_unpacked_once(tmp_path: Path, files: Path, folder: LocalFolder) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        (files / name).write_bytes(packed(SAVED))
    folder.look()
    assert len(unpacked(tmp_path)) == 1
    (files / "a.tar.gz").unlink()
    assert folder.look().digest(APP, "1")
    assert folder.blob(APP, f"sha256:{sha256(BASE)}") == BASE


def test_an_unpacked_copy_that_somebody_removed_is_made_again(
    tmp_path: Path, files: Path, folder: LocalFolder
) -> None:
    (files / "app.tar.gz").write_bytes(packed(SAVED))
    digest = folder.look().digest(APP, "1")
    unpacked(tmp_path)[0].unlink()
    assert folder.look().digest(APP, "1") == digest
    assert folder.blob(APP, f"sha256:{sha256(BASE)}") == BASE


def test_the_unpacked_copy_goes_with_its_archive_also_when_it_was_young_then(
    tmp_path: Path, files: Path, folder: LocalFolder
) -> None:
    folder.shelf.min_unpacked_age_seconds = 1.0
    (files / "app.tar.gz").write_bytes(packed(SAVED))
    folder.look()
    (files / "app.tar.gz").unlink()
    folder.look()
    deadline = time.monotonic() + 20
    while unpacked(tmp_path):
        assert time.monotonic() < deadline, "the unpacked copy is never dropped"
        folder.look()


def test_a_moved_archive_keeps_its_unpacked_copy(tmp_path: Path, files: Path, folder: LocalFolder) -> None:
    folder.shelf.min_unpacked_age_seconds = 0.0
    (files / "app.tar.gz").write_bytes(packed(SAVED))
    folder.look()
    (before,) = unpacked(tmp_path)
    inode = before.stat().st_ino
    (files / "app.tar.gz").rename(files / "moved.tar.gz")
    assert folder.look().digest(APP, "1")
    (after,) = unpacked(tmp_path)
    assert after.stat().st_ino == inode


def test_somebody_who_only_looks_drops_nothing(tmp_path: Path, files: Path, folder: LocalFolder) -> None:
    folder.shelf.min_unpacked_age_seconds = 0.0
    (files / "app.tar.gz").write_bytes(packed(SAVED))
    folder.look()
    with LocalFolder(tmp_path / "cache", root(tmp_path / "others"), tidies=False) as other:
        other.look()
    assert len(unpacked(tmp_path)) == 1
    assert folder.scanner.scan().changed is False


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
def test_a_bomb_is_refused_and_leaves_nothing(
    tmp_path: Path, files: Path, folder: LocalFolder, compress: Callable[[bytes], bytes]
) -> None:
    (files / "bomb.tar.gz").write_bytes(compress(bytes(64 * MAX_UNPACKED_BYTES)))
    (files / "good.tar").write_bytes(SAVED)
    folder.look()
    assert f"unpacks to more than {MAX_UNPACKED_BYTES} bytes" in folder.problems()["bomb.tar.gz"]
    assert unpacked(tmp_path) == []
    assert folder.digest(APP, "1")
    # It is known for what it is: nobody unpacks it at every turn.
    assert folder.scanner.scan().jobs == ()


def huge() -> bytes:
    header = bytearray(SAVED)
    header[124:136] = b"\x80" + (2**40).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


BROKEN = {
    "truncated": (SAVED[:1000], "beyond"),
    "no end": (SAVED.rstrip(b"\0"), "cut short"),
    "garbage": (b"\x9d" * 4096, "not an archive"),
    "garbage inside": (SAVED[:10752] + b"\x9d" * 4096, "no header"),
    "a tebibyte": (huge(), "1099511627776 bytes reaches beyond"),
    "empty": (b"", "not an archive"),
    "nothing in it": (end_of_archive(), "neither a layout"),
    "half a gzip": (packed(SAVED)[:-20], "gzip"),
    "xz": (b"\xfd7zXZ\0" + bytes(1000), "xz is not unpacked"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_said_with_its_path_and_costs_nothing_else(
    files: Path, folder: LocalFolder, kind: str
) -> None:
    content, reason = BROKEN[kind]
    (files / "broken.tar").write_bytes(content)
    (files / "good.tar").write_bytes(SAVED)
    folder.look()
    assert folder.names() == [APP]
    said = folder.problems()
    assert list(said) == ["broken.tar"]
    assert any(part in said["broken.tar"] for part in reason.split("|")), said


def test_a_fifo_and_a_folder_of_that_name_do_not_stop_the_scan(files: Path, folder: LocalFolder) -> None:
    os.mkfifo(files / "fifo.tar")
    (files / "folder.tar").mkdir()
    (files / "folder.tar" / "good.tar").write_bytes(SAVED)
    folder.look()
    assert folder.names() == [APP]
    assert "not a regular file" in folder.problems()["fifo.tar"]


def test_an_archive_that_becomes_readable_is_served_at_the_next_turn(folder: LocalFolder, files: Path) -> None:
    # Another user's path must lead there: pytest's own folders are closed.
    with tempfile.TemporaryDirectory(prefix="mirror-shelf-") as name:
        Path(name).chmod(0o755)
        archive = Path(name) / "closed.tar"
        archive.write_bytes(SAVED)
        archive.chmod(0)
        with LocalFolder(files / "cache", root(Path(name))) as closed:
            user = os.geteuid()
            # Root reads everything: look as nobody.
            os.seteuid(65534 if user == 0 else user)
            try:
                assert "ermission denied" in (closed.look().problems())["closed.tar"]
                os.seteuid(user)
                archive.chmod(0o644)
                os.seteuid(65534 if user == 0 else user)
                assert closed.look().digest(APP, "1")
            finally:
                os.seteuid(user)
    assert folder.look().names() == []


def test_growing_under_copy_it_is_served_once_whole(files: Path, folder: LocalFolder) -> None:
    copy = files / "app.tar"
    end_of_content = len(SAVED.rstrip(b"\0"))
    for end in range(0, end_of_content, end_of_content // 8):
        copy.write_bytes(SAVED[:end])
        assert folder.look().names() == []
        assert "app.tar" in folder.problems()
    copy.write_bytes(SAVED)
    assert folder.look().digest(APP, "1")
    assert folder.problems() == {}


def test_rewritten_in_place_it_is_gone_until_whole(files: Path, folder: LocalFolder) -> None:
    archive = files / "app.tar"
    archive.write_bytes(SAVED)
    assert folder.look().digest(APP, "1")
    other = tar_of(archives.podman(["quay.io/team/app:1"], [layer("other")]))
    with archive.open("r+b") as file:
        file.truncate(0)
        file.write(other[: len(other) // 2])
        file.flush()
        # Also before the next scan: bytes are only taken from the very file that was read.
        assert folder.blob(APP, f"sha256:{sha256(BASE)}") is None
        assert folder.look().names() == []
        file.write(other[len(other) // 2 :])
    assert folder.look().blob(APP, f"sha256:{sha256(layer('other'))}") == layer("other")
    assert folder.blob(APP, f"sha256:{sha256(BASE)}") is None


def test_a_pull_that_has_begun_ends_with_the_old_bytes_after_a_rename(files: Path, folder: LocalFolder) -> None:
    archive = files / "app.tar"
    archive.write_bytes(SAVED)
    folder.look()
    repository = folder.view.snapshot.repositories[next(iter(folder.view.snapshot.repositories))]
    digest = Digest.of(BASE)
    with folder.view.blob(repository, digest) as body:
        assert isinstance(body, FileSlice)
        part = files / ".part"
        part.write_bytes(tar_of(archives.podman(["quay.io/team/app:1"], [layer("other")])))
        part.replace(archive)
        folder.look()
        assert os.pread(body.fd, body.size, body.offset) == BASE
    assert folder.blob(APP, digest) is None


def test_parts_of_a_bundle_are_one_content_in_whichever_order_they_come(files: Path, folder: LocalFolder) -> None:
    descriptor, blobs = archives.image([BASE, TOP])
    index = archives.layout([archives.named(descriptor, **{archives.REF_NAME: "quay.io/team/app:1"})], {})
    archives.write(files / "bundle.0.tar", index)
    assert folder.look().digest(APP, "1") is None
    names = list(blobs)
    archives.write(files / "bundle.1.tar", {name: blobs[name] for name in names[:2]})
    archives.write(files / "bundle.2.tar", {name: blobs[name] for name in names[2:]})
    assert folder.look().digest(APP, "1") == descriptor["digest"]
    assert folder.blob(APP, f"sha256:{sha256(TOP)}") == TOP
    assert folder.names() == [APP]
