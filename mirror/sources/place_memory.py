"""What scans read, for the next start: documents by path, valid as long as file and configuration are the same.

Only what is final is kept: nothing that waits for a job, and nothing whose bytes lie in the cache.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence

from mirror import __version__
from mirror.sources.place_document import FORMAT
from mirror.sources.scan import Seen, Signature
from mirror.sources.scan_settings import Root
from mirror.sources.walk import Problem
from mirror.store.place_state import PlaceState, Row


class RememberedPlaces:
    """A `PlaceMemory` in a file."""

    def __init__(self, state: PlaceState) -> None:
        self._state = state
        self._own_hosts: frozenset[str] = frozenset()
        self._rows: Mapping[str, Row] = {}

    def load(self, roots: Sequence[Root], own_hosts: frozenset[str]) -> None:
        """Have at hand what is remembered of these roots. Blocks."""
        self._own_hosts = own_hosts
        self._rows = self._state.load({_rules(root, own_hosts) for root in roots})

    def recall(self, path: str, root: Root, signature: Signature) -> Seen | None:
        """What was read at `path` when it had this signature; None where that is not known."""
        row = self._rows.get(path)
        if row is None or row.signature != _text(signature) or row.rules != _rules(root, self._own_hosts):
            return None
        text, _, document = row.content.partition("\n")
        try:
            problems = tuple(Problem(where, reason) for where, reason in json.loads(text))
        except (ValueError, TypeError):
            return None  # not what this version writes: it is read from the files
        return Seen(signature, document, problems)

    def unload(self) -> None:
        """Let go of what `load` brought."""
        self._rows = {}

    def save(self, seen: Mapping[str, tuple[Root, Seen]], all_paths: Iterable[str]) -> None:
        """Remember what is final of `seen`; forget every path that is not among `all_paths`. Blocks."""
        rows: list[tuple[str, Row]] = []
        forgotten = set(self._state.paths()) - set(all_paths)
        rules = {root: _rules(root, self._own_hosts) for root, _ in seen.values()}
        for path, (root, one) in seen.items():
            if one.signature and not one.jobs and not one.unpacked:
                problems = json.dumps([[problem.path, problem.reason] for problem in one.problems])
                rows.append((path, Row(rules[root], _text(one.signature), f"{problems}\n{one.document or ''}")))
            else:
                forgotten.add(path)
        self._state.save(rows, forgotten)


_known_rules: dict[tuple[Root, frozenset[str]], str] = {}


def _rules(root: Root, own_hosts: frozenset[str]) -> str:
    """What, besides a file itself, decides how it is read."""
    key = (root, own_hosts)
    if key not in _known_rules:
        said = (FORMAT, __version__, root, sorted(own_hosts), os.path.realpath(root.path))
        _known_rules[key] = hashlib.sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()
    return _known_rules[key]


def _text(signature: Signature) -> str:
    return " ".join(map(str, signature))
