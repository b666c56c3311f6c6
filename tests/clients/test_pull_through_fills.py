"""Large blobs on their way through running mirrors: crowds, and mirrors that die meanwhile."""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests.bench.crowd import MIB, Crowd, Reader, blob
from tests.bench.fills import REPOSITORY, measure, part_bytes
from tests.clients.through import mirroring, upstream
from tests.hub import Hub, Truncate
from tests.hub.beside import Beside
from tests.running import Client, wait_until
from tests.server_process import STOP_SECONDS

WORKERS = pytest.mark.parametrize("workers", [1, 2])


@WORKERS
def test_fifty_clients_on_one_cold_blob_are_one_request_upstream(tmp_path: Path, workers: int) -> None:
    size = 16 * MIB
    found = measure(tmp_path, size, 50e6, workers, apart=False)
    assert found.all_right
    assert found.upstream_gets - found.ranges_asked == 1
    assert found.upstream_bytes <= size + MIB + size // 64, "far ranges cost a small share, of all processes together"
    assert found.grown_bytes < 64 * MIB


@WORKERS
def test_a_fill_goes_on_where_a_killed_mirror_left_it(tmp_path: Path, workers: int) -> None:
    size = 48 * MIB
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=40e6))
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        config = {"docker.io": upstream(hub.url)}
        with mirroring(tmp_path, config, workers=workers) as mirror, Client(mirror.host) as client:
            client.ask(path)
            assert client.head().status == 200
            wait_until(lambda: part_bytes(tmp_path) > size // 3, "a third of the blob is there")
            mirror.kill()
        held = part_bytes(tmp_path)
        assert size // 3 < held < size
        with mirroring(tmp_path, config, workers=workers) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
            assert met.whole
            assert met.right
        first, second = hub.select("GET", path)
        assert "Range" not in first.headers
        assert second.headers["Range"] == f"bytes={held}-", "nothing that is on disk is fetched again"


@WORKERS
def test_sigterm_ends_fills_at_once_finishes_other_answers_and_the_next_start_goes_on(
    tmp_path: Path, workers: int
) -> None:
    # More than the sockets of a client take that does not read.
    size, cached_size = 48 * MIB, 16 * MIB
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=20e6))
        path, cached = (f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(one))}" for one in (size, cached_size))
        config = {"docker.io": upstream(hub.url)}
        with (
            mirroring(tmp_path, config, workers=workers) as mirror,
            Client(mirror.host, receive_buffer_bytes=65536) as slow,
            ThreadPoolExecutor(1) as threads,
        ):
            Crowd(mirror.host, cached, cached_size, [Reader()]).run()
            wait_until(lambda: any((tmp_path / "cache" / "blobs").glob("*/*/*")), "the other blob is cached")
            slow.ask(cached)
            assert slow.head().status == 200
            # So many that each worker has some (SO_REUSEPORT spreads connections at random).
            readers = threads.submit(Crowd(mirror.host, path, size, [Reader() for _ in range(16)]).run)
            wait_until(lambda: part_bytes(tmp_path) > size // 4, "a quarter is there")
            assert mirror.process is not None
            mirror.process.send_signal(signal.SIGTERM)
            # They end while the slow one still stands, which the mirror waits for.
            assert {(one.right, one.whole) for one in readers.result(STOP_SECONDS)} == {(True, False)}
            assert mirror.process.poll() is None
            assert slow.body(cached_size) == blob(cached_size)
            assert mirror.process.wait(STOP_SECONDS) == 0
        held = part_bytes(tmp_path)
        assert size // 4 < held < size
        with mirroring(tmp_path, config, workers=workers) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
            assert met.whole
            assert met.right
        first, *between, last = (one.headers.get("Range") for one in hub.select("GET", path))
        assert (first, last) == (None, f"bytes={held}-")
        # A worker that hears of the end later than the other may have begun to go on where that one let go.
        assert len(between) < workers
        assert all(between)


@WORKERS
def test_a_mirror_that_dies_between_the_last_byte_and_the_name_has_the_blob_without_another(
    tmp_path: Path, workers: int
) -> None:
    size = 4 * MIB
    with Beside() as beside:
        hub = beside.open(Hub())
        digest = hub.blob(REPOSITORY, blob(size))
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        part = tmp_path / "cache" / "parts" / digest.fallback_tag
        part.parent.mkdir(parents=True)
        part.write_bytes(blob(size))
        part.with_name(f"{part.name}.json").write_text(f'{{"size": {size}, "etag": null, "supplier": null}}')
        with mirroring(tmp_path, {"docker.io": upstream(hub.url)}, workers=workers) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
            assert met.right
            assert met.whole
        assert sum(one.bytes_sent for one in hub.select("GET", path)) == 0


def test_a_blob_of_256_mib_cut_five_times_is_one_answer_and_next_to_nothing_comes_twice(tmp_path: Path) -> None:
    size, chance = 256 * MIB, random.Random(4)
    cuts = sorted(chance.randrange(1, size) for _ in range(5))
    with Beside() as beside:
        hub = beside.open(Hub())
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        # A fault counts from where its own request begins.
        for before, cut in pairwise([0, *cuts]):
            hub.fault(Truncate(cut - before), kind="blob", times=1)
        with mirroring(tmp_path, {"docker.io": upstream(hub.url)}) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
        assert met.whole
        assert met.right
        asked = hub.select("GET", path)
        assert len(asked) == 6
        assert all({"Range", "If-Range"} <= set(one.headers) for one in asked[1:])
        assert sum(one.bytes_sent for one in asked) <= 1.01 * size


@WORKERS
def test_a_client_that_resumes_by_range_gets_the_rest(tmp_path: Path, workers: int) -> None:
    """docker asks again from where it was cut, while the fill runs and when it is over."""
    size = 24 * MIB
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=40e6))
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        with mirroring(tmp_path, {"docker.io": upstream(hub.url)}, workers=workers) as mirror:
            with Client(mirror.host) as client:
                client.ask(path)
                assert client.head().status == 200
                begun = client.body(5 * MIB)
            for _ in range(2):
                with Client(mirror.host) as client:
                    client.ask(path, headers={"Range": f"bytes={len(begun)}-"})
                    head = client.head()
                    assert head.status == 206
                    assert head.headers["content-range"] == f"bytes {len(begun)}-{size - 1}/{size}"
                    assert begun + client.body(size - len(begun)) == blob(size)
        assert hub.count("GET", path) == 1


def test_a_worker_that_dies_takes_no_client_of_another_with_it(tmp_path: Path) -> None:
    size = 24 * MIB
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=20e6))
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        with (
            mirroring(tmp_path, {"docker.io": upstream(hub.url)}, workers=2) as mirror,
            ThreadPoolExecutor(1) as threads,
        ):
            # So many that each worker has some (SO_REUSEPORT spreads connections at random).
            readers = threads.submit(Crowd(mirror.host, path, size, [Reader() for _ in range(16)]).run)
            wait_until(lambda: part_bytes(tmp_path) > size // 4, "a quarter is there")
            count = len(mirror.pids())
            os.kill(who_fills(tmp_path), signal.SIGKILL)
            met = readers.result()
            assert all(one.right for one in met)
            assert {one.whole for one in met} == {True, False}
            wait_until(lambda: len(mirror.pids()) == count, "there is another in its place")
        first, second = hub.select("GET", path)
        assert second.headers["Range"].startswith("bytes=")
        assert first.bytes_sent + second.bytes_sent < 1.25 * size


def who_fills(folder: Path) -> int:
    """The process that holds the exclusive lock of the one part in `folder`/cache (proc_locks(5))."""
    (part,) = (path for path in (folder / "cache" / "parts").iterdir() if not path.suffix)
    inode = str(part.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and fields[5].rpartition(":")[2] == inode:
            return int(fields[4])
    raise AssertionError("nobody fills it")
