"""Conditional and ranged requests: If-None-Match, Range, If-Range (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mirror.server.answer import Answer

# A single range; blanks may surround it, as they may every element of a list, but stand nowhere in it.
_RANGE = re.compile(r"[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")
_ENTITY_TAG = re.compile(r'\s*(?:W/)?("[^"]*")\s*(?:,|$)')
# Enough digits for any size there is; a number with more is beyond all of them.
_MAX_DIGITS = 20


class Headers(Protocol):
    """Request headers, by name in any case."""

    def get(self, name: str, /) -> str | None: ...
    def getall(self, name: str, default: Sequence[str], /) -> Sequence[str]: ...


class RangeNotSatisfiable(Exception):
    """None of the bytes asked for exists."""


def conditioned(found: Answer, method: str, headers: Headers) -> Answer:
    """The answer that this request's conditions make of a 200: 304, 206, 416, or as it is; bodiless for HEAD."""
    etag = found.headers.get("ETag")
    if found.status == 200 and etag is not None:
        wanted = _joined(headers, "If-None-Match")
        if wanted is not None and matches(wanted, etag):
            return _not_modified(found)
        asked = _joined(headers, "Range")
        ranged = asked is not None and method == "GET" and "Accept-Ranges" in found.headers
        if ranged and asked is not None and headers.get("If-Range") in (None, etag):
            found = _ranged(found, asked)
    return replace(found, send_body=False) if method == "HEAD" else found


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the list of entity tags holds `etag`, by weak comparison (RFC 9110, 13.1.2 and 8.8.3.2)."""
    if if_none_match.strip() == "*":
        return True
    return etag in _ENTITY_TAG.findall(if_none_match)


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """The half-open byte positions that a Range header asks for, in a body of `size` bytes.

    None where the header is to be ignored: another unit, malformed, or several ranges. Raises
    RangeNotSatisfiable where none of the bytes exists (RFC 9110, 14.1.2 and 15.5.17).
    """
    unit, equals, asked = text.partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return None
    match = _RANGE.fullmatch(asked)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - _number(suffix)), size
    else:
        start, stop = _number(first), min(size, _number(last) + 1) if last else size
    if start >= stop:
        raise RangeNotSatisfiable
    return start, stop


def _joined(headers: Headers, name: str) -> str | None:
    """A header's value; lines of the same name are one list (RFC 9110, 5.3)."""
    first = headers.get(name)
    return first if first is None else ", ".join(headers.getall(name, ()))


def _number(digits: str) -> int:
    """Reading a number takes the square of its digits in time."""
    return int(digits.lstrip("0")[: _MAX_DIGITS + 1] or "0")


def _ranged(found: Answer, asked: str) -> Answer:
    size = found.length
    try:
        positions = parse_range(asked, size)
    except RangeNotSatisfiable:
        headers = {key: value for key, value in found.headers.items() if key not in ("Content-Type", "Cache-Control")}
        return Answer(416, {**headers, "Content-Range": f"bytes */{size}"})
    if positions is None:
        return found
    start, stop = positions
    content_range = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return replace(found.with_headers(content_range), status=206, start=start, stop=stop)


def _not_modified(found: Answer) -> Answer:
    headers = {key: value for key, value in found.headers.items() if key not in ("Content-Type", "Accept-Ranges")}
    return Answer(304, headers, send_body=False)
