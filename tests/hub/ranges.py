"""One range of a body (RFC 9110, 14), with If-Range."""

import re
from collections.abc import Mapping

from aiohttp import web

from tests.hub.delivery import Reply

_ONE = re.compile(r"bytes=(\d+)-(\d*)")


def ranged(request: web.BaseRequest, content: bytes, headers: Mapping[str, str]) -> Reply:
    """The whole body, or the one range that was asked for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    asked = _ONE.fullmatch(request.headers.get("Range", ""))
    if asked is None or request.headers.get("If-Range", headers.get("ETag")) != headers.get("ETag"):
        return _reply(request, 200, headers, memoryview(content))
    start, size = int(asked[1]), len(content)
    stop = min(int(asked[2]) + 1, size) if asked[2] else size
    if start >= stop:
        return Reply(416, {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return _reply(request, 206, headers, memoryview(content)[start:stop])


def _reply(request: web.BaseRequest, status: int, headers: Mapping[str, str], body: memoryview) -> Reply:
    if request.method == "HEAD":
        return Reply(status, headers, b"", length=len(body))
    return Reply(status, headers, body)
