"""What upstreams said they do not know, for all processes and for after a restart: a table of the cache's index.

As all of that index it may be lost: then an upstream that cannot be asked is that much less of an answer.
"""

import sqlite3
from typing import NamedTuple

from mirror.oci.names import Name

# The oldest go: anybody can ask for names that are not there.
MAX_ROWS = 20_000
# What waits to be written.
_MAX_WAITING = 10_000


class Said(NamedTuple):
    """The error code that the saying comes to, and when it was said, in Unix seconds."""

    code: str
    at: float


class Unknowns:
    """What waits to be written; guarded by its user's lock."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Name, str], Said | None] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def note(self, name: Name, reference: str, said: Said | None) -> None:
        """`said` None: it is known now."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting[name, reference] = said

    def forget(self, name: Name) -> None:
        """Drop what waits of a repository."""
        for key in [key for key in self._waiting if key[0] == name]:
            del self._waiting[key]

    def take(self) -> dict[tuple[Name, str], Said | None]:
        """All that waits, which then waits no more."""
        taken, self._waiting = self._waiting, {}
        return taken


def write(database: sqlite3.Connection, entries: dict[tuple[Name, str], Said | None]) -> None:
    """Bring the table up to date, within a transaction."""
    said = [(str(name), reference, *found) for (name, reference), found in entries.items() if found]
    gone = [(str(name), reference) for (name, reference), found in entries.items() if not found]
    database.executemany("DELETE FROM unknowns WHERE name = ? AND reference = ?", gone)
    database.executemany("INSERT OR REPLACE INTO unknowns VALUES (?, ?, ?, ?)", said)
    if said:
        database.execute(
            "DELETE FROM unknowns WHERE said < (SELECT said FROM unknowns ORDER BY said DESC LIMIT 1 OFFSET ?)",
            (MAX_ROWS,),
        )
