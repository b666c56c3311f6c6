"""`mirror search`: what there is, of a running mirror or of the configured folders and cache."""

import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from mirror.app.search import search_now
from mirror.cli.ask import NotAnswered, pages
from mirror.cli.table import human_size, print_table
from mirror.config import Config
from mirror.oci.errors import Unsupported
from mirror.server.search import cursor_after, document_of, read_query

Parameters = Sequence[tuple[str, str]]


def run(config: Config, parameters: Parameters, *, limit: int | None, url: str | None, as_json: bool) -> int:
    """Print what fits `parameters` (those of the endpoint), at most `limit`. Returns 1 where nothing does."""
    try:
        found = _remote(url, parameters, limit) if url else _local(config, parameters, limit)
    except NotAnswered as error:
        print(error, file=sys.stderr)
        return 1
    except Unsupported as error:
        detail = error.detail or {}
        reason = detail.get("reason") or f"found {json.dumps(detail.get('found'))}, expected {detail.get('expected')}"
        print(f"{detail.get('parameter')}: {reason}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0 if found["total"] else 1


def _remote(url: str, parameters: Parameters, limit: int | None) -> dict[str, Any]:
    read_query(parameters)  # what is wrong is told without asking
    query = urlencode([*parameters, ("n", str(min(limit or 1000, 1000)))], quote_via=quote)
    total, items = 0, []
    for page in pages(f"{url.rstrip('/')}/v2/_mirror/search?{query}"):
        total = page.get("total", 0)
        items += page.get("items", [])
        if limit is not None and len(items) >= limit:
            break
    return {"total": total, "items": items[:limit]}


def _local(config: Config, parameters: Parameters, limit: int | None) -> dict[str, Any]:
    parameters = [*parameters, ("n", str(min(limit or 1000, 1000)))]
    query = read_query(parameters)
    items: list[Any] = []
    with search_now(config) as (_, _, index):
        while True:
            found = index.search(query)
            items += document_of(found)["items"]
            if not found.more or (limit is not None and len(items) >= limit):
                return {"total": found.total, "items": items[:limit]}
            query = read_query([*parameters, ("cursor", cursor_after(query, found))])


def _print(found: dict[str, Any]) -> None:
    rows = [
        [
            item["name"],
            item["tag"] or "",
            (item["digest"] or "")[:19],
            item["type"] or item["artifactType"] or "",
            ", ".join(item["platforms"]),
            human_size(item["size"]),
            item["created"] or "",
            item["first_seen"],
        ]
        for item in found["items"]
    ]
    print_table(["REPOSITORY", "TAG", "DIGEST", "TYPE", "PLATFORMS", "SIZE", "CREATED", "FIRST SEEN"], rows)
    if len(rows) < found["total"]:
        print(f"{len(rows)} of {found['total']}; --limit shows more", file=sys.stderr)
