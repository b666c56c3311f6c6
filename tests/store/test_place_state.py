"""Rows that outlive a process: whole or not at all, and never an error."""

import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mirror.store.place_state import PlaceState, Row

ROWS = st.dictionaries(
    # File names are bytes; Python's text of them may have lone surrogates.
    st.binary(min_size=1, max_size=20).map(lambda name: "/" + name.decode("utf-8", "surrogateescape")),
    st.builds(Row, st.sampled_from(["a", "b"]), st.text("0123456789 "), st.text(st.characters(codec="utf-8"))),
)


@given(rows=ROWS)
def test_what_is_saved_is_loaded(rows: Mapping[str, Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = PlaceState(Path(folder, "cache", "places.db"))
        state.save(rows.items(), [])
        assert state.load({"a", "b"}) == rows
        assert state.load({"a"}) == {path: row for path, row in rows.items() if row.rules == "a"}
        assert sorted(state.paths()) == sorted(rows)


def test_later_rows_replace_earlier_ones_and_some_are_forgotten(tmp_path: Path) -> None:
    state = PlaceState(tmp_path / "places.db")
    state.save([("/a", Row("r", "1", "old")), ("/b", Row("r", "1", "b")), ("/c", Row("r", "1", "c"))], [])
    state.save([("/a", Row("r", "2", "new"))], ["/b"])
    assert state.load({"r"}) == {"/a": Row("r", "2", "new"), "/c": Row("r", "1", "c")}


def test_a_row_that_was_damaged_is_not_given_back(tmp_path: Path) -> None:
    file = tmp_path / "places.db"
    state = PlaceState(file)
    state.save([("/a", Row("r", "1", "right")), ("/b", Row("r", "1", "right too"))], [])
    database = sqlite3.connect(file)
    database.execute("UPDATE places SET content = 'wrong' WHERE path = CAST('/a' AS BLOB)")
    database.commit()
    database.close()
    assert set(state.load({"r"})) == {"/b"}


def test_a_busy_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "places.db"
    state = PlaceState(file, busy_seconds=0.01)
    state.save([("/a", Row("r", "1", "kept"))], [])
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    state.save([("/a", Row("r", "2", "lost"))], [])
    assert state.load({"r"}) == {}
    other.execute("ROLLBACK")
    other.close()
    assert state.load({"r"}) == {"/a": Row("r", "1", "kept")}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    state = PlaceState(tmp_path / "cache" / "places.db")
    state.save([("/a", Row("r", "1", "x"))], [])
    assert state.load({"r"}) == {}
    assert state.paths() == []
