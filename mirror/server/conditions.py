"""Conditional and ranged requests: If-None-Match, Range, If-Range (RFC 9110, sections 13 and 14)."""

import re
from dataclasses import replace

from mirror.oci.errors import Unsupported
from mirror.server.answer import Answer
from mirror.server.errors import error_answer
from mirror.server.request import Request

# A single range; blanks may surround it, as they may every element of a list, but stand nowhere in it.
_RANGE = re.compile(r"[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")
_ENTITY_TAG = re.compile(r'\s*(?:W/)?("[^"]*")\s*(?:,|$)')
# Enough digits for any size there is; a number with more is beyond all of them.
_MAX_DIGITS = 20


class RangeNotSatisfiable(Exception):
    """None of the bytes asked for exists."""


def conditioned(found: Answer, request: Request) -> Answer:
    """The answer that this request's conditions make of a 200: 304, 206, 416, or as it is; bodiless for HEAD."""
    if request.is_conditional and found.status == 200:
        etag = found.headers.get("ETag")
        if etag is not None:
            if request.if_none_match is not None and matches(request.if_none_match, etag):
                return found.not_modified
            ranged = request.method == "GET" and "Accept-Ranges" in found.headers
            if ranged and request.range is not None and request.if_range in (None, etag):
                found = _ranged(found, request.range)
    return found.bodiless if request.method == "HEAD" else found


def matches(if_none_match: str, etag: str) -> bool:
    """Whether the list of entity tags holds `etag`, by weak comparison (RFC 9110, 13.1.2 and 8.8.3.2)."""
    if if_none_match == etag or if_none_match.strip() == "*":
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


def _number(digits: str) -> int:
    """Reading a number takes the square of its digits in time."""
    return int(digits.lstrip("0")[: _MAX_DIGITS + 1] or "0")


def _ranged(found: Answer, asked: str) -> Answer:
    size = found.length
    try:
        positions = parse_range(asked, size)
    except RangeNotSatisfiable:
        detail = {"reason": "none of these bytes exists", "range": asked[:100], "size": size}
        error = error_answer(Unsupported(detail), status=416)
        headers = {key: value for key, value in found.headers.items() if key not in ("Content-Type", "Cache-Control")}
        return replace(error.with_headers({**headers, "Content-Range": f"bytes */{size}"}), endpoint=found.endpoint)
    if positions is None:
        return found
    start, stop = positions
    headers = {**found.headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return replace(found, headers=headers, status=206, start=start, stop=stop)
