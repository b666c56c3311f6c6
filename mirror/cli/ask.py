"""Asking a running mirror, page by page."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

TIMEOUT_SECONDS = 30
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')


class NotAnswered(Exception):
    """The mirror refused, or could not be asked; the text says why."""


def ask(url: str, method: str = "GET") -> tuple[Mapping[str, str], bytes]:
    """Headers and body. Raises NotAnswered."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise NotAnswered(f"{url}: expected http://… or https://…")
    try:
        request = urllib.request.Request(url, method=method)  # noqa: S310 its scheme was looked at
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 as above
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise NotAnswered(f"{url}: {error.code} {_said(error.read())}".strip()) from None
    except (OSError, ValueError) as error:
        raise NotAnswered(f"{url}: {error}") from None


def pages(url: str) -> Iterator[dict[str, Any]]:
    """The JSON documents of a list, one per page. Raises NotAnswered."""
    following: str | None = url
    while following is not None:
        headers, body = ask(following)
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise NotAnswered(f"{following}: no JSON object")
        yield document
        link = _NEXT.search(headers.get("Link") or "")
        following = urljoin(following, link[1]) if link else None


def _said(body: bytes) -> str:
    try:
        (error,) = json.loads(body)["errors"]
        detail = f" {json.dumps(error['detail'])}" if error.get("detail") else ""
        return f"{error['message']}{detail}"
    except (ValueError, KeyError, TypeError):
        return ""
