"""The table: requests each second, and their ratio to the file server."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.load import Measured

# Rounds of one server that lie further apart say nothing.
NOISY = 0.2
_LARGE_BYTES = 200 * 1024


@dataclass(frozen=True)
class Row:
    """One case: what each server did in each round."""

    case: str
    found: Mapping[str, Sequence[Measured]]

    def median(self, server: str) -> float | None:
        """Of `rates`."""
        rates = self.rates(server)
        return statistics.median(rates) if rates else None

    def rates(self, server: str) -> list[float]:
        """MiB each second for large bodies, which end seldom; requests for small ones, whose heads differ."""
        runs = self.found.get(server, ())
        is_large = any(run.bytes_per_second > _LARGE_BYTES * run.requests_per_second for run in runs)
        return [run.bytes_per_second / 2**20 if is_large else run.requests_per_second for run in runs]

    def spread(self, server: str) -> float:
        """How far the rounds lie apart, in parts of their median."""
        rates = self.rates(server)
        return (max(rates) - min(rates)) / statistics.median(rates) if any(rates) else 0.0

    def errors(self, server: str) -> int:
        return sum(one.errors for one in self.found.get(server, ()))

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "servers": {
                name: {
                    "median": self.median(name),
                    "spread": self.spread(name),
                    "rounds": [asdict(one) for one in runs],
                }
                for name, runs in self.found.items()
            },
        }


def render(rows: Sequence[Row], base: str) -> str:
    """Text for a terminal. A ratio is in brackets; `~` marks what was too noisy to judge, `!` answers that failed."""
    names = list(dict.fromkeys(name for row in rows for name in row.found))
    lines = [f"{'':28}" + "".join(f"{name:>24}" for name in names)]
    for row in rows:
        reference = row.median(base)
        cells = []
        for name in names:
            median = row.median(name)
            if median is None:
                cells.append("–")
                continue
            ratio = f" ({median / reference:.2f})" if reference else ""
            marks = ("~" if row.spread(name) > NOISY else "") + ("!" if row.errors(name) else "")
            cells.append(f"{marks}{median:,.0f}{ratio}")
        lines.append(f"{row.case:28}" + "".join(f"{cell:>24}" for cell in cells))
    noisy = sorted({row.case for row in rows for name in names if row.spread(name) > NOISY})
    if noisy:
        lines.append(f"Too noisy to judge (rounds more than {NOISY:.0%} apart): {', '.join(noisy)}.")
    lines.append("Requests each second, MiB/s for blobs; in brackets the ratio to nginx. Medians.")
    return "\n".join(lines)
