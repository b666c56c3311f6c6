"""The figures of local content at scale, measured on the real server.

    python -m tests.bench.generate /tmp/content
    python -m tests.bench.scale /tmp/content [--json]

Times count from the start of the process. Cold: a cache folder of its own; the page cache may be warm. A delay is
what a steady probe on one connection saw; the machine's own noise is in the row `probe, no rescan`.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.bench.generate import MIB, tag_name
from tests.bench.process import Server, latencies, percentile, serving, shuffled
from tests.server_process import MIRROR

RESCANS = 10
RESCAN_PAUSE_SECONDS = 0.6
PROBE_PAUSE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `goal` is an upper bound; None where there is none."""

    what: str
    value: float
    unit: str
    goal: float | None = None


class Bench:
    """All measurements over the content in one folder."""

    def __init__(self, content: Path, work: Path, repeats: int) -> None:
        self._content = content
        self._work = work
        self._repeats = repeats
        self._layouts = content / "layouts"
        self._names = sorted(f"{path.parent.name}/{path.name}" for path in self._layouts.glob("*/*"))

    def run(self, only: Sequence[str]) -> Iterator[Row]:
        parts = {"starts": self._starts, "workers": self._workers, "rescans": self._rescans, "tags": self._tags}
        parts |= {"archives": self._archives, "ls": self._ls}
        for name in only or parts:
            yield from parts[name]()

    def _starts(self) -> Iterator[Row]:
        """Cold and warm starts over the layouts; each asks for other manifests."""
        for kind in ("cold", "warm"):
            found = [self._start(seed, cold=kind == "cold") for seed in range(self._repeats)]
            goals = (1.0, 1.0, 1.0, 15.0 if kind == "cold" else 3.0)
            labels = ("port", "any manifest by tag", "any manifest by digest", "catalogued")
            for number, (label, goal) in enumerate(zip(labels, goals, strict=True)):
                yield Row(f"{kind} start: {label}", median(one[number] for one in found), "s", goal)
            yield Row(f"{kind} start: CPU until the first answers", median(one[4] for one in found), "s")

    def _start(self, seed: int, *, cold: bool) -> tuple[float, ...]:
        cache = self._work / "cache"
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        by_tag, other = shuffled(self._names, 2, seed)
        with serving(self._work, self._layouts, cache) as server:
            port = server.wait_port()
            digest_seconds: list[float] = []
            path = f"/v2/{other}/manifests/{self._digest(other)}"
            thread = threading.Thread(target=lambda: digest_seconds.append(_served(server, path)))
            thread.start()
            tag_seconds = _served(server, f"/v2/{by_tag}/manifests/v1")
            thread.join()
            used = server.cpu_seconds()
            catalogued = server.wait_catalogued()
            time.sleep(1)  # what was read is written down a moment later
            return port, tag_seconds, digest_seconds[0], catalogued, used

    def _workers(self) -> Iterator[Row]:
        """Cold starts of several workers: what one more costs."""
        for count in (1, 2, 4):
            cache = self._work / f"cache-workers-{count}"
            with serving(self._work, self._layouts, cache, "--workers", str(count)) as server:
                yield Row(f"workers, {count}: all ready, cold", server.wait_ready(), "s")
                yield Row(f"workers, {count}: CPU until then", server.cpu_seconds(), "s")
                yield Row(f"workers, {count}: memory of all processes", server.memory_bytes() / MIB, "MiB")

    def _digest(self, name: str) -> str:
        index = json.loads((self._layouts / name / "index.json").read_bytes())
        return str(index["manifests"][0]["digest"])

    def _rescans(self) -> Iterator[Row]:
        with serving(self._work, self._layouts, self._work / "cache") as server:
            server.wait_catalogued()
            server.wait_quiet()
            yield Row("memory, catalogued", server.memory_bytes() / MIB, "MiB", 250)
            some = shuffled(self._names, min(2_000, len(self._names)), 7)
            latencies(server, [f"/v2/{name}/manifests/v0" for name in some])
            yield Row("memory, after requests", server.memory_bytes() / MIB, "MiB", 250)
            server.rescan()  # the first one may have more to do than the others
            time.sleep(2)
            before = server.cpu_seconds()
            _repeat(server.rescan)
            used = (server.cpu_seconds() - before) / RESCANS
            yield Row("rescan, nothing changed: CPU", used * 1000, "ms", 200)
            before = server.cpu_seconds()
            _repeat(lambda: self._change(server))
            used = (server.cpu_seconds() - before) / RESCANS
            yield Row("rescan, one layout changed: CPU", used * 1000, "ms")
            for label, action in (
                ("no rescan", lambda: None),
                ("rescans, nothing changed", server.rescan),
                ("rescans, one layout changed", lambda: self._change(server)),
            ):
                yield from self._probe(server, label, action)
            yield Row("memory, at its peak", server.memory_bytes("VmHWM") / MIB, "MiB", 250)

    def _change(self, server: Server) -> None:
        """Replace one layout's index by an equal one and ask for a scan."""
        index = self._layouts / self._names[0] / "index.json"
        part = index.with_name(".index.json.part")
        part.write_bytes(index.read_bytes())
        part.replace(index)
        server.rescan()

    def _probe(self, server: Server, label: str, action: Callable[[], None]) -> Iterator[Row]:
        """Delays of answers that stay in memory, and of ones that were never given before, while `action` repeats."""
        hits: list[float] = []
        misses: list[float] = []
        ended = threading.Event()
        hit = f"/v2/{self._names[1]}/manifests/v0"

        def ask() -> None:
            numbers = iter(range(10**9))
            connection = server.connection()
            while not ended.is_set():
                # A query that nobody knows is another answer to render, of another manifest.
                number = next(numbers)
                miss = f"/v2/{self._names[number % len(self._names)]}/manifests/v2?{label.replace(' ', '')}={number}"
                for path, taken in ((hit, hits), (miss, misses)):
                    begun = time.perf_counter()
                    status, _, _ = server.get(path, connection)
                    taken.append(time.perf_counter() - begun)
                    assert status == 200, path
                time.sleep(PROBE_PAUSE_SECONDS)
            connection.close()

        thread = threading.Thread(target=ask)
        thread.start()
        _repeat(action)
        ended.set()
        thread.join()
        for kind, taken in (("hits", hits), ("first answers", misses)):
            goal = None if label == "no rescan" else 20.0
            yield Row(f"probe, {label}: {kind}, p99", percentile(taken, 0.99) * 1000, "ms", goal)
            yield Row(f"probe, {label}: {kind}, longest", max(taken) * 1000, "ms", goal)

    def _tags(self) -> Iterator[Row]:
        """A repository of many tags against one of one tag, at equal page size."""
        root = self._content / "tags"
        index = json.loads((root / "many" / "index.json").read_bytes())
        digests = {name: self._root_digest(root / name) for name in ("many", "one")}
        total = len(index["manifests"])
        with serving(self._work, root, self._work / "cache-tags") as server:
            server.wait_catalogued()
            yield Row(f"repository of {total} tags: catalogued", server.seconds(), "s")
            last, first = tag_name(total // 2), tag_name(0)
            for what, many, one in (
                ("page", f"/v2/many/tags/list?n=1&last={last}", "/v2/one/tags/list?n=1"),
                ("tag", f"/v2/many/manifests/{last}", f"/v2/one/manifests/{first}"),
                ("digest", f"/v2/many/manifests/{digests['many']}", f"/v2/one/manifests/{digests['one']}"),
            ):
                for kind in ("hit", "first answer"):
                    ratio = _ratio(server, many, one, repeated=kind == "hit")
                    yield Row(f"{total} tags: {what}, {kind}, time ratio to one tag", ratio, "", 1.2)

    def _root_digest(self, layout: Path) -> str:
        index = json.loads((layout / "index.json").read_bytes())
        return str(index["manifests"][len(index["manifests"]) // 2]["digest"])

    def _archives(self) -> Iterator[Row]:
        root = self._content / "archives"
        apparent = sum(path.stat().st_size for path in root.iterdir())
        yield Row("archives: apparent size", apparent / MIB / 1024, "GiB")
        cache = self._work / "cache-archives"
        name = sorted(path.stem for path in root.iterdir())[0]
        for kind in ("cold", "warm"):
            with serving(self._work, root, cache) as server:
                port = server.wait_port()
                yield Row(f"archives, {kind}: port", port, "s", 10)
                yield Row(f"archives, {kind}: serving", _served(server, f"/v2/{name}/manifests/v3"), "s", 10)
                yield Row(f"archives, {kind}: listed", server.wait_catalogued(), "s", 10)
                saved = _served(server, "/v2/docker.io/bundles/saved003/manifests/v3")
                yield Row(f"archives, {kind}: a docker save serving", saved, "s", 10)
                yield Row(f"archives, {kind}: memory", server.memory_bytes() / MIB, "MiB", 250)

    def _ls(self) -> Iterator[Row]:
        for name in ("layouts", "archives"):
            command = [str(MIRROR), "ls", "--json", "--layouts", str(self._content / name)]
            command += ["--cache", str(self._work / f"cache-ls-{name}")]
            begun = time.perf_counter()
            done = subprocess.run(command, cwd=self._work, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr[-1000:]
            yield Row(f"mirror ls, {name}", time.perf_counter() - begun, "s")


def _served(server: Server, path: str) -> float:
    """Seconds from the start until `path` was answered."""
    status, body, _ = server.get(path)
    assert status == 200, (path, body[:300])
    return server.seconds()


def _repeat(action: Callable[[], None]) -> None:
    for _ in range(RESCANS):
        action()
        time.sleep(RESCAN_PAUSE_SECONDS)


def _ratio(server: Server, many: str, one: str, *, repeated: bool) -> float:
    """Median time of the first path over that of the second, asked in turns."""
    ratios = []
    for round_number in range(5):
        taken = []
        for path in (many, one):
            joint = "&x=" if "?" in path else "?x="
            paths = [path if repeated else f"{path}{joint}{round_number * 1000 + n}" for n in range(200)]
            taken.append(median(latencies(server, paths)[20:]))
        ratios.append(taken[0] / taken[1])
    return median(ratios)


def _print_table(rows: list[Row]) -> None:
    width = max(len(row.what) for row in rows)
    for row in rows:
        goal = "" if row.goal is None else f"  (goal {row.goal:g})" + ("" if row.value <= row.goal else "  MISSED")
        print(f"{row.what:<{width}}  {row.value:10.3f} {row.unit}{goal}")  # noqa: T201 the table is the output


def main() -> None:
    parser = argparse.ArgumentParser(description="measure the server on what tests.bench.generate wrote")
    parser.add_argument("content", type=Path)
    parser.add_argument("--repeats", type=int, default=3, help="starts of each kind")
    parser.add_argument(
        "--only", nargs="+", choices=["starts", "workers", "rescans", "tags", "archives", "ls"], default=()
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirror-scale-") as work:
        rows = list(Bench(options.content.resolve(), Path(work), options.repeats).run(options.only))
    if options.json:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
        json.dump({"machine": machine, "rows": [asdict(row) for row in rows]}, sys.stdout, indent=2)
    else:
        _print_table(rows)


if __name__ == "__main__":
    main()
