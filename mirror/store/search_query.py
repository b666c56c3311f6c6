"""What a search asks for, and what it finds: with a place to go on from that stays right while content changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["repository", "artifact", "version"]
Sort = Literal["name", "version", "date", "size"]

_KEYS: dict[Sort, tuple[str, ...]] = {
    "name": ("name", "tag", "digest"),
    "version": ("version", "name", "tag", "digest"),
    "date": ("first_seen", "name", "tag", "digest"),
    "size": ("size", "name", "tag", "digest"),
}


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


class Row(NamedTuple):
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
