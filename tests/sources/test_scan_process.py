"""One scan process for all workers: what it finds and tells, how it comes back, how it ends."""

import gzip
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirror.sources.place import Place
from mirror.sources.scan_feed import Heard, ScanFeed, ScansEnded
from mirror.sources.scan_process import ScanProcess
from mirror.sources.scan_settings import ScanSettings
from mirror.sources.scanners import scanner_of
from tests.content import write_by_rename
from tests.running import get
from tests.server_process import MirrorProcess
from tests.serving import DEADLINE_SECONDS
from tests.sources import archives
from tests.sources.archives import layer, tar_of
from tests.sources.scans import Content, settings_of, write, write_all

FEW_FILES = 512


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
    with ScanProcess() as process:
        process.start(wanted)
        yield process


@pytest.fixture
def feed(process: ScanProcess) -> Iterator[ScanFeed]:
    feed = ScanFeed(process.address)
    yield feed
    feed.close()


def heard(feed: ScanFeed, condition: Callable[[Heard], bool]) -> Heard:
    """The first scan that meets the condition; more are asked for until one does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            found = feed.next()
            if condition(found):
                return found
            feed.ask()
        except ScansEnded:
            pass
        assert time.monotonic() < deadline


def tags(found: Heard) -> set[str | None]:
    return {naming.tag for place in found.places for entry in place.entries for naming in entry.namings}


def ids(places: tuple[Place, ...]) -> set[int]:
    return {id(place) for place in places}


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


def test_only_what_changed_is_read_and_told(wanted: ScanSettings, root: Path) -> None:
    scanner = scanner_of(wanted)
    while scanner.look().reads:
        pass
    nothing = scanner.look()
    assert (nothing.reads, nothing.changed, nothing.order) == (0, {}, None)
    write(root / "team" / "app3", Content(("new",)))
    found = scanner.look()
    assert found.reads == 1
    assert set(found.changed) == {str(root / "team" / "app3")}


def test_a_worker_hears_what_a_scan_finds(wanted: ScanSettings, feed: ScanFeed, root: Path) -> None:
    first = feed.next()
    assert first.changed
    assert first.places == scanner_of(wanted).scan().places
    feed.ask()
    again = feed.next()
    assert not again.changed
    assert again.places is first.places
    write(root / "team" / "app3", Content(("new",)))
    feed.ask()
    after = heard(feed, lambda found: found.changed)
    assert after.places == scanner_of(wanted).scan().places
    assert len(ids(first.places) & ids(after.places)) == len(first.places) - 1


def test_places_come_and_go(wanted: ScanSettings, feed: ScanFeed, root: Path) -> None:
    feed.next()
    write(root / "another", Content(("1",)))
    (root / "saved.tar").unlink()
    (root / "team" / "app0" / "index.json").write_bytes(b"{")
    feed.ask()
    found = heard(feed, lambda found: found.changed)
    assert [place.path for place in found.places] == [
        str(root / "another"),
        *(str(root / "team" / f"app{number}") for number in range(5)),
    ]


def test_a_late_worker_hears_all_of_it(process: ScanProcess, feed: ScanFeed, root: Path) -> None:
    feed.next()
    write(root / "team" / "app1", Content(("new",)))
    (root / "saved.tar").unlink()
    feed.ask()
    current = heard(feed, lambda found: "new" in tags(found))
    late = ScanFeed(process.address)
    assert late.next().places == current.places
    late.close()


def test_a_worker_that_does_not_listen_holds_up_nobody(process: ScanProcess, feed: ScanFeed, root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.connect(process.address)
        feed.next()
        for number in range(3):
            # More than its socket takes.
            write(root / "large", Content(tuple(f"{number}.{tag}" for tag in range(5_000))))
            feed.ask()
            heard(feed, lambda found: f"{number}.0" in tags(found))  # noqa: B023


def test_a_killed_process_is_started_again_and_what_stayed_is_the_same(
    process: ScanProcess, feed: ScanFeed, root: Path
) -> None:
    before = feed.next()
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    write(root / "team" / "app1", Content(("new",)))
    (root / "saved.tar").unlink()
    after = heard(feed, lambda found: "new" in tags(found))
    assert process.pid != first
    assert not is_running(first)
    assert len(ids(before.places) & ids(after.places)) == len(before.places) - 2


def test_a_process_that_can_take_no_more_workers_makes_room_for_another(process: ScanProcess, feed: ScanFeed) -> None:
    heard(feed, lambda found: True)
    before = process.pid
    assert before is not None
    # Of the descriptors that it has, none is left for another worker than the one that it waits for.
    resource.prlimit(before, resource.RLIMIT_NOFILE, (3, 3))
    late = ScanFeed(process.address)
    try:
        with socket.socket(socket.AF_UNIX) as awaited:
            awaited.connect(process.address)
            assert len(heard(late, lambda found: bool(found.places)).places) == 6
    finally:
        late.close()
    assert process.pid != before


def test_an_index_that_breaks_while_there_is_no_process_leaves_the_old_one(
    process: ScanProcess, feed: ScanFeed, root: Path
) -> None:
    before = feed.next()
    assert process.pid is not None
    (root / "team" / "app1" / "index.json").write_bytes(b"{")
    os.kill(process.pid, signal.SIGKILL)
    write(root / "team" / "app2", Content(("new",)))
    after = heard(feed, lambda found: "new" in tags(found))
    assert len(ids(before.places) & ids(after.places)) == len(before.places) - 1


def test_folders_that_went_while_there_was_no_process_are_gone(
    process: ScanProcess, feed: ScanFeed, root: Path
) -> None:
    feed.next()
    assert process.pid is not None
    write_all(root, {})
    os.kill(process.pid, signal.SIGKILL)
    assert heard(feed, lambda found: found.changed).places == ()


def test_who_waits_is_let_go(feed: ScanFeed) -> None:
    feed.next()
    feed.close()
    with pytest.raises(ScansEnded):
        feed.next()
    with pytest.raises(ScansEnded):
        feed.next()


LISTEN_AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as other:
    other.connect(bytes.fromhex(sys.argv[1]))
    try:
        print(len(other.recv(4096)))
    except ConnectionResetError:
        print(0)
"""


def test_another_user_hears_nothing(process: ScanProcess, feed: ScanFeed) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    feed.next()
    done = subprocess.run(
        [sys.executable, "-c", LISTEN_AS_NOBODY, process.address.hex()], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


def test_it_ends_with_its_context(process: ScanProcess, wanted: ScanSettings) -> None:
    with ScanProcess() as other:
        other.start(wanted)
        assert other.pid is not None
        assert is_running(other.pid)
    assert not is_running(other.pid)
    with pytest.raises(ScansEnded):
        ScanFeed(other.address).next()


def test_it_can_be_loaded_before_it_is_known_what_to_look_through(wanted: ScanSettings) -> None:
    with ScanProcess() as process:
        process.load()
        loaded = process.pid
        process.start(wanted)
        feed = ScanFeed(process.address)
        assert feed.next().places == scanner_of(wanted).scan().places
        assert process.pid == loaded
        feed.close()


def test_one_that_died_while_it_was_loading_is_started_again(wanted: ScanSettings) -> None:
    with ScanProcess() as process:
        process.load()
        loaded = process.pid
        assert loaded is not None
        os.kill(loaded, signal.SIGKILL)
        wait_until(lambda: not is_running(loaded))
        process.start(wanted)
        wait_until(lambda: process.pid != loaded)
        feed = ScanFeed(process.address)
        assert heard(feed, lambda found: bool(found.places))
        feed.close()


def test_one_that_never_gets_settings_ends_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    with ScanProcess() as process:
        process.load()
        loaded = process.pid
    assert loaded is not None
    assert not is_running(loaded)
    owner = "import os; from mirror.sources.scan_process import *; s = ScanProcess(); s.load()"
    done = subprocess.run(
        [sys.executable, "-c", f"{owner}; print(s.pid, flush=True); os._exit(0)"],
        capture_output=True,
        text=True,
        check=True,
    )
    wait_until(lambda: not is_running(int(done.stdout)))
    assert (done.stderr, capfd.readouterr().err) == ("", "")


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
    with ScanProcess() as process:
        process.start(settings_of(tmp_path, root))
        ScanFeed(process.address).next()
        sys.stdout.write(f"{process.pid}\n")
        sys.stdout.flush()
        signal.pause()


@pytest.fixture(params=[1, 2])
def mirror(request: pytest.FixtureRequest, tmp_path: Path, root: Path) -> Iterator[MirrorProcess]:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"refresh: 20ms\nworkers: {request.param}\nlayouts: [{{path: {root}}}]\ncache: {{path: cache}}\n"
    )
    with MirrorProcess(tmp_path / "mirror.log", "--config", str(config)) as mirror:
        yield mirror


def test_every_process_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path, root: Path) -> None:
    mirror = MirrorProcess(tmp_path / "mirror.log", "--layouts", str(root), "--workers", "2", "--cache", "cache")
    mirror.command = ["sh", "-c", f'ulimit -Sn {FEW_FILES}; exec "$@"', "sh", *mirror.command]
    with mirror:
        workers = children(mirror.pid, b"spawn_main")
        assert len(workers) == 2
        (scanner,) = scanners(mirror.pid)
        for pid in (mirror.pid, *workers, scanner):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            assert soft == hard > FEW_FILES


def test_a_server_goes_on_when_its_scan_process_is_killed(mirror: MirrorProcess, root: Path) -> None:
    for number in range(3):
        wait_until(lambda: bool(scanners(mirror.pid)))
        (child,) = scanners(mirror.pid)
        os.kill(child, signal.SIGKILL)
        write(root / "team" / f"new{number}", Content(("1",)))
        wait_until(lambda: served_by_all(mirror, f"/v2/team/new{number}/manifests/1"))  # noqa: B023
    last = scanners(mirror.pid)
    mirror.kill()
    wait_until(lambda: not any(map(is_running, last)))


@pytest.mark.parametrize("mirror", [2], indirect=True)
def test_a_worker_that_died_comes_back_with_what_is_there_now(mirror: MirrorProcess, root: Path) -> None:
    write(root / "team" / "new", Content(("1",)))
    wait_until(lambda: served_by_all(mirror, "/v2/team/new/manifests/1"))
    workers = children(mirror.pid, b"spawn_main")
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    wait_until(lambda: len(set(children(mirror.pid, b"spawn_main")) - {workers[0]}) == 2)
    wait_until(lambda: mirror.status("/readyz") == 200)
    assert served_by_all(mirror, "/v2/team/new/manifests/1")
    assert len(scanners(mirror.pid)) == 1


@pytest.mark.parametrize("mirror", [2], indirect=True)
def test_what_is_wrong_is_said_once_for_all_workers(mirror: MirrorProcess, root: Path) -> None:
    write(root / "team" / "broken", Content(broken=True))
    write(root / "team" / "new", Content(("1",)))
    wait_until(lambda: served_by_all(mirror, "/v2/team/new/manifests/1"))
    wait_until(lambda: bool(mirror.events("skipped")))
    (said,) = mirror.events("skipped")
    assert said["path"] == str(root / "team" / "broken")
    for number in range(2):
        content = tar_of(archives.old_docker({"twice:1": [layer(f"twice {number}")]}))
        write_by_rename(root / f"{number}.tar", content)
    write(root / "team" / "last", Content(("1",)))
    wait_until(lambda: served_by_all(mirror, "/v2/team/last/manifests/1"))
    wait_until(lambda: served_by_all(mirror, "/v2/twice/manifests/1"))
    wait_until(lambda: bool(mirror.events("conflict")))
    assert len(mirror.events("conflict")) == 1


@pytest.mark.parametrize("mirror", [2], indirect=True)
def test_a_compressed_archive_is_unpacked_once_for_all_workers(mirror: MirrorProcess, root: Path) -> None:
    content = tar_of(archives.old_docker({"packed:1": [layer("packed")]}))
    write_by_rename(root / "packed.tar.gz", gzip.compress(content))
    wait_until(lambda: served_by_all(mirror, "/v2/packed/manifests/1"))
    wait_until(lambda: bool(mirror.events("unpacked")))
    assert len(mirror.events("unpacked")) == 1


def served_by_all(mirror: MirrorProcess, target: str) -> bool:
    """Whether every worker serves it: the kernel spreads connections over them, and misses one of two rarely."""
    return all(get(mirror.host, target).status == 200 for _ in range(20))


def scanners(pid: int) -> list[int]:
    """The scan processes of a server, whichever of its threads or workers started them."""
    found = children(pid, b"scan_child")
    return found + [one for worker in children(pid, b"spawn_main") for one in children(worker, b"scan_child")]


def children(pid: int, command: bytes) -> list[int]:
    """The running children of a process with this word in their command line."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return [child for child in found if is_running(child) and command in _command(child)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
