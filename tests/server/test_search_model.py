"""Search against a plain model: every filter, sort and cursor gives what a loop over all rows would."""

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.times import format_time_ms, parse_time_ms
from mirror.server.search import cursor_after, document_of, read_query
from mirror.store.search import SearchIndex
from mirror.store.search_entry import Entry, Facts
from mirror.store.search_pages import WalkLimits

NAMES = ("app", "team/app", "docker.io/library/app", "quay.io/team/ap")
TAGS: tuple[str, ...] = (
    "",
    "1.0",
    "1.0.0",
    "1.10",
    "1.9",
    "v1.9.1-rc.1",
    "v1.9.1-rc.11",
    "v1.9.1-rc.2",
    "latest",
    "Latest",
    "1.9-a",
)
TAGS += ("2", "02", "10", "1.0+build", "1.0-rc.1.a", "1.0-rc", "a*b", "sha256-ab")
DIGESTS = tuple(Digest.of(bytes([number])) for number in range(6))
MEDIA_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
ARTIFACT_TYPES = (None, "application/spdx+json", "text/x")
KINDS = (None, "oci-image", "docker-image", "sbom", "signature")
PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/arm64", "windows/amd64")
TIMES = (0, 1, 999, 1000, 1_700_000_000_000, 1_700_000_000_001)
ANNOTATIONS = (("a", "1"), ("a", "2"), ("b", "=1"), ("ü", ""))

facts = st.builds(
    Facts,
    st.sampled_from(MEDIA_TYPES),
    st.sampled_from(ARTIFACT_TYPES),
    st.sampled_from(KINDS),
    st.lists(st.sampled_from(PLATFORMS), unique=True).map(tuple),
    st.integers(0, 3),
    st.sampled_from((None, *TIMES)),
    st.lists(st.sampled_from(ANNOTATIONS)).map(dict),
)
contents = st.dictionaries(
    st.sampled_from(NAMES),
    st.dictionaries(
        st.tuples(st.sampled_from(TAGS), st.sampled_from(DIGESTS)), st.tuples(facts, st.sampled_from(TIMES))
    ),
)
times = st.sampled_from(TIMES).map(format_time_ms)
searches = st.fixed_dictionaries(
    {},
    optional={
        "q": st.sampled_from(("", "a", "AP", "app:1", "*app", "team/*", "*:v1*", "*", "a?p", "[a]*", "a*b", "1.9")),
        "kind": st.sampled_from(("repository", "artifact", "version")),
        "type": st.sampled_from(("sbom", "oci-image", *MEDIA_TYPES, "text/x", "application/spdx+json")),
        "platform": st.sampled_from((*PLATFORMS, "linux/arm")),
        "annotation": st.sampled_from([f"{key}={value}" for key, value in ANNOTATIONS] + ["c=1"]),
        "digest": st.sampled_from(DIGESTS),
        "since": times,
        "until": times,
        "created_since": times,
        "created_until": times,
        "sort": st.sampled_from(("name", "version", "date", "size")),
        "order": st.sampled_from(("asc", "desc")),
        "n": st.integers(1, 4).map(str),
    },
)


@dataclass(frozen=True)
class Row:
    name: str
    tag: str
    digest: str
    facts: Facts
    seen: int


Content = Mapping[str, Mapping[tuple[str, Digest], tuple[Facts, int]]]


# Never, always, and so short that it often ends before the page is full.
walks = st.sampled_from((WalkLimits(0, 0), WalkLimits(), WalkLimits(2, 0), WalkLimits(3, 0)))


@contextmanager
def filled(content: Content, walk: WalkLimits) -> Iterator[SearchIndex]:
    index = SearchIndex(None, walk)
    for name, rows in content.items():
        index.put(name, [Entry(tag, digest, facts, seen) for (tag, digest), (facts, seen) in rows.items()])
    yield index
    index.close()


def rows_of(content: Content) -> list[Row]:
    return [
        Row(name, tag, digest, facts, seen)
        for name, rows in content.items()
        for (tag, digest), (facts, seen) in rows.items()
    ]


def fits(row: Row, search: Mapping[str, str]) -> bool:
    return all(_fits(row, key, text) for key, text in search.items() if key not in ("sort", "order", "n"))


def _fits(row: Row, key: str, text: str) -> bool:
    facts = row.facts
    match key:
        case "q":
            words = [row.name.lower(), *([f"{row.name}:{row.tag}".lower()] if row.tag else [])]
            if "*" not in text:
                return any(text.lower() in word for word in words)
            pattern = ".*".join(re.escape(part) for part in text.lower().split("*"))
            return any(re.fullmatch(pattern, word, re.DOTALL) for word in words)
        case "kind":
            is_artifact = facts.kind not in ("oci-image", "docker-image")
            return {"repository": True, "artifact": is_artifact, "version": bool(row.tag)}[text]
        case "type":
            return text in (facts.kind, facts.media_type, facts.artifact_type)
        case "platform":
            return any(one == text or one.startswith(f"{text}/") for one in facts.platforms)
        case "annotation":
            name, _, value = text.partition("=")
            return facts.annotations.get(name) == value
        case "digest":
            return row.digest == text
    time = facts.created_ms if key.startswith("created") else row.seen
    limit = parse_time_ms(text)
    assert limit is not None
    return time is not None and (time >= limit if key.endswith("since") else time < limit)


def items_of(rows: list[Row], search: Mapping[str, str]) -> list[dict[str, Any]]:
    """The whole answer, in its order, as one page."""
    if search.get("kind") == "repository":
        items = [_repository([row for row in rows if row.name == name]) for name in {row.name for row in rows}]
    else:
        items = [_item(row) for row in rows]
    by_place = functools.cmp_to_key(_compare_places)
    sort = search.get("sort", "name")
    before: Any = {
        "name": lambda item: 0,
        "version": lambda item: functools.cmp_to_key(_compare_versions)(item["tag"] or ""),
        "date": lambda item: parse_time_ms(item["first_seen"]),
        "size": lambda item: item["size"],
    }[sort]
    items.sort(key=lambda item: (before(item), by_place(item)), reverse=search.get("order") == "desc")
    return items


def _item(row: Row) -> dict[str, Any]:
    created = row.facts.created_ms
    return {
        "name": row.name,
        "tag": row.tag or None,
        "digest": row.digest,
        "mediaType": row.facts.media_type,
        "artifactType": row.facts.artifact_type,
        "type": row.facts.kind,
        "platforms": sorted(row.facts.platforms),
        "size": row.facts.size,
        "created": None if created is None else format_time_ms(created),
        "first_seen": format_time_ms(row.seen),
        "annotations": dict(row.facts.annotations),
    }


def _repository(rows: list[Row]) -> dict[str, Any]:
    created = [row.facts.created_ms for row in rows if row.facts.created_ms is not None]
    nothing = dict.fromkeys(("tag", "digest", "mediaType", "artifactType", "type"))
    return {
        "name": rows[0].name,
        **nothing,
        "platforms": sorted({platform for row in rows for platform in row.facts.platforms}),
        "size": max(row.facts.size for row in rows),
        "created": format_time_ms(max(created)) if created else None,
        "first_seen": format_time_ms(min(row.seen for row in rows)),
        "annotations": {},
    }


def _compare_places(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    first, second = ((item["name"], item["tag"] or "", item["digest"] or "") for item in (one, other))
    return (first > second) - (first < second)


_SEMVER = re.compile(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?")


def _compare_versions(one: str, other: str) -> int:
    """semver.org, 11: numbers, then a pre-release before its release, part by part."""
    first, second = _SEMVER.fullmatch(one), _SEMVER.fullmatch(other)
    if first is None or second is None:
        # Versions, then other tags in ASCII order, then what has no tag.
        ranks = [(0, "") if found else (1, tag) if tag else (2, "") for found, tag in ((first, one), (second, other))]
        return (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])
    numbers = [[int(part or 0) for part in found.groups()[:3]] for found in (first, second)]
    if numbers[0] != numbers[1]:
        return 1 if numbers[0] > numbers[1] else -1
    if first[4] is None or second[4] is None:
        return (first[4] is None) - (second[4] is None)
    parts = [
        [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in found[4].split(".")]
        for found in (first, second)
    ]
    return (parts[0] > parts[1]) - (parts[0] < parts[1])


def walk(index: SearchIndex, search: Mapping[str, str]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Every page, by its cursors: the total and the items."""
    cursor: dict[str, str] = {}
    while True:
        query = read_query([*search.items(), *cursor.items()])
        found = index.search(query, lambda _: True)
        document = document_of(found)
        assert len(document["items"]) <= int(search.get("n", 100))
        yield document["total"], document["items"]
        if not found.more:
            return
        cursor = {"cursor": cursor_after(query, found)}


@settings(max_examples=300, deadline=None)
@given(contents, searches, walks)
def test_every_filter_sort_and_cursor_gives_what_the_model_does(
    content: Content, search: Mapping[str, str], walk_limits: WalkLimits
) -> None:
    wanted = items_of([row for row in rows_of(content) if fits(row, search)], search)
    with filled(content, walk_limits) as index:
        pages = list(walk(index, search))
    assert [item for _, items in pages for item in items] == wanted
    assert {total for total, _ in pages} == {len(wanted)}


@settings(max_examples=150, deadline=None)
@given(contents, contents, searches, walks)
def test_a_walk_gives_once_what_stays_while_all_else_changes(
    before: Content, after: Content, search: Mapping[str, str], walk_limits: WalkLimits
) -> None:
    """A row that is there before and after, and fits, is neither left out nor given twice."""
    if search.get("kind") == "repository":
        search = {**search, "kind": "version"}
    search = {**search, "n": "2"}
    stays = [row for row in rows_of(before) if row in rows_of(after) and fits(row, search)]
    found: list[tuple[str, str | None, str]] = []
    with filled(before, walk_limits) as index:
        for number, (_, items) in enumerate(walk(index, search)):
            found += [(item["name"], item["tag"], item["digest"]) for item in items]
            if number == 0:
                for name in {*before, *after}:
                    rows = after.get(name, {})
                    same = {key for key, row in rows.items() if before.get(name, {}).get(key) == row}
                    # What is as it was keeps its place; all else goes and comes.
                    index.put(name, [_entry(key, rows[key]) for key in same])
                    index.put(name, [_entry(key, row) for key, row in rows.items()])
    for row in stays:
        assert found.count((row.name, row.tag or None, row.digest)) == 1


def _entry(key: tuple[str, Digest], row: tuple[Facts, int]) -> Entry:
    return Entry(key[0], key[1], row[0], row[1])


@settings(max_examples=150, deadline=None)
@given(contents, st.sets(st.sampled_from(NAMES)), searches, walks)
def test_what_may_not_be_read_appears_nowhere_and_is_not_counted(
    content: Content, hidden: set[str], search: Mapping[str, str], walk_limits: WalkLimits
) -> None:
    rows = [row for row in rows_of(content) if row.name not in hidden and fits(row, search)]
    wanted = items_of(rows, search)
    with filled(content, walk_limits) as index:
        found = document_of(index.search(read_query([*search.items()]), lambda name: name not in hidden))
    assert found == {"total": len(wanted), "items": wanted[: int(search.get("n", 100))]}
