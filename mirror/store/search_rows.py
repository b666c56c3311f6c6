"""The rows of one repository in the search index, written."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from mirror.oci.versions import version_key
from mirror.store.search_entry import Entry, Facts, joined

_MAX_INTEGER = 2**63 - 1

_Key = tuple[str, str]


class RowWriter:
    """Writes rows of the repository `name`, within one transaction of the connection. `now_ms`: Unix milliseconds."""

    def __init__(self, connection: sqlite3.Connection, name: str, now_ms: int) -> None:
        self._execute = connection.execute
        self._name = name
        self._now_ms = now_ms
        # Only within one transaction: what is rolled back has no number.
        self._texts: dict[str, int] = {}
        self._annotations: dict[tuple[str, str], int] = {}

    def replace(self, entries: Iterable[Entry]) -> bool:
        """Make these the rows; whether anything was another."""
        wanted = {(entry.digest, entry.tag): entry for entry in entries}
        self._execute("INSERT OR IGNORE INTO repositories VALUES (abs(random()), ?)", (self._name,))
        (repository,) = self._execute("SELECT id FROM repositories WHERE name = ?", (self._name,)).fetchone()
        before = {
            (digest, tag): values
            for digest, tag, *values in self._execute(
                "SELECT digest, tag, kind, platforms, size, created FROM rows WHERE repository = ?", (repository,)
            )
        }
        removed = [key for key in before if key not in wanted]
        self._remove(repository, removed)
        changed = [self._update(repository, entry, before[key]) for key, entry in wanted.items() if key in before]
        added = [entry for key, entry in wanted.items() if key not in before]
        if added:
            self._add(repository, added)
        if not wanted:
            self._execute("DELETE FROM repositories WHERE id = ?", (repository,))
        return bool(removed or added) or any(changed)

    def _remove(self, repository: int, keys: Sequence[_Key]) -> None:
        for key in keys:
            self._execute(
                "INSERT OR REPLACE INTO gone SELECT name, tag, digest, first_seen, ? FROM rows"
                " WHERE repository = ? AND digest = ? AND tag = ?",
                (self._now_ms, repository, *key),
            )
            self._execute("DELETE FROM rows WHERE repository = ? AND digest = ? AND tag = ?", (repository, *key))

    def _update(self, repository: int, entry: Entry, before: Sequence[Any]) -> bool:
        """What the same manifest tells may be another: what it lists came or went."""
        values = self._changing(entry.facts)
        if values == before:
            return False
        self._execute(
            "UPDATE rows SET kind = ?, platforms = ?, size = ?, created = ?"
            " WHERE repository = ? AND digest = ? AND tag = ?",
            (*values, repository, entry.digest, entry.tag),
        )
        return True

    def _changing(self, facts: Facts) -> list[int | None]:
        size = min(facts.size, _MAX_INTEGER)
        return [self._number_or_none(facts.kind), self._number(joined(facts.platforms)), size, facts.created_ms]

    def _add(self, repository: int, entries: Sequence[Entry]) -> None:
        gone = {
            (digest, tag): seen
            for digest, tag, seen in self._execute(
                "SELECT digest, tag, first_seen FROM gone WHERE name = ?", (self._name,)
            )
        }
        for entry in entries:
            facts, tag = entry.facts, entry.tag
            kind, platforms, size, created = self._changing(facts)
            times = (gone.get((entry.digest, tag)), entry.seen_ms)
            seen = min((one for one in times if one is not None), default=self._now_ms)
            media_types = (self._number(facts.media_type), self._number_or_none(facts.artifact_type))
            words = f"{self._name}:{tag}".lower() if tag else self._name.lower()
            self._execute(
                "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(repository, entry.digest, tag, kind, *media_types, platforms, size, created, seen),
                    *(words, version_key(tag), self._name, self._annotated(facts), _weight(facts)),
                ),
            )
        self._execute(
            "DELETE FROM gone WHERE name = ? AND EXISTS (SELECT 1 FROM rows r"
            " WHERE r.repository = ? AND r.tag = gone.tag AND r.digest = gone.digest)",
            (self._name, repository),
        )

    def _number_or_none(self, text: str | None) -> int | None:
        return self._number(text) if text is not None else None

    def _number(self, text: str) -> int:
        text = _written(text)
        if text not in self._texts:
            self._execute("INSERT OR IGNORE INTO texts (text) VALUES (?)", (text,))
            (self._texts[text],) = self._execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()
        return self._texts[text]

    def _annotated(self, facts: Facts) -> str:
        numbers = []
        for pair in facts.annotations.items():
            written = (_written(pair[0]), _written(pair[1]))
            if written not in self._annotations:
                self._execute("INSERT OR IGNORE INTO annotations (key, value) VALUES (?, ?)", written)
                found = self._execute("SELECT id FROM annotations WHERE key = ? AND value = ?", written)
                (self._annotations[written],) = found.fetchone()
            numbers.append(self._annotations[written])
        return joined(numbers)


def tidy(connection: sqlite3.Connection) -> None:
    """Forget the texts and annotations that no row needs, in the transaction that the connection is in."""
    used = {
        number for (listed,) in connection.execute("SELECT annotations FROM rows") for number in listed.split(",")
    }
    gone = [(number,) for (number,) in connection.execute("SELECT id FROM annotations") if str(number) not in used]
    connection.executemany("DELETE FROM annotations WHERE id = ?", gone)
    connection.execute(
        "DELETE FROM texts WHERE id NOT IN (SELECT media_type FROM rows UNION SELECT platforms FROM rows"
        " UNION SELECT kind FROM rows WHERE kind IS NOT NULL"
        " UNION SELECT artifact_type FROM rows WHERE artifact_type IS NOT NULL)"
    )


def _weight(facts: Facts) -> int:
    """How many characters of an answer a row takes, beside what is in each."""
    texts = (
        facts.media_type,
        facts.artifact_type or "",
        *facts.platforms,
        *facts.annotations,
        *facts.annotations.values(),
    )
    return sum(map(len, texts))


def _written(text: str) -> str:
    """JSON may hold what no UTF-8 can."""
    return text.encode("utf-8", "replace").decode()
