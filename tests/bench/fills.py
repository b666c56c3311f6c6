"""Fifty clients on one cold blob behind a slow upstream: `python -m tests.bench.fills [MIB]`.

Prints, for each upstream speed and number of workers: the first bytes' delay against the upstream's own, the time
against one direct download, memory growth, CPU seconds for each GiB sent, and what the upstream was asked for.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.bench.crowd import MIB, Crowd, Met, Reader, blob, mixed
from tests.hub import Hub
from tests.hub.beside import Beside
from tests.running import Client, resident_bytes, wait_until
from tests.server_process import MirrorProcess

REPOSITORY = "library/large"
# What is measured: MB/s of the upstream, and numbers of workers.
SPEEDS, WORKERS = (25, 50), (1, 2)


@dataclass
class Figures:
    """What one run showed. Times in seconds."""

    met: list[Met]
    direct: Met
    upstream_gets: int
    ranges_asked: int
    upstream_bytes: int
    grown_bytes: int
    cpu_seconds: float

    @property
    def all_right(self) -> bool:
        """Every byte was the blob's, and nobody got less than what they stayed for."""
        return all(one.right and (one.whole or one.stop_after is not None) for one in self.met)

    @property
    def first_byte_delay_seconds(self) -> float:
        """The slowest first byte of those who read from the start, against the upstream's own."""
        slowest = max(one.first_byte_seconds for one in self.met if not one.start)
        return slowest - self.direct.first_byte_seconds

    @property
    def ratio(self) -> float:
        """The slowest whole body against one direct download."""
        return max(one.total_seconds for one in self.met if one.whole) / self.direct.total_seconds

    @property
    def sent_gib(self) -> float:
        """What the readers got, all of them."""
        return sum(one.bytes for one in self.met) / 1024 / MIB

    def to_json(self) -> dict[str, float]:
        """What the text says."""
        return {
            "right": self.all_right,
            "whole_gets": self.upstream_gets - self.ranges_asked,
            "range_gets": self.ranges_asked,
            "upstream_bytes": self.upstream_bytes,
            "direct_seconds": self.direct.total_seconds,
            "total_ratio": self.ratio,
            "first_byte_delay_seconds": self.first_byte_delay_seconds,
            "grown_bytes": self.grown_bytes,
            "cpu_seconds_per_gib_sent": self.cpu_seconds / self.sent_gib,
        }

    def __str__(self) -> str:
        return (
            f"right: {self.all_right}; upstream: {self.upstream_gets} GET, {self.ranges_asked} of them ranges, "
            f"{self.upstream_bytes / MIB:.1f} MiB; direct {self.direct.total_seconds:.2f} s, "
            f"crowd x{self.ratio:.3f}; first byte +{1000 * self.first_byte_delay_seconds:.0f} ms; "
            f"memory +{self.grown_bytes / MIB:.1f} MiB; "
            f"{self.cpu_seconds / self.sent_gib:.2f} CPU s/GiB sent ({self.sent_gib:.1f} GiB)"
        )


def measure(folder: Path, size: int, bytes_per_second: float | None, workers: int, *, apart: bool = True) -> Figures:
    """One cold run. `apart`: the readers in a process of their own."""
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=bytes_per_second))
        digest = hub.blob(REPOSITORY, blob(size))
        hub.image(REPOSITORY, "latest")
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        (direct,) = Crowd(hub.host, path, size, [Reader()]).run()
        hub.requests.clear()
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump({"workers": workers, "upstreams": {"docker.io": {"endpoints": [hub.url]}}}))
        crowd = list(mixed(size, check_every=8 if apart else 1))
        with MirrorProcess(folder / "mirror.log", "--config", str(config)) as mirror:
            # What is loaded only with the first blob and manifest is no growth.
            for _ in range(4 * workers):
                assert mirror.status(f"/v2/{REPOSITORY}/manifests/latest") == 200
            before, cpu = _resident(mirror), cpu_seconds(mirror)
            with _peak(mirror) as peak:
                readers = Crowd(mirror.host, path, size, crowd)
                met = readers.run_apart() if apart else readers.run()
            spent = cpu_seconds(mirror) - cpu
        asked = hub.select("GET", path)
        ranges = [one for one in asked if "Range" in one.headers]
        sent = sum(one.bytes_sent for one in asked)
        return Figures(met, direct, len(asked), len(ranges), sent, max(peak) - before, spent)


def part_bytes(folder: Path) -> int:
    """How far the one fill in `folder`/cache is; small blobs may come and go beside it."""
    size = 0
    for part in (folder / "cache" / "parts").iterdir():
        with suppress(FileNotFoundError):
            size += 0 if part.suffix else part.stat().st_size
    return size


def measure_restart(folder: Path, size: int, bytes_per_second: float, workers: int) -> float:
    """Killed at a third of a fill and started anew: the share of the blob that the upstream sent twice."""
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=bytes_per_second))
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump({"workers": workers, "upstreams": {"docker.io": {"endpoints": [hub.url]}}}))
        with MirrorProcess(folder / "mirror.log", "--config", str(config)) as mirror, Client(mirror.host) as client:
            client.ask(path)
            wait_until(lambda: part_bytes(folder) > size // 3, "a third is there", 60)
            mirror.kill()
        with MirrorProcess(folder / "mirror.log", "--config", str(config)) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
        assert met.right
        assert met.whole
        return sum(one.bytes_sent for one in hub.select("GET", path)) / size - 1


def _resident(mirror: MirrorProcess) -> int:
    return sum(resident_bytes(pid) for pid in mirror.pids())


def cpu_seconds(mirror: MirrorProcess) -> float:
    """What its processes have used so far."""
    ticks = 0
    for pid in mirror.pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _peak(mirror: MirrorProcess) -> Iterator[list[int]]:
    """What the mirror's processes held together, looked at every 50 ms."""
    seen = [_resident(mirror)]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            seen.append(_resident(mirror))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def main(arguments: list[str]) -> int:
    size = int(arguments[0] if arguments else 256) * MIB
    for megabytes_per_second in SPEEDS:
        for workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(Path(folder), size, megabytes_per_second * 1e6, workers)
            print(f"{megabytes_per_second} MB/s, {workers} workers: {figures}", flush=True)  # noqa: T201 the answer
    for workers in WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            twice = measure_restart(Path(folder), size, 50e6, workers)
        print(f"killed and started anew, {workers} workers: {100 * twice:.2f} % fetched twice")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
