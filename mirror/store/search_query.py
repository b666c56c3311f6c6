"""A search as SQL: filters, sort, and a place to go on from that stays right while content changes."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["repository", "artifact", "version"]
Sort = Literal["name", "version", "date", "size"]

_KEYS: dict[Sort, tuple[str, ...]] = {
    "name": ("name", "tag", "digest"),
    "version": ("version", "name", "tag", "digest"),
    "date": ("first_seen", "name", "tag", "digest"),
    "size": ("size", "name", "tag", "digest"),
}
_GROUPED = """
SELECT name, '' AS tag, '' AS digest, '2' AS version, NULL AS media_type, NULL AS artifact_type, NULL AS kind,
       group_concat(platforms, '') AS platforms, max(size) AS size, max(created) AS created,
       min(first_seen) AS first_seen, min(id) AS id
FROM rows {where} GROUP BY repository
"""
_COLUMNS = "name, tag, digest, media_type, artifact_type, kind, platforms, size, created, first_seen, id"


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. Times in Unix milliseconds, from inclusive, until exclusive.

    `text` is in lower case, looked for in `name:tag`; with `*`, all of the name or of `name:tag` must fit. `types`: a
    row's media type, artifact type or short name. `after` is where a page before ended (`Row.key`).
    """

    text: str = ""
    kind: Kind | None = None
    type: str | None = None
    platform: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    digest: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    created_since_ms: int | None = None
    created_until_ms: int | None = None
    sort: Sort = "name"
    descending: bool = False
    limit: int = 100
    after: tuple[str | int, ...] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the sort, which name one row together."""
        return _KEYS[self.sort]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing found. Of a repository (`tag` and `digest` empty): the platforms of all that fits in it, the size of
    the largest, the latest date, the first time that any of it was seen. `key` is its place in the order.
    """

    name: str
    tag: str
    digest: str
    media_type: str | None
    artifact_type: str | None
    kind: str | None
    platforms: tuple[str, ...]
    size: int
    created_ms: int | None
    first_seen_ms: int
    annotations: dict[str, str]
    key: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """`total` counts all that fits; `more`: there is something after the last row."""

    total: int
    rows: Sequence[Row]
    more: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its values."""

    query: Query
    where: str
    values: tuple[Any, ...]

    def run(self, connection: sqlite3.Connection) -> Found:
        """Count, and read the page. Raises sqlite3.Error."""
        query = self.query
        grouped = query.kind == "repository"
        count = "count(DISTINCT repository)" if grouped else "count(*)"
        (total,) = connection.execute(f"SELECT {count} FROM rows {self.where}", self.values).fetchone()  # noqa: S608 ours
        if not total or not query.limit:
            return Found(total, (), more=False)
        source = f"({_GROUPED.format(where=self.where)})" if grouped else f"rows {self.where}"
        values = self.values
        if query.after is not None:
            compared = f"({', '.join(query.keys)}) {'<' if query.descending else '>'} "
            compared += f"({', '.join('?' * len(query.keys))})"
            source += f"{' WHERE ' if grouped or not self.where else ' AND '}{compared}"
            values += query.after
        direction = " DESC" if query.descending else ""
        order = ", ".join(f"{key}{direction}" for key in query.keys)
        # Sorted narrow, then completed: sorting all columns of 50,000 rows takes as long as finding them.
        found = connection.execute(
            f"SELECT {_COLUMNS}, {', '.join(query.keys)} FROM {source} ORDER BY {order} LIMIT ?",  # noqa: S608 ours
            (*values, query.limit + 1),
        ).fetchall()
        shown = found[: query.limit]
        annotations = {} if grouped else _annotations(connection, [row[10] for row in shown])
        return Found(total, [_row(row, annotations.get(row[10], {})) for row in shown], len(found) > len(shown))


def statement(query: Query, hidden: Sequence[int]) -> Statement:
    """The SQL of a query that does not see the repositories of these numbers."""
    wheres: list[str] = []
    values: list[Any] = []

    def add(where: str, *more: Any) -> None:
        wheres.append(where)
        values.extend(more)

    if hidden:
        add("repository NOT IN (SELECT value FROM json_each(?))", json.dumps(list(hidden)))
    if query.digest is not None:
        add("digest = ?", query.digest)
    for key, value in query.annotations:
        add("id IN (SELECT row FROM annotations WHERE key = ? AND value = ?)", key, value)
    for column, low, high in (
        ("first_seen", query.since_ms, query.until_ms),
        ("created", query.created_since_ms, query.created_until_ms),
    ):
        if low is not None:
            add(f"{column} >= ?", low)
        if high is not None:
            add(f"{column} < ?", high)
    if query.kind == "version":
        add("tag != ''")
    elif query.kind == "artifact":
        add("(kind IS NULL OR kind NOT IN ('oci-image', 'docker-image'))")
    if query.type is not None:
        add("? IN (kind, media_type, artifact_type)", query.type)
    if query.platform is not None:
        add("(instr(platforms, ?) OR instr(platforms, ?))", f",{query.platform},", f",{query.platform}/")
    if "*" in query.text:
        pattern = query.text.replace("[", "[[]").replace("?", "[?]")
        add("(words GLOB ? OR lower(name) GLOB ?)", pattern, pattern)
    elif query.text:
        add("instr(words, ?)", query.text)
    where = f"WHERE {' AND '.join(wheres)}" if wheres else ""
    return Statement(query, where, tuple(values))


def _annotations(connection: sqlite3.Connection, rows: Sequence[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}
    for row, key, value in connection.execute(
        "SELECT row, key, value FROM annotations WHERE row IN (SELECT value FROM json_each(?)) ORDER BY key",
        (json.dumps(list(rows)),),
    ):
        found.setdefault(row, {})[key] = value
    return found


def _row(row: tuple[Any, ...], annotations: dict[str, str]) -> Row:
    name, tag, digest, media_type, artifact_type, kind, platforms, size, created, first_seen, _, *key = row
    listed = tuple(sorted(set(filter(None, platforms.split(",")))))
    return Row(
        name,
        tag,
        digest,
        media_type,
        artifact_type,
        kind,
        listed,
        size,
        created,
        first_seen,
        annotations,
        tuple(key),
    )
