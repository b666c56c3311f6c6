"""`mirror serve --workers N`: several processes that come, go and are told things as one."""

import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_serve import LAYER, TARGET, exit_status, run, signal_all
from tests.content import LayoutWriter
from tests.running import Client, get, wait_until
from tests.server_process import MirrorProcess

TWO = ("--workers", "2")


def write(layouts: Path, name: str, layer: bytes = b"layer") -> None:
    writer = LayoutWriter(layouts / name)
    writer.tag(writer.image([layer]), "1.0").save()


def workers(mirror: MirrorProcess) -> list[int]:
    """Their process ids; the parent has a helper of multiprocessing's too."""
    told = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in mirror.pids()[1:]}
    return [pid for pid, command in told.items() if b"spawn_main" in command]


@pytest.fixture
def layouts(tmp_path: Path) -> Path:
    write(tmp_path / "layouts", "app")
    return tmp_path / "layouts"


@pytest.fixture
def mirror(tmp_path: Path, layouts: Path) -> Iterator[MirrorProcess]:
    with MirrorProcess(tmp_path / "mirror.log", *TWO, cwd=tmp_path) as started:
        yield started


def test_each_worker_answers(mirror: MirrorProcess) -> None:
    wait_until(lambda: len(mirror.events("listening")) == 2, "each has said so")
    assert len(workers(mirror)) == 2
    assert {event["url"] for event in mirror.events("listening")} == {mirror.url}
    assert {get(mirror.host, "/v2/app/manifests/1.0").status for _ in range(20)} == {200}


def test_a_dead_worker_is_started_again_and_the_mirror_is_not_ready_until_it_serves(
    mirror: MirrorProcess, tmp_path: Path
) -> None:
    # In the place of its cache stands a file, so that its successor cannot begin.
    (tmp_path / "cache").rename(tmp_path / "aside")
    (tmp_path / "cache").write_text("")
    victim = workers(mirror)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(mirror.events("worker_died")) > 2, "it is started again and again")
    first, *later = mirror.events("worker_died")
    assert first["exit_status"] == -signal.SIGKILL
    assert [event["exit_status"] for event in later] == [2] * len(later)
    pauses = [event["again_in_seconds"] for event in (first, *later)]
    assert pauses == sorted(set(pauses)), "with growing pauses"
    assert mirror.status("/readyz") == 503
    assert get(mirror.host, "/v2/app/manifests/1.0").status == 200, "the other one goes on"
    (tmp_path / "cache").unlink()
    (tmp_path / "aside").rename(tmp_path / "cache")
    wait_until(lambda: mirror.status("/readyz") == 200, "both serve again")
    assert victim not in workers(mirror)
    assert len(workers(mirror)) == 2


def test_sighup_reaches_every_worker(tmp_path: Path, layouts: Path) -> None:
    (tmp_path / "config.yaml").write_text("{layouts: [layouts], refresh: 1h, workers: 2}")
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        write(layouts, "new")
        os.kill(mirror.pid, signal.SIGHUP)

        def everywhere() -> bool:
            return {get(mirror.host, "/v2/new/manifests/1.0").status for _ in range(20)} == {200}

        wait_until(everywhere, "each of them serves what is new")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_being_sent(tmp_path: Path, number: signal.Signals) -> None:
    write(tmp_path / "layouts", "app", LAYER)
    with MirrorProcess(tmp_path / "mirror.log", *TWO, cwd=tmp_path) as mirror:
        with Client(mirror.host, receive_buffer_bytes=65536) as client:
            client.ask(TARGET)
            assert client.head().status == 200
            os.kill(mirror.pid, number)
            wait_until(lambda: len(mirror.events("stopping")) == 2, "both stop")
            assert client.body(len(LAYER)) == LAYER
        assert exit_status(mirror) == 0
        assert not [event for event in mirror.events() if event["level"] == "error"]


# Where in its start a worker is depends on the machine: some of these come before it can listen to signals.
@pytest.mark.parametrize("wait_seconds", [0, 0.1, 0.4])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_while_workers_start_kills_none(
    tmp_path: Path, layouts: Path, number: signal.Signals, wait_seconds: float
) -> None:
    mirror = MirrorProcess(tmp_path / "mirror.log", *TWO, cwd=tmp_path)
    mirror.begin()
    wait_until(lambda: bool(mirror.events("starting_workers")), "the parent is there")
    time.sleep(wait_seconds)
    signal_all(mirror, number)


def test_workers_end_when_their_parent_is_killed(mirror: MirrorProcess) -> None:
    left = workers(mirror)
    os.kill(mirror.pid, signal.SIGKILL)
    assert exit_status(mirror) == -signal.SIGKILL
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "none is left")


def test_a_worker_whose_parent_was_killed_sends_what_it_began_and_works_no_more_than_that(tmp_path: Path) -> None:
    write(tmp_path / "layouts", "app", LAYER)
    (tmp_path / "config.yaml").write_text("{layouts: [layouts], workers: 2, shutdown_timeout: 3s}")
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        left = workers(mirror)
        with Client(mirror.host, receive_buffer_bytes=65536) as client:
            client.ask(TARGET)
            assert client.head().status == 200
            before = sum(map(processor_seconds, left))
            os.kill(mirror.pid, signal.SIGKILL)
            assert exit_status(mirror) == -signal.SIGKILL
            wait_until(lambda: sum(Path(f"/proc/{pid}").exists() for pid in left) == 1, "the idle one ends")
            used: list[float] = []

            def is_gone() -> bool:
                used.append(sum(map(processor_seconds, left)))
                return not used[-1]

            wait_until(is_gone, "the other one gives up")
        assert max(used) - before < 1


def processor_seconds(pid: int) -> float:
    """What a process has used of a processor; 0 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("count", ["1", "2", "auto"])
def test_a_port_in_use_is_one_line_and_exit_status_2(tmp_path: Path, count: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(tmp_path, "--listen", address, "--workers", count)
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (done.returncode, said["event"], said["listen"]) == (2, "cannot_serve", address)


def test_a_port_that_another_mirrors_workers_share_is_in_use(mirror: MirrorProcess, tmp_path: Path) -> None:
    done = run(tmp_path, "--listen", mirror.host, "--cache", "other", *TWO)
    assert done.returncode == 2
    assert "in use" in json.loads(done.stderr.splitlines()[-1])["reason"]


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,)], ids=["plain", "as servers do"])
def test_nobody_else_gets_the_port_before_the_workers_listen(
    tmp_path: Path, layouts: Path, options: tuple[int, ...]
) -> None:
    mirror = MirrorProcess(tmp_path / "mirror.log", *TWO, cwd=tmp_path)
    mirror.begin()
    try:
        wait_until(lambda: bool(mirror.events("starting_workers")), "the port is chosen")
        host, _, port = mirror.events("starting_workers")[0]["listen"].rpartition(":")
        with socket.socket() as other:
            for option in options:
                other.setsockopt(socket.SOL_SOCKET, option, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((host, int(port)))
        mirror.wait_ready()
        assert mirror.host == f"{host}:{port}"
        assert {get(mirror.host, "/v2/app/manifests/1.0").status for _ in range(20)} == {200}
    finally:
        mirror.stop()


def test_two_workers_take_over_the_port_of_one(tmp_path: Path, layouts: Path) -> None:
    """Its last connections are still timing out there."""
    with MirrorProcess(tmp_path / "one.log", cwd=tmp_path) as one, Client(one.host) as client:
        # The server closes first, so that the time-out is on its side.
        client.ask("/v2/", headers={"Connection": "close"})
        client.rest()
    with MirrorProcess(tmp_path / "two.log", "--listen", one.host, *TWO, cwd=tmp_path) as two:
        assert {get(two.host, "/v2/app/manifests/1.0").status for _ in range(20)} == {200}


@pytest.mark.parametrize("count", ["1", "2"])
def test_no_client_waits_for_the_kernel_to_make_room_for_descriptors(
    tmp_path: Path, layouts: Path, count: str
) -> None:
    """A table that grows under threads stops who needs it for some 15 ms."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with MirrorProcess(tmp_path / "mirror.log", "--workers", count, cwd=tmp_path) as started:
        for pid in workers(started) or [started.pid]:
            (slots,) = re.findall(r"FDSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            assert int(slots) >= (16_384 if most == resource.RLIM_INFINITY else min(most, 16_384))
