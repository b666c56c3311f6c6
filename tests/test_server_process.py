"""The helper tells a server that works from one that does not."""

from pathlib import Path

import pytest

from tests.content import LayoutWriter
from tests.server_process import MirrorProcess


def test_it_is_ready_inside_and_gone_outside(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "app")
    writer.tag(writer.image(), "1.0").save()
    with MirrorProcess(tmp_path / "log", "--layouts", str(tmp_path / "layouts")) as mirror:
        assert mirror.status("/readyz") == 200
        assert mirror.status("/v2/app/manifests/1.0") == 200
    assert mirror.status("/readyz") is None


def test_a_server_that_does_not_start_fails_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no-such-option"):
        MirrorProcess(tmp_path / "log", "--no-such-option").start()


def test_a_server_that_was_killed_is_not_asked_to_stop_again(tmp_path: Path) -> None:
    (tmp_path / "layouts").mkdir()
    with MirrorProcess(tmp_path / "log", "--layouts", str(tmp_path / "layouts")) as mirror:
        mirror.kill()
    assert mirror.status("/readyz") is None
