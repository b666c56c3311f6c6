"""`make bench`: the mirror beside nginx and other registries, on this machine, in one run.

python -m tests.bench [--seconds 3] [--rounds 3] [--only GET] [--json build/bench.json]

The table also goes to the JSON file, and as a picture beside it.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.bench import cold, fills, servers, under_load
from tests.bench import content as bench_content
from tests.bench.cases import Case, cases
from tests.bench.load import Asked, Measured, headers_for, look, measure
from tests.bench.picture import picture
from tests.bench.table import Row, render

T = TypeVar("T")

BASE = "nginx"


def main() -> int:
    """Exit status 3 where something needed is missing."""
    arguments = _arguments()
    if shutil.which("wrk") is None:
        _say("wrk is not installed (Debian: apt install wrk nginx-light docker-registry)")
        return 3
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as name:
        folder = Path(name)
        # Its workers give up root.
        folder.chmod(0o755)
        content = bench_content.write(folder / "layouts", arguments.big_mib)
        bench_content.write_distribution(content.layouts, folder / "registry")
        (folder / "static").mkdir()
        with servers.running(folder, content, arguments.big_mib << 20) as ports:
            wanted = [case for case in cases(content) if arguments.only.lower() in case.name.lower()]
            rows = _run(folder, ports, wanted, arguments.rounds, arguments.seconds)
    sys.stdout.write(render(rows, BASE) + "\n")
    document: dict[str, object] = {"machine": _machine(), "rows": [row.to_json() for row in rows]}
    if not arguments.only:
        document |= _others(arguments)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(document, indent=1))
    arguments.json.with_suffix(".svg").write_text(picture(rows, BASE))
    return 0


def _others(arguments: argparse.Namespace) -> dict[str, object]:
    """What is no table of requests each second."""

    def measured(what: str, measure: Callable[[Path], T]) -> T:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as name:
            found = measure(Path(name))
        sys.stdout.write(f"\n{what}\n{found}\n")
        return found

    mib = arguments.big_mib
    fill = measured("a cold blob", lambda folder: cold.measure(folder, mib, arguments.rounds))
    load = measured("a crowd", lambda folder: under_load.run(folder, arguments.rounds, arguments.seconds))
    crowds = {
        f"{speed} MB/s, {workers} workers": measured(
            f"50 clients on one cold blob, {speed} MB/s, {workers} workers",
            partial(fills.measure, size=mib << 20, bytes_per_second=speed * 1e6, workers=workers),
        )
        for speed in fills.SPEEDS
        for workers in fills.WORKERS
    }
    shown = {name: found.to_json() for name, found in crowds.items()}
    return {"cold": fill.to_json(), "under_load": load.to_json(), "crowd_on_a_cold_blob": shown}


def _machine() -> dict[str, object]:
    return {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()}


def _run(folder: Path, ports: dict[str, int], wanted: list[Case], rounds: int, seconds: float) -> list[Row]:
    """All servers take turns within a round, so that a slow minute of the machine is everybody's."""
    rows = []
    for case in wanted:
        _write_static(folder / "static", ports["mirror, 1 worker"], case)
        asked: dict[str, Asked] = {}
        for name, port in ports.items():
            path = case.static_path if name == BASE else case.target
            if name in (servers.LOGGING, servers.SENDER) and name != case.also:
                continue
            if case.only_mirror and name.startswith("distribution"):
                continue
            headers = headers_for(port, case, path)
            if look(port, case, path, headers).status < 400:
                asked[name] = Asked(path, headers)
        found: dict[str, list[Measured]] = {name: [] for name in asked}
        for _ in range(rounds):
            for name, what in asked.items():
                found[name].append(measure(folder, ports[name], case, what, seconds))
        rows.append(Row(case.name, found))
        _say(case.name)
    return rows


def _write_static(root: Path, port: int, case: Case) -> None:
    """The same bytes as a file."""
    whole = look(port, Case(case.name, case.target), case.target, {})
    path = root / case.static_path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():  # nginx keeps it open
        path.write_bytes(whole.body)


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--big-mib", type=int, default=256, help="size of the big blob")
    parser.add_argument("--folder", type=Path, help="where the content is written; it needs about twice the big blob")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
