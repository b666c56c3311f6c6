"""Numbers for `/metrics` (Prometheus text format): counted as plain integers, rendered when somebody asks.

Several workers answer on one port, and a scrape reaches any of them: each writes its numbers to a file in a folder
of their own now and then, and whoever is asked adds them up.
"""

import json
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mirror.server.answer import Answer, Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
# Name → (help, label names). Counters add up over workers; so do gauges, unless of all workers together.
COUNTERS: Mapping[str, tuple[str, Labels]] = {
    "mirror_requests": ("Requests answered.", ("endpoint", "method", "status")),
    "mirror_sent_bytes": ("Bytes of bodies announced to clients.", ("endpoint",)),
    "mirror_cache_answers": ("Answers with content, by what the cache had to say.", ("verdict",)),
    "mirror_upstream_requests": ("Requests to upstreams; status 0: no answer.", ("upstream", "method", "status")),
    "mirror_upstream_received_bytes": ("Bytes received from upstreams.", ("upstream",)),
    "mirror_upstream_tokens": ("Tokens fetched for upstreams.", ("upstream", "result")),
    "mirror_fills": ("Fills of blobs, by how they ended; `started` counts all.", ("state",)),
    "mirror_fill_written_bytes": ("Bytes that fills wrote to disk.", ()),
    "mirror_evicted_bytes": ("Bytes evicted from the cache.", ()),
    "mirror_evicted_tags": ("Tags evicted from the cache.", ()),
}
GAUGES: Mapping[str, tuple[str, Labels]] = {
    "mirror_fills_running": ("Fills running now.", ()),
    "mirror_cache_size_bytes": ("Bytes of cached blobs on disk.", ()),
    "mirror_local_repositories": ("Repositories of local content.", ()),
    "mirror_upstream_open_seconds": (
        "How long an upstream's endpoint is not asked; 0: it is.",
        ("upstream", "endpoint"),
    ),
    "mirror_upstream_ratelimit_remaining": ("What the upstream last said is left.", ("upstream",)),
}
# The same in every worker: one counts, not the sum. The largest; of what is left, the least: it warns too early
# rather than too late.
_Join = Callable[[float, float], float]
_SHARED_GAUGES: Mapping[str, _Join] = {
    "mirror_cache_size_bytes": max,
    "mirror_local_repositories": max,
    "mirror_upstream_open_seconds": max,
    "mirror_upstream_ratelimit_remaining": min,
}

Values = dict[str, dict[Labels, float]]


class Metrics:
    """The numbers of one process. `folder` is shared by the workers of one mirror; None: there is only one."""

    def __init__(self, folder: Path | None = None, worker: int = 0) -> None:
        self._counters: dict[str, defaultdict[Labels, float]] = {name: defaultdict(float) for name in COUNTERS}
        self._gauges: dict[str, dict[Labels, float]] = {name: {} for name in GAUGES}
        # Answers of each method and kind, and the bytes of their bodies.
        self._tallies: dict[tuple[str, Kind], list[int]] = {}
        self._collect: list[Callable[[Metrics], None]] = []
        # By the worker's place: what a dead one counted is taken up by its successor.
        self._file = folder / f"{worker}.json" if folder else None
        if self._file is not None and self._file.exists():
            self._take_up(self._file)

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Count up."""
        self._counters[name][labels] += amount

    def set(self, name: str, value: float, labels: Labels = ()) -> None:
        """What a gauge shows now, or the whole of a counter that is kept elsewhere."""
        if name in self._gauges:
            self._gauges[name][labels] = value
        else:
            self._counters[name][labels] = value

    def before_reading(self, collect: Callable[["Metrics"], None]) -> None:
        """Have `collect` called before the numbers are read, for those that are kept elsewhere. It may block."""
        self._collect.append(collect)

    def answered(self, method: str, answer: Answer) -> None:
        """Count one answer; cheap, since every answer passes here."""
        tally = self._tallies.get((method, answer.kind))
        if tally is None:
            tally = self._tallies[method, answer.kind] = [0, 0]
        tally[0] += 1
        if answer.send_body:
            tally[1] += answer.stop - answer.start

    def write(self) -> None:
        """Put the numbers where other workers find them. Blocks. Raises OSError."""
        if self._file is None:
            return
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(_packed(self._read())))
        part.replace(self._file)

    def render(self) -> bytes:
        """The numbers of all workers. Blocks."""
        total = self._read()
        for values in self._others():
            _add(total, values)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(total))
        return generate_latest(registry)

    def _take_up(self, file: Path) -> None:
        with suppress(OSError, ValueError):
            for name, values in _unpacked(json.loads(file.read_text())).items():
                if name in self._counters:
                    self._counters[name].update(values)

    def _read(self) -> Values:
        for collect in self._collect:
            collect(self)
        values = {name: dict(of) for name, of in (*self._counters.items(), *self._gauges.items())}
        # In one step: the event loop goes on counting meanwhile.
        for (method, kind), (count, sent_bytes) in list(self._tallies.items()):
            _count(values["mirror_requests"], (kind.endpoint, method, str(kind.status)), count)
            _count(values["mirror_sent_bytes"], (kind.endpoint,), sent_bytes)
            if kind.verdict is not None:
                _count(values["mirror_cache_answers"], (kind.verdict,), count)
        return values

    def _others(self) -> Iterator[Values]:
        if self._file is None:
            return
        for file in self._file.parent.glob("*.json"):
            if file != self._file:
                try:
                    yield _unpacked(json.loads(file.read_text()))
                except (OSError, ValueError):
                    continue


def _count(values: dict[Labels, float], labels: Labels, amount: float) -> None:
    if amount:
        values[labels] = values.get(labels, 0) + amount


class _Families(Collector):
    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """See prometheus-client's `Collector`."""
        for name, (text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=labels)
            for key, value in sorted(self._values.get(name, {}).items()):
                counter.add_metric(key, value)
            yield counter
        for name, (text, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=labels)
            for key, value in sorted(self._values.get(name, {}).items()):
                gauge.add_metric(key, value)
            yield gauge


def _packed(values: Mapping[str, Mapping[Labels, float]]) -> dict[str, list[list[object]]]:
    return {name: [[*labels, value] for labels, value in of.items()] for name, of in values.items() if of}


def _unpacked(document: dict[str, list[list[object]]]) -> Values:
    return {
        name: {tuple(map(str, row[:-1])): float(str(row[-1])) for row in rows}
        for name, rows in document.items()
        if name in COUNTERS or name in GAUGES
    }


def _add(total: Values, values: Values) -> None:
    for name, of in values.items():
        for labels, value in of.items():
            known = total[name].get(labels)
            both: _Join = _SHARED_GAUGES.get(name, operator.add)
            total[name][labels] = value if known is None else both(known, value)
