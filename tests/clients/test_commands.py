"""The harness leaves nothing behind, and says why something failed."""

import time
from pathlib import Path

import pytest

from tests.clients.commands import Commands, client_environment, daemon

# A parent that ignores being asked to stop would hide that its child is never asked: this one just waits.
PARENT = 'sleep 600 & echo "$! $$" > "$HOME/pids.part"; mv "$HOME/pids.part" "$HOME/pids"; wait'


def is_alive(pid: str) -> bool:
    """Not gone, and not only waiting for somebody to read its exit status."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_daemon_and_its_children_are_gone_after_a_test_failed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    environment = client_environment(tmp_path)

    def fail_inside() -> None:
        with daemon(["sh", "-c", PARENT], tmp_path / "log", environment, pids.exists):
            assert all(map(is_alive, pids.read_text().split()))
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError, match="the test failed"):
        fail_inside()
    deadline = time.monotonic() + 20
    while any(map(is_alive, pids.read_text().split())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_daemon_that_does_not_start_fails_with_what_it_said(tmp_path: Path) -> None:
    def start() -> None:
        command = ["sh", "-c", "echo no such socket >&2; exit 3"]
        with daemon(command, tmp_path / "log", client_environment(tmp_path), lambda: False):
            pytest.fail("it is not up")

    with pytest.raises(AssertionError, match="no such socket"):
        start()


def test_a_command_that_fails_says_so_with_its_output(tmp_path: Path) -> None:
    run = Commands(client_environment(tmp_path))
    with pytest.raises(AssertionError, match=r"exit status 3\n.*\nwrong flag"):
        run("sh", "-c", "echo wrong flag >&2; exit 3")
