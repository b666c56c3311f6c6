"""`/v2/_mirror/search`: repositories, artifacts and versions by what is known of them."""

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, get_args

from mirror.oci.artifact_types import SHORT_TYPES
from mirror.oci.digest import Digest
from mirror.oci.errors import DigestInvalid, Unsupported
from mirror.oci.names import Name, Repository, split_host
from mirror.oci.times import format_time_ms, parse_time_ms
from mirror.server.answer import Answer, json_answer
from mirror.server.extensions import ExtensionAsk, ExtensionEndpoint
from mirror.server.paging import next_link
from mirror.store.search import SearchIndex
from mirror.store.search_query import Found, Kind, Query, Row, Sort

DEFAULT_N = 100
MAX_SEARCH_N = 1000
MAX_TEXT = 512
WAIT_SECONDS = 5.0
INCOMPLETE = {"Warning": '299 - "not everything has been looked at yet: this list is incomplete"'}

PARAMETERS = (
    *("q", "kind", "type", "platform", "annotation", "digest", "since", "until", "created_since", "created_until"),
    *("sort", "order", "n", "cursor"),
)
# What says which registry is meant, wherever a request goes; a search is over all of them.
_PROXY_PARAMETERS = frozenset({"ns", "oci-ref-name"})
_PLATFORM = re.compile(r"[^/,\s]+/[^/,\s]+(?:/[^/,\s]+)?")
_MEDIA_TYPE = re.compile(r"[^/\s]+/[^\s]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_POLL_SECONDS = 0.1


def search_endpoint(index: SearchIndex) -> ExtensionEndpoint:
    """The endpoint over this index."""
    # Queries take turns: they must not take all the threads that disk reads go to.
    turn = asyncio.Lock()

    async def search(ask: ExtensionAsk) -> Answer:
        query = read_query(ask.route.query)

        def may_read(name: str) -> bool:
            return ask.access.may_read(ask.identity, _name(name))

        complete = await _completed(index)
        async with turn:
            readable = None if ask.access.may_read_all(ask.identity) else may_read
            found = await asyncio.to_thread(index.search, query, readable)
        headers = {} if complete else dict(INCOMPLETE)
        if found.more:
            headers |= next_link(ask.route, {"cursor": cursor_after(query, found)})
        return json_answer(200, document_of(found), headers)

    return search


async def _completed(index: SearchIndex) -> bool:
    """Whether everything has been looked at, now or within WAIT_SECONDS; another process may be looking."""
    until = time.monotonic() + WAIT_SECONDS
    while not await asyncio.to_thread(lambda: index.complete):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def search_features() -> dict[str, Any]:
    """What `/v2/_mirror/features` tells of search."""
    return {
        "methods": ["GET", "HEAD"],
        "parameters": list(PARAMETERS),
        "kinds": list(get_args(Kind)),
        "sorts": list(get_args(Sort)),
        "default_n": DEFAULT_N,
        "max_n": MAX_SEARCH_N,
        "link": True,
        "types": {name: list(types) for name, types in SHORT_TYPES.items()},
    }


def document_of(found: Found) -> dict[str, Any]:
    """The answer's body."""
    return {"total": found.total, "items": [_item(row) for row in found.rows]}


def read_query(parameters: Sequence[tuple[str, str]]) -> Query:
    """The query that these parameters ask for. Raises Unsupported, naming the first that makes no sense."""
    values: dict[str, str] = {}
    annotations: list[tuple[str, str]] = []
    for key, text in parameters:
        if key in _PROXY_PARAMETERS:
            continue
        if key not in PARAMETERS:
            raise _bad(key, text, f"one of {', '.join(PARAMETERS)}")
        if len(text) > MAX_TEXT and key != "cursor":
            raise _bad(key, text, f"at most {MAX_TEXT} characters")
        if key == "annotation":
            annotations.append(_annotation(text))
        elif values.setdefault(key, text) != text:
            raise Unsupported({"parameter": key, "reason": "given more than once"})
    query = Query(annotations=tuple(annotations))
    for key, text in values.items():
        if key != "cursor":
            field, value = _READERS[key](key, text)
            query = replace(query, **{field: value})
    return replace(query, after=_after(query, values["cursor"])) if "cursor" in values else query


def cursor_after(query: Query, found: Found) -> str:
    """An opaque text that leads to what comes after the last of `found`."""
    return _packed([_fingerprint(query), *found.rows[-1].key])


def _bad(key: str, found: str, expected: str) -> Unsupported:
    return Unsupported({"parameter": key[:100], "found": found[:100], "expected": expected})


def _text(key: str, text: str) -> tuple[str, Any]:
    if _CONTROL.search(text):
        raise _bad(key, text, "text without control characters")
    return "text", text.lower()


def _one_of(field: str, choices: Sequence[str]) -> Callable[[str, str], tuple[str, Any]]:
    def read(key: str, text: str) -> tuple[str, Any]:
        if text not in choices:
            raise _bad(key, text, f"one of {', '.join(choices)}")
        return field, text

    return read


def _order(key: str, text: str) -> tuple[str, Any]:
    return "descending", _one_of(key, ("asc", "desc"))(key, text)[1] == "desc"


def _type(key: str, text: str) -> tuple[str, Any]:
    # In a query, `+` stands for a space; no media type has one.
    text = text.replace(" ", "+")
    if text not in SHORT_TYPES and not _MEDIA_TYPE.fullmatch(text):
        raise _bad(key, text, f"a media type, or one of {', '.join(SHORT_TYPES)}")
    return "type", text


def _platform(key: str, text: str) -> tuple[str, Any]:
    if not _PLATFORM.fullmatch(text):
        raise _bad(key, text, "os/architecture or os/architecture/variant")
    return "platform", text


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise _bad("annotation", text, "key=value")
    return key, value


def _digest(key: str, text: str) -> tuple[str, Any]:
    try:
        return "digest", Digest.parse(text)
    except DigestInvalid:
        raise _bad(key, text, "algorithm:hex of sha256 or sha512") from None


def _time(field: str) -> Callable[[str, str], tuple[str, Any]]:
    def read(key: str, text: str) -> tuple[str, Any]:
        # The `+` of an offset, which in a query stands for a space.
        found = parse_time_ms(re.sub(r" (\d\d:\d\d)$", r"+\1", text))
        if found is None:
            raise _bad(key, text, "a time of RFC 3339, as 2026-01-31T00:00:00Z")
        return field, found

    return read


def _n(key: str, text: str) -> tuple[str, Any]:
    if not (text.isascii() and text.isdigit()):
        raise _bad(key, text, "a number of entries, 0 or more")
    return "limit", min(int(text.lstrip("0")[:20] or "0"), MAX_SEARCH_N)


_READERS: Mapping[str, Callable[[str, str], tuple[str, Any]]] = {
    "q": _text,
    "kind": _one_of("kind", get_args(Kind)),
    "type": _type,
    "platform": _platform,
    "digest": _digest,
    "since": _time("since_ms"),
    "until": _time("until_ms"),
    "created_since": _time("created_since_ms"),
    "created_until": _time("created_until_ms"),
    "sort": _one_of("sort", get_args(Sort)),
    "order": _order,
    "n": _n,
}


def _fingerprint(query: Query) -> str:
    """What a cursor belongs to: another filter or sort has other places."""
    return hashlib.sha256(repr(replace(query, limit=0, after=None)).encode()).hexdigest()[:12]


def _packed(values: Sequence[str | int]) -> str:
    return base64.urlsafe_b64encode(json.dumps(values, separators=(",", ":")).encode()).decode().rstrip("=")


def _after(query: Query, cursor: str) -> tuple[str | int, ...]:
    try:
        fingerprint, *key = json.loads(base64.b64decode(f"{cursor}===", altchars=b"-_", validate=False))
        kinds = tuple(int if column in ("first_seen", "size") else str for column in query.keys)
        fits = len(key) == len(kinds) and all(map(_is_key, key, kinds))
        if fits and fingerprint == _fingerprint(query) and _packed([fingerprint, *key]) == cursor:
            return tuple(key)
    except (ValueError, TypeError, RecursionError):
        pass
    raise _bad("cursor", cursor, "a cursor of this very search")


def _is_key(found: Any, kind: type) -> bool:
    """Whether the index can compare with it: of a cursor that was never ours anything may come."""
    if type(found) is not kind:
        return False
    return abs(found) < 2**63 if isinstance(found, int) else str(found).encode(errors="replace").decode() == found


@lru_cache(maxsize=100_000)
def _name(text: str) -> Name:
    host, repository = split_host(text)
    return Name(host, Repository(repository))


def _item(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "tag": row.tag or None,
        "digest": row.digest or None,
        "mediaType": row.media_type,
        "artifactType": row.artifact_type,
        "type": row.kind,
        "platforms": list(row.platforms),
        "size": row.size,
        "created": format_time_ms(row.created_ms) if row.created_ms is not None else None,
        "first_seen": format_time_ms(row.first_seen_ms),
        "annotations": row.annotations,
    }
