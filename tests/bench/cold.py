"""A cold blob from an unlimited upstream, against distribution's proxy: `python -m tests.bench.cold [MIB] [ROUNDS]`.

The upstream is distribution itself over files in the page cache. Every fill is of another blob; all servers take
turns within a round. Timed to the last byte of the body.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from tests.bench.content import write_distribution
from tests.bench.crowd import MIB, Crowd, Reader, blob
from tests.bench.fills import cpu_seconds
from tests.bench.servers import distribution, distributions
from tests.content import LayoutWriter
from tests.server_process import MirrorProcess

DIRECT = "direct"
_REPOSITORY = "library/cold"
_WORKERS = (1, 2)


@dataclass(frozen=True)
class Cold:
    """Seconds of each round by server; CPU seconds for each GiB filled, of each mirror."""

    mib: int
    seconds: dict[str, list[float]]
    cpu_seconds_per_gib: dict[str, float]

    def median(self, server: str) -> float:
        """Seconds."""
        return statistics.median(self.seconds[server])

    def speed_against(self, server: str, other: str) -> float:
        """How many times as fast as another: the median of the rounds' ratios, since a slow round is everybody's."""
        pairs = zip(self.seconds[server], self.seconds[other], strict=True)
        return statistics.median(others / own for own, others in pairs)

    def to_json(self) -> dict[str, object]:
        """All of it, with the ratios."""
        ratios = {one: {other: self.speed_against(one, other) for other in self.seconds} for one in self.seconds}
        return {**asdict(self), "times_as_fast_as": ratios}

    def __str__(self) -> str:
        proxies = [name for name in self.seconds if name.endswith("proxy")]
        lines = []
        for name in self.seconds:
            against = ", ".join(f"x{self.speed_against(name, other):.2f} {other}" for other in (DIRECT, *proxies))
            cpu = self.cpu_seconds_per_gib.get(name)
            said = "" if cpu is None else f"; {cpu:.2f} CPU s/GiB"
            lines.append(f"{name:24} {self.mib / self.median(name):6.0f} MiB/s; {against}{said}")
        return "\n".join(lines)


def measure(folder: Path, mib: int, rounds: int) -> Cold:
    """Raises IndexError where no distribution is installed."""
    targets = _write(folder, mib * MIB, rounds)
    with ExitStack() as stack:
        upstream = stack.enter_context(distribution(folder, next(iter(distributions()))))
        hosts = {DIRECT: f"127.0.0.1:{upstream}"}
        for name in distributions():
            hosts[f"{name} proxy"] = f"127.0.0.1:{stack.enter_context(distribution(folder, name, upstream))}"
        mirrors = {
            f"mirror {workers}w": stack.enter_context(_mirror(folder, workers, upstream)) for workers in _WORKERS
        }
        hosts.update({name: mirror.host for name, mirror in mirrors.items()})
        before = {name: cpu_seconds(mirror) for name, mirror in mirrors.items()}
        seconds: dict[str, list[float]] = {name: [] for name in hosts}
        for target, size in targets:
            for name, host in hosts.items():
                # What the one before has still to write is not this one's to wait for.
                os.sync()
                seconds[name].append(_seconds(host, target, size, check=False))
        spent = {
            name: (cpu_seconds(mirror) - before[name]) / (rounds * mib / 1024) for name, mirror in mirrors.items()
        }
        for host in hosts.values():
            _seconds(host, *targets[-1], check=True)
    return Cold(mib, seconds, spent)


def _seconds(host: str, target: str, size: int, *, check: bool) -> float:
    (met,) = Crowd(host, target, size, [Reader(check=check)]).run()
    if not (met.whole and met.right):
        raise AssertionError(f"{host}: status {met.status}, {met.bytes} of {size} bytes")
    return met.total_seconds


def _write(folder: Path, size: int, rounds: int) -> list[tuple[str, int]]:
    """A blob for each round, as distribution keeps it: where it is asked for, and its size in bytes."""
    writer = LayoutWriter(folder / "layouts" / _REPOSITORY)
    layers = [writer.blob(blob(size + number)) for number in range(rounds)]
    writer.save()
    write_distribution(folder / "layouts", folder / "registry")
    return [(f"/v2/{_REPOSITORY}/blobs/{layer.digest}", layer.size) for layer in layers]


@contextmanager
def _mirror(folder: Path, workers: int, upstream: int) -> Iterator[MirrorProcess]:
    config = folder / f"mirror{workers}.yaml"
    endpoints = {"endpoints": [f"http://127.0.0.1:{upstream}"]}
    document = {"workers": workers, "cache": {"path": f"cache{workers}"}, "upstreams": {"docker.io": endpoints}}
    config.write_text(yaml.safe_dump(document))
    with MirrorProcess(folder / f"mirror{workers}.log", "--config", str(config)) as mirror:
        yield mirror


def main(arguments: list[str]) -> int:
    mib, rounds = int(arguments[0] if arguments else 256), int(arguments[1] if len(arguments) > 1 else 5)
    with tempfile.TemporaryDirectory(prefix="cold-") as folder:
        found = measure(Path(folder), mib, rounds)
    print(found, file=sys.stderr)  # noqa: T201 for people
    print(json.dumps(found.to_json()))  # noqa: T201 the answer
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
