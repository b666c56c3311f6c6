"""Pages of a search, in SQL, by whichever way is short.

Sorting means reading all rows. Where much fits, the page is soon met on a walk in the sort's order; but where what
fits lies far behind, such a walk takes longer than the sort, so it ends after some steps.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mirror.store.search_entry import split_listed
from mirror.store.search_query import Found, Query, Row

# Annotations may be as long as a manifest: a page ends before rows come to more than this, or with its first.
MAX_PAGE_CHARACTERS = 4 * 1024 * 1024

_TEXT = "(SELECT text FROM texts WHERE id = {})"
_COLUMNS = ", ".join(
    (
        *("name", "tag", "digest", _TEXT.format("media_type"), _TEXT.format("artifact_type"), _TEXT.format("kind")),
        *(_TEXT.format("platforms"), "size", "created", "first_seen", "annotations", "weight"),
    )
)
_GROUP_COLUMNS = "repository, name, max(size), max(created), min(first_seen), group_concat(DISTINCT platforms)"
# What the sort's keys are of a repository, which has no tag and no version.
_GROUP_KEYS = {
    "name": "name",
    "tag": "''",
    "digest": "''",
    "version": "'2'",
    "first_seen": "min(first_seen)",
    "size": "max(size)",
}


Rows = list[tuple[Any, ...]]


class WalkLimits(NamedTuple):
    """How many rows a walk may meet: for each that the page holds, and at least. One costs as much as six sorted."""

    per_row: int = 10
    at_least: int = 5_000


class Conditions(NamedTuple):
    """What fits: SQL to be joined by AND, and its values."""

    parts: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()

    def also(self, part: str, *values: Any) -> "Conditions":
        return Conditions((*self.parts, part), (*self.values, *values))

    @property
    def where(self) -> str:
        return f"WHERE {' AND '.join(self.parts)}" if self.parts else ""


class Pages:
    """Answers one query over what fits `conditions`. Everything raises sqlite3.Error."""

    def __init__(
        self, connection: sqlite3.Connection, query: Query, conditions: Conditions, limits: WalkLimits
    ) -> None:
        self._execute = connection.execute
        self._query = query
        self._fits = conditions
        self._wanted = query.limit + 1
        self._steps = max(limits.at_least, limits.per_row * self._wanted)

    def rows(self) -> Found:
        """Tags, and manifests without one."""
        query = self._query
        (total,) = self._execute(f"SELECT count(*) FROM rows {self._fits.where}", self._fits.values).fetchone()  # noqa: S608 ours
        if not total or not query.limit:
            return Found(total, (), more=False)
        select = f"SELECT {_COLUMNS}, {', '.join(query.keys)} FROM rows"  # noqa: S608 ours
        found = self._walked(f"{select} INDEXED BY rows_by_{query.sort}", query.keys, query.after, total)
        if found is None:
            # `+`: by no index, neither in its order nor from a place in it, which would be a walk to its end.
            keys = [f"+{key}" for key in query.keys]
            fits = self._beyond(self._fits, keys, query.after)
            found = self._first(f"{select} {fits.where}", keys, fits.values)
        shown = found[: min(query.limit, _fitting([row[11] for row in found]))]
        annotations = self._annotations([row[10] for row in shown])
        return Found(total, [_row(row, annotations) for row in shown], len(found) > len(shown))

    def repositories(self) -> Found:
        """Repositories that have anything that fits."""
        query, fits = self._query, self._fits
        # Not `count(DISTINCT repository)`, which keeps a set where passing by each is enough.
        counted = f"SELECT count(*) FROM (SELECT DISTINCT repository FROM rows {fits.where})"  # noqa: S608 ours
        (total,) = self._execute(counted, fits.values).fetchone()
        if not total or not query.limit:
            return Found(total, (), more=False)
        keys = [_GROUP_KEYS[key] for key in query.keys]
        select = f"SELECT repository, {', '.join(keys)} FROM rows"  # noqa: S608 ours
        found = None
        if query.sort in ("name", "version"):
            # They differ by their names alone.
            after = (query.after[query.keys.index("name")],) if query.after else None
            found = self._walked(f"{select} INDEXED BY rows_by_name", ("name",), after, total, "GROUP BY name")
        if found is None:
            having = self._beyond(Conditions(), keys, query.after)
            group = f"GROUP BY repository {having.where.replace('WHERE', 'HAVING', 1)}"
            found = self._first(f"{select} {fits.where} {group}", keys, (*fits.values, *having.values))
        shown = found[: query.limit]
        return Found(total, self._groups(shown), len(found) > len(shown))

    def _walked(
        self, select: str, keys: Sequence[str], after: tuple[Any, ...] | None, total: int, group: str = ""
    ) -> Rows | None:
        """The page, met in the order of an index; None where it would take too many steps."""
        (rows,) = self._execute("SELECT count(*) FROM rows").fetchone()
        if 2 * self._wanted * rows > total * self._steps:
            return None
        ahead = self._beyond(Conditions(), keys, after)
        bound = self._execute(
            f"SELECT {', '.join(keys)} FROM rows {ahead.where} ORDER BY {self._order(keys)} LIMIT 1 OFFSET ?",  # noqa: S608 ours
            (*ahead.values, self._steps),
        ).fetchone()
        fits = self._beyond(self._fits, keys, after)
        if bound is not None:
            fits = fits.also(_compared(keys, ">=" if self._query.descending else "<="), *bound)
        found = self._first(f"{select} {fits.where} {group}", keys, fits.values)
        return found if bound is None or len(found) == self._wanted else None

    def _first(self, select: str, keys: Sequence[str], values: Sequence[Any]) -> Rows:
        """One row more than a page holds."""
        return self._execute(f"{select} ORDER BY {self._order(keys)} LIMIT ?", (*values, self._wanted)).fetchall()

    def _order(self, keys: Sequence[str]) -> str:
        return ", ".join(f"{key} DESC" if self._query.descending else key for key in keys)

    def _beyond(self, fits: Conditions, keys: Sequence[str], after: tuple[Any, ...] | None) -> Conditions:
        """What lies behind the cursor."""
        if after is None:
            return fits
        return fits.also(_compared(keys, "<" if self._query.descending else ">"), *after)

    def _groups(self, shown: Rows) -> Sequence[Row]:
        """What there is to say of these repositories, of all that fits in them."""
        numbers = json.dumps([number for number, *_ in shown])
        fits = self._fits.also("repository IN (SELECT value FROM json_each(?))", numbers)
        told = self._execute(f"SELECT {_GROUP_COLUMNS} FROM rows {fits.where} GROUP BY repository", fits.values)  # noqa: S608 ours
        facts = {repository: rest for repository, *rest in told}
        platforms = self._platforms({one for *_, listed in facts.values() for one in listed.split(",")})
        return [_repository(facts[number], platforms, key) for number, *key in shown]

    def _platforms(self, sets: Iterable[str]) -> Mapping[str, Sequence[str]]:
        """Those of each set, by the set's number."""
        found = self._execute(
            "SELECT id, text FROM texts WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps([*map(int, sets)]),),
        )
        return {str(number): split_listed(text) for number, text in found}

    def _annotations(self, listed: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Keys and values, by the numbers that stand for them in these rows."""
        numbers = {int(number) for one in listed for number in split_listed(one)}
        found = self._execute(
            "SELECT id, key, value FROM annotations WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(numbers)),),
        )
        return {str(number): (key, value) for number, key, value in found}


def _fitting(weights: Sequence[int]) -> int:
    """How many rows go on one page; at least one."""
    total = 0
    for count, weight in enumerate(weights):
        total += weight
        if total > MAX_PAGE_CHARACTERS and count:
            return count
    return len(weights)


def _compared(keys: Sequence[str], how: str) -> str:
    return f"({', '.join(keys)}) {how} ({', '.join('?' * len(keys))})"


def _row(row: tuple[Any, ...], annotations: Mapping[str, tuple[str, str]]) -> Row:
    name, tag, digest, media_type, artifact_type, kind, platforms, size, created, first_seen, annotated, _, *key = row
    return Row(
        *(name, tag, digest, media_type, artifact_type, kind, tuple(sorted(split_listed(platforms)))),
        *(size, created, first_seen, dict(annotations[number] for number in split_listed(annotated)), tuple(key)),
    )


def _repository(facts: Sequence[Any], platforms: Mapping[str, Sequence[str]], key: Sequence[Any]) -> Row:
    name, size, created, first_seen, listed = facts
    distinct = {platform for number in listed.split(",") for platform in platforms[number]}
    return Row(
        *(name, "", "", None, None, None, tuple(sorted(distinct))), *(size, created, first_seen, {}, tuple(key))
    )
