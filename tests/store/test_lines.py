"""Files that grow by whole lines."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.store.lines import LineFile

words = st.text("abcdefgh é", min_size=1, max_size=12)


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", "words")
    assert file.read().lines == []
    assert file.unchanged(None)


def test_only_what_was_appended_is_read_again(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", "words")
    file.append(["one", "two"])
    first = file.read()
    assert (first.lines, first.appended) == (["one", "two"], False)
    assert file.unchanged(first.mark)
    file.append(["three"])
    assert not file.unchanged(first.mark)
    second = file.read(first.mark)
    assert (second.lines, second.appended) == (["three"], True)


def test_another_file_of_the_same_inode_is_read_whole(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", "words")
    file.append(["one"])
    mark = file.read().mark
    assert mark is not None
    # The same inode with other content is what a removed and newly made file may well look like.
    other = LineFile(tmp_path / "other", "words")
    other.append(["six", "seven"])
    Path(file.path).write_bytes(Path(other.path).read_bytes())
    assert os.stat(file.path).st_ino == mark.inode
    again = file.read(mark)
    assert (again.lines, again.appended) == (["six", "seven"], False)


def test_two_writes_of_equal_length_within_a_tick_differ(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", "words")
    for _ in range(50):
        file.append(["one"])
        mark = file.read().mark
        file.remove()
        file.append(["two"])
        assert not file.unchanged(mark)
        assert file.read(mark).lines == ["two"]
        file.remove()


def test_a_torn_line_is_left_out_and_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", "words")
    file.append(["one"])
    with Path(file.path).open("ab") as raw:
        raw.write(b"tor")
    found = file.read()
    assert found.lines == ["one"]
    file.append(["two"])
    assert file.read(found.mark).lines == ["two"]


@settings(deadline=None)
@given(before=st.lists(words, max_size=6), cut=st.integers(0, 200), after=st.lists(words, min_size=1, max_size=3))
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: object, before: list[str], cut: int, after: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines"  # type: ignore[attr-defined]  # pytest's class is private
    file = LineFile(path, "words")
    file.append(before)
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content))])
    kept = file.read().lines
    assert kept == before[: len(kept)]
    assert len(kept) >= len(before) - content[min(cut, len(content)) :].count(b"\n")
    file.append(after)
    assert file.read().lines == kept + after


def test_replacing_leaves_a_reader_of_the_old_file_nothing_to_confuse(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", "words")
    file.append(["one", "two", "three"])
    mark = file.read().mark
    file.replace(["one", "three"])
    found = file.read(mark)
    assert (found.lines, found.appended) == (["one", "three"], False)
    assert os.listdir(tmp_path) == ["lines"]
