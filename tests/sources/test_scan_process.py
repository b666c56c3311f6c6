"""Scanning in a process of its own: what it finds, what it reads, how it ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror.sources.scan import Scanner
from mirror.sources.scan_process import ScanProcess, ScanProcessEnded, ScanSettings
from tests.server_process import MirrorProcess
from tests.serving import DEADLINE_SECONDS
from tests.sources.scans import Content, settings_of, write, write_all


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folders = {f"team/app{number}": Content((f"{number}",), number) for number in range(5)}
    write_all(tmp_path / "root", folders | {"saved.tar": Content(("shared:1",))})
    return tmp_path / "root"


@pytest.fixture
def wanted(tmp_path: Path, root: Path) -> ScanSettings:
    return settings_of(tmp_path, root)


@pytest.fixture
def process(wanted: ScanSettings) -> Iterator[ScanProcess]:
    process = ScanProcess(wanted)
    yield process
    process.close()


def settled(wanted: ScanSettings) -> Scanner:
    """A scanner that has read everything, and whose files are old enough not to be read again."""
    scanner = wanted.scanner()
    while scanner.scan().reads:
        pass
    return scanner


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_only_changes_are_read_and_sent(wanted: ScanSettings, process: ScanProcess, root: Path) -> None:
    scanner = settled(wanted)
    nothing = process.look(scanner)
    assert (nothing.reads, nothing.changed, nothing.order) == (0, {}, None)
    before = scanner.apply(nothing)
    assert not before.changed
    write(root / "team" / "app3", Content(("new",)))
    found = process.look(scanner)
    assert found.reads == 1
    assert set(found.changed) == {str(root / "team" / "app3")}
    after = scanner.apply(found)
    assert after.changed
    assert after.places == wanted.scanner().scan().places
    kept = {id(place) for place in before.places} & {id(place) for place in after.places}
    assert len(kept) == len(before.places) - 1


def test_places_come_and_go(wanted: ScanSettings, process: ScanProcess, root: Path) -> None:
    scanner = settled(wanted)
    write(root / "another", Content(("1",)))
    (root / "saved.tar").unlink()
    (root / "team" / "app0" / "index.json").write_bytes(b"{")
    scan = scanner.apply(process.look(scanner))
    fresh = wanted.scanner().scan()
    assert [place.path for place in scan.places] == [
        *(place.path for place in fresh.places[:1]),
        *(str(root / "team" / f"app{number}") for number in range(5)),
    ]
    (problem,) = scan.problems
    assert "what it held before is still served" in problem.reason
    again = scanner.apply(process.look(scanner))
    assert not again.changed
    assert again.problems == scan.problems


def test_a_killed_process_is_started_again(wanted: ScanSettings, process: ScanProcess, root: Path) -> None:
    scanner = settled(wanted)
    scanner.apply(process.look(scanner))
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    write(root / "team" / "app1", Content(("new",)))
    with pytest.raises(ScanProcessEnded):
        process.look(scanner)
    found = process.look(scanner)
    assert process.pid != first
    assert found.reads == 1
    assert not is_running(first)


def test_a_closed_one_is_not_started_again(wanted: ScanSettings, process: ScanProcess) -> None:
    scanner = settled(wanted)
    process.look(scanner)
    process.close()
    assert process.pid is not None
    assert not is_running(process.pid)
    with pytest.raises(ScanProcessEnded):
        process.look(scanner)


def test_it_ends_with_its_owner_however_that_ends(tmp_path: Path, wanted: ScanSettings) -> None:
    script = (
        "import sys; from tests.sources.test_scan_process import own; from pathlib import Path; "
        "own(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), wanted.roots[0].path],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert is_running(child)
        owner.kill()
    wait_until(lambda: not is_running(child))


def own(tmp_path: Path, root: Path) -> None:
    """Own a scan process until killed."""
    wanted = settings_of(tmp_path, root)
    process = ScanProcess(wanted)
    process.look(wanted.scanner())
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()
    signal.pause()


async def test_a_server_goes_on_scanning_when_the_process_is_killed(tmp_path: Path, root: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"refresh: 20ms\nlayouts: [{{path: {root}}}]\ncache: {{path: cache}}\n")

    def scenario() -> None:
        with MirrorProcess(tmp_path / "mirror.log", "--config", str(config)) as mirror:
            for number in range(3):
                wait_until(lambda: bool(_scanners(mirror.pid)))
                (child, *_) = _scanners(mirror.pid)
                os.kill(child, signal.SIGKILL)
                write(root / "team" / f"new{number}", Content(("1",)))
                wait_until(lambda: mirror.status(f"/v2/team/new{number}/manifests/1") == 200)  # noqa: B023
            last = _scanners(mirror.pid)
            mirror.kill()
            wait_until(lambda: not any(map(is_running, last)))

    await asyncio.to_thread(scenario)


def _scanners(pid: int) -> list[int]:
    """The scan processes of a server; whichever of its threads started them."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return [child for child in found if is_running(child)]
