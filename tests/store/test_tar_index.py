"""Tars of every format, whole and broken, by Python's writer and by hand."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.store import tar_headers, tar_index
from mirror.store.archive_file import (
    ArchiveChanging,
    ArchiveError,
    ArchiveInvalid,
    ArchiveUnreadable,
    open_archive,
    sniff,
)
from mirror.store.tar_index import Member, TarIndex, read_tar
from tests.store.tars import repair_checksums, with_checksum

LONG = "d" * 60 + "/" + "e" * 90 + "/" + "n" * 150
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
END = bytes(1024)


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = size, kind, link
    return made


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A header and its padded data, without the end of an archive."""
    header = info(name, len(content), kind, link).tobuf(tarfile.GNU_FORMAT)
    return header + content + bytes(-len(content) % 512)


def pax_header(records: bytes, kind: bytes = b"x") -> bytes:
    return member("pax", records, kind)


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while length != len(str(length)) + len(rest):
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "a.tar"


def read(path: Path, content: bytes) -> TarIndex:
    path.write_bytes(content)
    return read_tar(path)


def bytes_of(path: Path, found: Member | None) -> bytes:
    assert found is not None
    return path.read_bytes()[found.offset : found.offset + found.size]


@pytest.mark.parametrize("tar_format", FORMATS)
def test_every_format_gives_the_bytes_that_unpacking_gives(archive: Path, tar_format: int) -> None:
    files = {"small": b"x", "empty": b"", "dir/five hundred and twelve": b"y" * 512, "long": b"z" * 5000}
    if tar_format != tarfile.USTAR_FORMAT:
        files |= {LONG: b"long name", "größe": b"utf-8"}
    with tarfile.open(archive, "w", format=tar_format) as tar:
        tar.addfile(info("dir", kind=tarfile.DIRTYPE))
        for name, content in files.items():
            tar.addfile(info(name, len(content)), io.BytesIO(content))
        tar.addfile(info("hard", kind=tarfile.LNKTYPE, link="long"))
        tar.addfile(info("dir/soft", kind=tarfile.SYMTYPE, link="../small"))
    index = read_tar(archive)
    assert index.problems == []
    assert index.directories == {"dir"}
    assert {name: bytes_of(archive, index.find(name)) for name in files} == files
    assert bytes_of(archive, index.find("hard")) == files["long"]
    assert bytes_of(archive, index.find("dir/soft")) == b"x"
    assert set(index.names()) == {*files, "hard", "dir/soft"}


def test_v7_headers_have_no_magic_and_directories_end_with_a_slash(archive: Path) -> None:
    header = bytearray(info("file", 3).tobuf(tarfile.GNU_FORMAT))
    header[257:500] = bytes(243)
    header[345:350] = b"other"  # no prefix in this format
    header[156:157] = b"\0"
    folder = bytearray(info("folder/", 0).tobuf(tarfile.GNU_FORMAT))
    folder[257:500] = bytes(243)
    folder[156:157] = b"\0"
    content = with_checksum(bytes(header)) + b"abc" + bytes(509) + with_checksum(bytes(folder)) + END
    index = read(archive, content)
    assert bytes_of(archive, index.find("file")) == b"abc"
    assert index.directories == {"folder"}


def test_sizes_in_base_256_are_read(archive: Path) -> None:
    header = bytearray(info("file", 0).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (3).to_bytes(11, "big")
    assert read(archive, with_checksum(bytes(header)) + b"abc" + bytes(509) + END).files["file"] == Member(512, 3)


def test_a_negative_size_is_refused(archive: Path) -> None:
    header = bytearray(info("file", 0).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12
    with pytest.raises(ArchiveInvalid, match="negative size"):
        read(archive, with_checksum(bytes(header)) + END)


def test_pax_size_path_and_linkpath_come_before_the_header(archive: Path) -> None:
    content = (
        pax_header(record("path", "real") + record("size", "3"))
        + info("header", 0).tobuf(tarfile.GNU_FORMAT)
        + b"abc".ljust(512, b"\0")
        + pax_header(record("linkpath", "real"))
        + member("link", kind=tarfile.SYMTYPE, link="elsewhere")
        + END
    )
    index = read(archive, content)
    assert bytes_of(archive, index.find("link")) == b"abc"
    assert set(index.files) == {"real"}


def test_a_global_pax_header_with_a_comment_changes_nothing(archive: Path) -> None:
    index = read(archive, pax_header(record("comment", "c" * 3000), b"g") + member("a", b"1") + END)
    assert bytes_of(archive, index.find("a")) == b"1"


@pytest.mark.parametrize(
    "records", [b"9 path=", b"x path=a\n", b"99 path=a\n", b"0 path=a\n", b"11 path=a\n", b"8 path a\n", b"-1 a=b\n"]
)
def test_malformed_pax_records_are_refused(archive: Path, records: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        read(archive, pax_header(records) + member("a", b"1") + END)


@pytest.mark.parametrize("size", ["-1", "1e9", "٣", "9" * 5000, "0x10"])
def test_a_pax_size_that_is_no_number_is_refused(archive: Path, size: str) -> None:
    with pytest.raises(ArchiveInvalid):
        read(archive, pax_header(record("size", size)) + member("a", b"1") + END)


def test_a_header_of_many_small_records_is_read_once(archive: Path) -> None:
    records = b"5 a=\n" * 190_000 + record("path", "p")
    assert set(read(archive, pax_header(records) + member("a", b"1") + END).files) == {"p"}


def test_thousands_of_extended_headers_in_a_row_need_neither_stack_nor_memory(archive: Path) -> None:
    content = pax_header(record("path", "p")) * 5_000 + member("L", b"q\0", b"L") * 5_000 + member("a", b"1") + END
    assert set(read(archive, content).files) == {"q"}


def test_an_extended_header_of_any_size_is_refused_before_it_is_read(archive: Path) -> None:
    with archive.open("wb") as file:
        file.write(info("pax", 2**40, b"x").tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**40 + 4096)  # a hole: the size is true, the disk is not filled
    with pytest.raises(ArchiveInvalid, match="extended header of"):
        read_tar(archive)


def test_a_terabyte_in_a_header_is_an_error_not_an_allocation(archive: Path) -> None:
    with pytest.raises(ArchiveInvalid, match="1099511627776 bytes reaches beyond"):
        read(archive, info("big", 2**40).tobuf(tarfile.GNU_FORMAT) + b"abc" + END)


def test_data_is_passed_over_unread(archive: Path) -> None:
    with archive.open("wb") as file:
        file.write(info("big", 2**40).tobuf(tarfile.GNU_FORMAT))
        file.seek(2**40 + 512)
        file.write(member("after", b"1") + END)
    index = read_tar(archive)
    assert index.files == {"big": Member(512, 2**40), "after": Member(2**40 + 1024, 1)}


def test_the_last_of_duplicate_members_wins(archive: Path) -> None:
    content = member("a", b"old") + member("a", kind=tarfile.SYMTYPE, link="b") + member("b", b"new") + END
    index = read(archive, content)
    assert bytes_of(archive, index.find("a")) == b"new"
    assert set(index.files) == {"b"}


def test_a_hard_link_means_the_file_before_it(archive: Path) -> None:
    content = member("a", b"old") + member("l", kind=tarfile.LNKTYPE, link="./a") + member("a", b"new") + END
    index = read(archive, content)
    assert bytes_of(archive, index.find("l")) == b"old"
    assert bytes_of(archive, index.find("a")) == b"new"


@pytest.mark.parametrize("name", ["/etc/passwd", "../a", "a/../../b", "a/..", "//a"])
def test_names_that_lead_out_are_not_served(archive: Path, name: str) -> None:
    index = read(archive, member(name, b"1") + member("good", b"2") + END)
    assert set(index.files) == {"good"}
    assert len(index.problems) == 1
    assert repr(name) in index.problems[0]


@pytest.mark.parametrize("target", ["/etc/passwd", "../a", "x/../../a", "../../../etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_that_lead_out_are_not_served(archive: Path, target: str, kind: bytes) -> None:
    index = read(archive, member("link", kind=kind, link=target) + END)
    assert index.find("link") is None
    assert len(index.problems) == 1


def test_links_through_linked_folders_never_leave_the_archive(archive: Path) -> None:
    # Each target stays inside by its text; through the link `a/b/up` the second one would not.
    links = member("a/b/up", kind=tarfile.SYMTYPE, link="../..") + member(
        "l", kind=tarfile.SYMTYPE, link="a/b/up/../x"
    )
    index = read(archive, links + member("x", b"1") + member("dir/y", b"2") + END)
    assert index.find("l") is None
    assert index.find("a/b/up/dir/y") == index.files["dir/y"]
    assert index.find("../x") is None


def test_circles_of_links_lead_nowhere(archive: Path) -> None:
    circle = member("a", kind=tarfile.SYMTYPE, link="b") + member("b", kind=tarfile.SYMTYPE, link="a")
    growing = member("c", kind=tarfile.SYMTYPE, link="c/c/c/c/c")
    index = read(archive, circle + growing + END)
    assert index.find("a") is None
    assert index.find("c") is None
    assert index.find("c/x") is None


def test_sparse_members_are_refused_by_name_and_the_rest_is_served(archive: Path, tmp_path: Path) -> None:
    old = bytearray(info("old", 1, b"S").tobuf(tarfile.GNU_FORMAT))
    old[482] = 1  # one more block of its map
    content = (
        with_checksum(bytes(old))
        + bytes(512)
        + b"d".ljust(512, b"\0")
        + pax_header(record("GNU.sparse.major", "1"))
        + member("new", b"1")
        + member("good", b"2")
        + END
    )
    index = read(archive, content)
    assert {name: bytes_of(archive, found) for name, found in index.files.items()} == {"good": b"2"}
    assert [line for line in index.problems if "sparse" in line] == index.problems
    assert len(index.problems) == 2


def test_problem_lines_are_bounded_and_printable(archive: Path) -> None:
    index = read(archive, member("/a\n\x1b[31m\udcff", b"") * 100 + END)
    assert len(index.problems) == tar_index.MAX_PROBLEMS + 1
    assert all(line.isprintable() and line.encode() for line in index.problems)


def test_too_many_members_are_refused(archive: Path) -> None:
    archive.write_bytes(member("a") * 11 + END)
    with open_archive(archive) as opened:
        with pytest.raises(ArchiveInvalid, match="more than 10 members"):
            tar_index.index_tar(opened, max_members=10)
        assert set(tar_index.index_tar(opened, max_members=11).files) == {"a"}


def test_names_beyond_path_max_are_not_served(archive: Path) -> None:
    index = read(archive, pax_header(record("path", "p" * 5000)) + member("a", b"1") + member("b", b"2") + END)
    assert set(index.files) == {"b"}
    assert "longer than 4096" in index.problems[0]


def three_members() -> bytes:
    return member("a", b"1" * 600) + pax_header(record("path", "p")) + member("b", b"2" * 512) + member("c", b"")


def test_cut_short_anywhere_is_never_taken_for_whole(archive: Path) -> None:
    whole = three_members()
    for size in range(0, len(whole) + 512, 512):
        for cut in {size, max(size - 1, 0), size + 17}:
            with pytest.raises(ArchiveInvalid):
                read(archive, (whole + END)[:cut] if cut < len(whole) + 512 else whole)
    # One zero block and the end of the file: every member is there, and GNU tar takes it too.
    assert len(read(archive, whole + bytes(512)).files) == 3
    assert len(read(archive, whole + END).files) == 3
    assert len(read(archive, whole + END + b"padding or whatever").files) == 3


def test_a_lone_zero_block_is_no_end(archive: Path) -> None:
    with pytest.raises(ArchiveInvalid, match="lone zero block"):
        read(archive, member("a", b"1") + bytes(512) + member("b", b"2") + END)


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 512, b"x" * 10240, os.urandom(1) * 511])
def test_other_files_are_not_tars(archive: Path, content: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        read(archive, content)
    assert sniff(content) is None


def test_kinds_are_told_by_content(archive: Path) -> None:
    assert sniff(member("a")[:512]) == "tar"
    assert sniff(END) == "tar"
    assert sniff(b"\x1f\x8b\x08\0") == "gzip"
    assert sniff(b"\x28\xb5\x2f\xfd") == "zstd"


def test_fifos_folders_and_missing_files_are_errors_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("fifo", ".", "missing", "loop", "nul\0"):
        with pytest.raises(ArchiveUnreadable):
            read_tar(f"{tmp_path}/{path}")


def test_unreadable_by_permission(archive: Path) -> None:
    archive.write_bytes(END)
    archive.chmod(0)
    if os.access(archive, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(ArchiveUnreadable):
        read_tar(archive)


def read_while_it_grows(archive: Path) -> None:
    with open_archive(archive) as opened:
        with archive.open("ab") as file:
            file.write(END)
        tar_index.index_tar(opened)


def test_an_archive_that_grows_while_it_is_read_is_changing_not_broken(archive: Path) -> None:
    archive.write_bytes(member("a", b"1"))
    with pytest.raises(ArchiveChanging):
        read_while_it_grows(archive)
    with pytest.raises(ArchiveChanging), open_archive(archive):
        os.utime(archive, ns=(1, 1))


def test_a_file_of_the_same_name_is_not_taken_for_the_one_that_was_read(archive: Path, tmp_path: Path) -> None:
    stamp = read(archive, END).stamp
    (tmp_path / "other").write_bytes(END)
    (tmp_path / "other").rename(archive)
    with pytest.raises(ArchiveChanging), open_archive(archive, stamp):
        raise AssertionError("not to be reached")


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=12)), max_size=6),
    right_checksums=st.booleans(),
    cut=st.none() | st.integers(0, 10_000),
)
def test_mutated_archives_are_read_or_refused_and_no_member_leaves_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, bytes]],
    right_checksums: bool,
    cut: int | None,
) -> None:
    links = member("l", kind=tarfile.SYMTYPE, link="a") + member("h", kind=tarfile.LNKTYPE, link="a")
    sparse = member("s", b"", b"S") + pax_header(record("GNU.sparse.realsize", "9")) + member("t", b"9")
    content = bytearray(three_members() + links + sparse + END)
    for number, new in changes:
        position = number % len(content)
        content[position : position + len(new)] = new
    if right_checksums:
        repair_checksums(content)
    path = tmp_path_factory.getbasetemp() / "mutated.tar"
    path.write_bytes(bytes(content[:cut]))
    try:
        index = read_tar(path)
    except ArchiveError:
        return
    size = path.stat().st_size
    for name in index.names():
        found = index.find(name)
        assert found is None or (found.offset >= 0 and found.size >= 0 and found.offset + found.size <= size)
        assert not name.startswith("/")
        assert ".." not in name.split("/")


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=3000))
def test_pax_records_of_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    try:
        records = tar_headers._pax_records(content, 0)
    except ArchiveInvalid:
        return
    assert records.keys() <= {"path", "linkpath", "size", "GNU.sparse."}
