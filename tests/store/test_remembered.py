"""Names remembered from local content."""

import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mirror.store.remembered import RememberedNames


def test_names_outlive_the_process(tmp_path: Path) -> None:
    RememberedNames(tmp_path / "remembered").add(["team/app", "docker.io/library/legacy"])
    again = RememberedNames(tmp_path / "remembered")
    assert "team/app" in again
    assert again.names() == {"team/app", "docker.io/library/legacy"}
    lines = (tmp_path / "remembered").read_text().splitlines()
    assert sorted(lines[1:]) == ["docker.io/library/legacy", "team/app"]


def test_a_forgotten_name_is_forgotten_by_other_processes_at_their_refresh(tmp_path: Path) -> None:
    one, other = RememberedNames(tmp_path / "remembered"), RememberedNames(tmp_path / "remembered")
    one.add(["team/app", "team/web"])
    assert other.refresh()
    assert not other.refresh()
    assert one.forget("team/app")
    assert not one.forget("team/app")
    assert other.refresh()
    assert "team/app" not in other
    assert "team/web" in other


def test_where_nothing_can_be_written_names_stay_in_memory_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    names = RememberedNames(tmp_path / "file" / "remembered")
    with caplog.at_level(logging.WARNING):
        names.add(["team/app"])
        names.add(["team/web"])
    assert "team/app" in names
    assert len(caplog.records) == 1
    names.refresh()
    assert "team/web" in names
    assert names.forget("team/app")
    assert "team/app" not in names


def test_names_that_could_not_be_written_are_written_once_it_works(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    names = RememberedNames(tmp_path / "folder" / "remembered")
    names.add(["team/app"])
    (tmp_path / "folder").unlink()
    names.add(["team/web"])
    assert RememberedNames(tmp_path / "folder" / "remembered").names() == {"team/app", "team/web"}


def test_a_file_that_vanished_forgets_nothing(tmp_path: Path) -> None:
    names = RememberedNames(tmp_path / "remembered")
    names.add(["team/app"])
    (tmp_path / "remembered").unlink()
    names.refresh()
    assert "team/app" in names
    names.add(["team/web"])
    assert RememberedNames(tmp_path / "remembered").names() == {"team/app", "team/web"}


def test_what_would_break_the_file_is_no_name(tmp_path: Path) -> None:
    names = RememberedNames(tmp_path / "remembered")
    for text in ("", "a\nb", "# a"):
        with pytest.raises(ValueError):
            names.add([text])


some_names = st.sampled_from(["team/app", "team/web", "docker.io/library/a", "b", "c/d/e"])


class TwoProcesses(RuleBasedStateMachine):
    """Two processes' views of one file against a plain set."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "remembered"
        self.views = [RememberedNames(self.path), RememberedNames(self.path)]
        self.model: set[str] = set()

    @rule(view=st.integers(0, 1), names=st.sets(some_names, max_size=3))
    def add(self, view: int, names: set[str]) -> None:
        self.views[view].refresh()
        self.views[view].add(names)
        self.model |= names

    @rule(view=st.integers(0, 1), name=some_names)
    def forget(self, view: int, name: str) -> None:
        assert self.views[view].forget(name) == (name in self.model)
        self.model.discard(name)

    @rule(view=st.integers(0, 1))
    def reopen(self, view: int) -> None:
        self.views[view] = RememberedNames(self.path)

    @rule(torn=st.sampled_from([b"te", b"team/app", b"\xc3", b"\0\0\0"]))
    def crash_while_writing(self, torn: bytes) -> None:
        if self.path.exists():
            with self.path.open("ab") as raw:
                raw.write(torn)

    @invariant()
    def both_views_agree(self) -> None:
        for view in self.views:
            view.refresh()
            assert view.names() == self.model
            assert all(name in view for name in self.model)

    def teardown(self) -> None:
        self.folder.cleanup()


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
