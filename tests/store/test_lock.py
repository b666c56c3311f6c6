"""Locks between processes."""

import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

from mirror.store.lock import locked, try_locked


def test_a_lock_is_held_by_one_thread_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "_lock"), try_locked(tmp_path / "_lock") as held:
        assert not held
    with try_locked(tmp_path / "_lock") as held:
        assert held


def test_a_lock_excludes_other_processes(tmp_path: Path) -> None:
    script = (
        f"from mirror.store.lock import try_locked\nwith try_locked({str(tmp_path / '_lock')!r}) as held: print(held)"
    )
    with locked(tmp_path / "_lock"):
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "False"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "True"


def test_folders_of_a_lock_are_made(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "_lock"):
        assert (tmp_path / "a" / "b").is_dir()


def test_a_lock_whose_folder_went_while_waiting_is_taken_anew(tmp_path: Path) -> None:
    lock, has_it, may_go = tmp_path / "folder" / "_lock", Event(), Event()

    def wait_for_it() -> None:
        with locked(lock):
            has_it.set()
            may_go.wait(30)

    with locked(lock):
        waiter = Thread(target=wait_for_it)
        waiter.start()
        shutil.rmtree(lock.parent)
    assert has_it.wait(30)
    # Had the waiter the lock of the removed file, this one would be free.
    with try_locked(lock) as held:
        assert not held
    may_go.set()
    waiter.join(30)
