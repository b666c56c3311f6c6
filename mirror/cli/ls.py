"""`mirror ls [NAME]`: what local content there is, and what is wrong with it."""

import json
import sys
from collections.abc import Sequence

from mirror.app.local import view_now
from mirror.cli.table import human_size, print_table, printable
from mirror.config import Config
from mirror.oci.names import Name, Repository, split_host
from mirror.sources.heap import uncollected
from mirror.sources.listing import Listed, list_content
from mirror.sources.walk import Problem


def run(config: Config, name: str | None, *, as_json: bool, sources: bool) -> int:
    """Print the list. Returns 1 where something is wrong, or `name` is not there."""
    with uncollected():
        scan, view = view_now(config)
        rows = list(list_content(view, _name(name) if name else None))
    if as_json:
        _print_json(rows, scan.problems)
    else:
        _print(rows, scan.problems, sources, is_completed=config.default_host in config.upstreams)
    if name and not rows:
        print(f"{name}: no such repository in local content", file=sys.stderr)
        return 1
    return 1 if scan.problems or any(row.problems for row in rows) else 0


def _name(text: str) -> Name:
    host, repository = split_host(text)
    return Name(host, Repository(repository))


def _print_json(rows: Sequence[Listed], problems: Sequence[Problem]) -> None:
    # A line for each: an encoder that indents takes ten times as long.
    content = ",\n    ".join(json.dumps(row.to_json()) for row in rows)
    wrong = json.dumps([{"path": problem.path, "reason": problem.reason} for problem in problems])
    print(f'{{\n  "content": [\n    {content}\n  ],\n  "problems": {wrong}\n}}')


def _print(rows: Sequence[Listed], problems: Sequence[Problem], sources: bool, *, is_completed: bool) -> None:
    header = ["REPOSITORY", "TAG", "DIGEST", "PLATFORMS", "SIZE", "NOTES", *(["SOURCES"] if sources else [])]
    lines = [
        [
            str(row.name),
            row.tag if row.tag is not None else "(no tag, digest only)",
            row.digest[:19],
            ", ".join(row.platforms),
            human_size(row.size),
            "; ".join(_notes(row, is_completed)),
            *([", ".join(map(str, row.sources))] if sources else []),
        ]
        for row in rows
    ]
    print_table(header, lines)
    for problem in problems:
        print(printable(f"skipped: {problem}"), file=sys.stderr)


def _notes(row: Listed, is_completed: bool) -> list[str]:
    """`is_completed`: other names without a host are completed from an upstream, which this one is not."""
    worth_saying = row.plain and (row.name.host is not None or is_completed)
    local_only = ["local only when asked for without a host"] if worth_saying else []
    made = ["manifest made by mirror: its digest is no registry's"] if row.generated else []
    return [*local_only, *made, *row.problems]
