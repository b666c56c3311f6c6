"""Blobs of one endpoint."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mirror.oci.digest import Digest
from mirror.upstream.errors import BadAnswer, RangeRefused, SizeUntold, UpstreamError
from mirror.upstream.exchange import Exchange
from mirror.upstream.http import Answer
from mirror.upstream.manifests import refuses_head

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:(\d{1,18})|\*)")


@dataclass(frozen=True, slots=True)
class BlobHead:
    """Where a body begins, and how long the whole blob is."""

    start: int
    total_size: int | None


async def blob_size(exchange: Exchange, repository: str, digest: Digest, expected_bytes: int | None = None) -> int:
    """By HEAD; by a GET of one byte where HEAD is refused, or says no length or another than is expected: some signed
    URLs are for GET only.
    """
    url = exchange.url(repository, f"blobs/{digest}")
    try:
        answer = await exchange.ask("HEAD", repository, url, {})
    except UpstreamError as error:
        if not refuses_head(error):
            raise
    else:
        size = answer.length_bytes
        answer.close()
        if size is not None and expected_bytes in (None, size):
            return size
    try:
        answer = await exchange.ask("GET", repository, url, {"Range": "bytes=0-0"})
    except RangeRefused as error:
        # An empty blob has no first byte.
        if error.total_bytes is not None:
            return error.total_bytes
        raise
    total = _total(answer)
    answer.close()
    if total is None:
        raise SizeUntold(exchange.host, "it does not say how large a blob is", elsewhere=answer.elsewhere)
    return total


def _total(answer: Answer) -> int | None:
    if answer.status == 200:
        return answer.length_bytes
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return int(match[3]) if match and match[3] else None


async def open_blob_at(
    exchange: Exchange, repository: str, digest: Digest, start: int, etag: str | None, *, stop: int | None
) -> tuple[Answer, BlobHead]:
    """The answer, which the caller closes. Raises RangeRefused, and BadAnswer for a range other than asked."""
    headers = {}
    is_range = start > 0 or stop is not None
    if is_range:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        # A weak one cannot promise the same bytes (RFC 9110, 13.1.5).
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
    answer = await exchange.ask("GET", repository, exchange.url(repository, f"blobs/{digest}"), headers)
    try:
        return answer, _head(answer, start, is_range)
    except BadAnswer:
        answer.close()
        raise


def _head(answer: Answer, start: int, is_range: bool) -> BlobHead:
    if answer.status == 200:
        return BlobHead(0, answer.length_bytes)
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if not is_range or match is None or int(match[1]) != start:
        raise BadAnswer(answer.host, "a range that was not asked for", elsewhere=answer.elsewhere)
    return BlobHead(start, int(match[3]) if match[3] else None)


async def body_chunks(answer: Answer) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises TimedOut after an idle time without a byte, BadAnswer on a cut."""
    while chunk := await answer.next_chunk():
        yield chunk
