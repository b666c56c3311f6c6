"""What a crowd waits while other things go on, and what memory it costs: `python -m tests.bench.under_load`.

200 connections ask for a manifest, of the mirror and of nginx, while nothing else goes on, and while the mirror fills
blobs of 256 MiB from an upstream without limit, one after the other, and rescans 5,000 layouts each second, of which
one has changed. Then as many ask for a blob of 256 MiB.
"""

import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mirror.oci.digest import Digest
from tests.bench import content as bench_content
from tests.bench import servers
from tests.bench.cases import PLAIN, Case
from tests.bench.content import APP, MIB
from tests.bench.generate import layout_name, write_layouts
from tests.bench.load import Asked, Measured, measure
from tests.bench.servers import PROXIED, Mirror
from tests.running import resident_bytes

CONNECTIONS = 200
LAYOUTS = 5_000
BLOB_MIB = 256
BLOBS = 4
COLD = "team/cold"
MANIFEST = f"/v2/{APP}/manifests/1.0"
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Waits:
    """One row: medians of rounds."""

    what: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return (
            f"{self.what:40}{self.requests_per_second:>10,.0f}/s  p50 {self.p50_ms:.2f} ms  p99 {self.p99_ms:.2f} ms"
        )


@dataclass(frozen=True)
class Found:
    """All of it. `worker_mib`: the most that a worker held while its share of the crowd read a big blob."""

    waits: list[Waits]
    fills_finished: int
    worker_mib: float

    def __str__(self) -> str:
        lines = [str(row) for row in self.waits]
        lines.append(f"{self.fills_finished} blobs of {BLOB_MIB} MiB were filled meanwhile")
        lines.append(f"{CONNECTIONS} x {BLOB_MIB} MiB: a worker held {self.worker_mib:.0f} MiB at most")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Content:
    """What is asked for, on disk: layouts, and for nginx the same manifest and blobs that the mirror has not."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)  # nginx gives up root
        self.folder, self.static = folder, folder / "static"
        written = bench_content.write(folder / "layouts", BLOB_MIB)
        self.big = f"/v2/{APP}/blobs/{written.big}"
        self.many = folder / "many"
        write_layouts(self.many, LAYOUTS, 10)
        manifest = self.static / MANIFEST[1:]
        manifest.parent.mkdir(parents=True)
        manifest.write_bytes((folder / "layouts" / APP / "blobs/sha256" / written.image.digest.hex).read_bytes())
        blobs = self.static / "v2" / COLD / "blobs"
        blobs.mkdir(parents=True)
        self.cold: list[str] = []
        for _ in range(BLOBS):
            blob = os.urandom(MIB) * BLOB_MIB
            digest = Digest.of(blob)
            (blobs / digest).write_bytes(blob)
            self.cold.append(f"/v2/{COLD}/blobs/{digest}?ns={PROXIED}")


def run(folder: Path, rounds: int, seconds: float) -> Found:
    """Everything, `rounds` times."""
    content = Content(folder)
    measured: dict[str, list[Measured]] = {}
    filled, held = 0, []
    with servers.nginx(folder, content.static) as nginx:
        for _ in range(rounds):
            layouts = [content.folder / "layouts", content.many]
            # A cache of its own each time: its blobs are cold again.
            with servers.mirror(folder, layouts, nginx, workers=2, refresh="1s") as mirror:
                ports = {"mirror": mirror.port, "nginx": nginx}
                _wait_warm(mirror)
                for name, port in ports.items():
                    measured.setdefault(f"{name}, nothing else", []).append(_crowd(folder, port, seconds))
                with _busy(content, mirror) as fills:
                    for name, port in ports.items():
                        measured.setdefault(f"{name}, fill and rescans", []).append(_crowd(folder, port, seconds))
                filled += len(fills)
                held.append(_held_by_readers(folder, content, mirror, seconds))
    waits = [
        Waits(
            what,
            statistics.median(one.requests_per_second for one in runs),
            statistics.median(one.p50_us for one in runs) / 1000,
            statistics.median(one.p99_us for one in runs) / 1000,
        )
        for what, runs in measured.items()
    ]
    return Found(waits, filled, max(held))


def _crowd(folder: Path, port: int, seconds: float) -> Measured:
    case = Case("crowd", MANIFEST, headers=PLAIN, connections=CONNECTIONS)
    return measure(folder, port, case, Asked(MANIFEST, PLAIN), seconds)


def _wait_warm(mirror: Mirror) -> None:
    """Back when every worker has answered, most likely, and its catalogue is complete."""
    for _ in range(16):
        connection = http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=60)
        for path in (MANIFEST, "/v2/_catalog"):
            connection.request("GET", path, headers=PLAIN)
            connection.getresponse().read()
        connection.close()


@contextmanager
def _busy(content: Content, mirror: Mirror) -> Iterator[list[str]]:
    """Within it blobs are filled and layouts change. Gives the targets of the blobs that came whole."""
    over, fills = threading.Event(), list[str]()
    work: list[Callable[[], None]] = [
        lambda: _fill(content, mirror, over, fills),
        lambda: _change(content.many, over),
    ]
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield fills
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _fill(content: Content, mirror: Mirror, over: threading.Event, fills: list[str]) -> None:
    buffer = bytearray(MIB)
    for target in content.cold:
        connection = http.client.HTTPConnection("127.0.0.1", mirror.port, timeout=60)
        connection.request("GET", target)
        answer = connection.getresponse()
        received = 0
        while not over.is_set() and (count := answer.readinto(buffer)):
            received += count
        connection.close()
        if received == BLOB_MIB * MIB:
            fills.append(target)


def _change(many: Path, over: threading.Event) -> None:
    number = 0
    while not over.wait(0.5):
        index = many / layout_name(number) / "index.json"
        fresh = index.with_name(".index.part")
        fresh.write_bytes(index.read_bytes() + b"\n")
        fresh.replace(index)
        number += 1


def _held_by_readers(folder: Path, content: Content, mirror: Mirror, seconds: float) -> float:
    """MiB that the larger worker held at most while the crowd read the big blob."""
    over, seen = threading.Event(), [0]

    def look() -> None:
        while not over.wait(_PAUSE_SECONDS):
            seen.extend(resident_bytes(pid) for pid in _workers(mirror.pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        case = Case("readers", content.big, connections=CONNECTIONS)
        measure(folder, mirror.port, case, Asked(content.big, {}), seconds)
    finally:
        over.set()
        thread.join()
    return max(seen) / MIB


def _workers(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in children.split()]


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        sys.stdout.write(f"{run(Path(name), 3, seconds)}\n{time.monotonic() - began:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
