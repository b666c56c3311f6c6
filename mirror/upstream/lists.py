"""Lists of an upstream, page by page, with a bound on everything that an upstream could make endless."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.media_types import OCI_INDEX
from mirror.oci.names import is_tag
from mirror.upstream.errors import BadAnswer, NoReferrersApi, NotFound, TooLarge
from mirror.upstream.exchange import Exchange

MAX_PAGES = 1000
MAX_LIST_BYTES = 64 * 1024 * 1024
MAX_TAGS = 1_000_000
# Registries that page by themselves take this many for an answer to one request, or fewer.
TAGS_PER_PAGE = 1000
# Beyond this, reading JSON takes longer than the event loop should stand still.
_INLINE_BYTES = 64 * 1024
# How registries without the referrers API say so.
_NO_API = frozenset({400, 405, 406, 501})


async def list_tags(exchange: Exchange, repository: str, on_page: Callable[[], None] = lambda: None) -> list[str]:
    """All tags, in the upstream's order, each once; what is no tag of the specification's grammar is left out."""
    try:
        return await _tags(exchange, repository, f"tags/list?n={TAGS_PER_PAGE}", on_page)
    except BadAnswer as error:
        if error.status != 400:
            raise
        # Some take no such number, or a smaller one only.
        return await _tags(exchange, repository, "tags/list", on_page)


async def _tags(exchange: Exchange, repository: str, first: str, on_page: Callable[[], None]) -> list[str]:
    tags: dict[str, None] = {}
    async with aclosing(_pages(exchange, repository, first, "application/json")) as pages:
        async for document in pages:
            on_page()
            listed = _list(exchange, document, "tags")
            tags.update(dict.fromkeys(tag for tag in listed if isinstance(tag, str) and is_tag(tag)))
            if len(tags) > MAX_TAGS:
                raise TooLarge(exchange.host, f"more than {MAX_TAGS} tags")
    return list(tags)


async def list_referrers(exchange: Exchange, repository: str, subject: Digest) -> list[Descriptor]:
    """What refers to `subject`, each once. Raises NoReferrersApi where the registry does not know the API."""
    found: dict[Digest, Descriptor] = {}
    try:
        async with aclosing(_pages(exchange, repository, f"referrers/{subject}", OCI_INDEX)) as pages:
            async for document in pages:
                for entry in _list(exchange, document, "manifests"):
                    # An entry that cannot be read costs itself only.
                    descriptor = _descriptor(entry)
                    if descriptor is not None:
                        found.setdefault(descriptor.digest, descriptor)
    except NotFound as error:
        if error.code == "NAME_UNKNOWN":
            raise
        raise NoReferrersApi(exchange.host, "no referrers API (404)", code=error.code) from None
    except BadAnswer as error:
        if error.status in _NO_API:
            raise NoReferrersApi(exchange.host, f"no referrers API ({error.status})") from None
        raise
    return list(found.values())


def _descriptor(entry: Any) -> Descriptor | None:
    try:
        return Descriptor.from_json(entry)
    except ManifestInvalid:
        return None


def _list(exchange: Exchange, document: Mapping[str, Any], key: str) -> list[Any]:
    """What stands at `key`; absent and null are an empty list, as some registries write it."""
    listed = document.get(key)
    if listed is None:
        return []
    if not isinstance(listed, list):
        raise BadAnswer(exchange.host, f"its `{key}` is no list")
    return listed


async def _pages(
    exchange: Exchange, repository: str, first: str, media_type: str
) -> AsyncGenerator[dict[str, Any], None]:
    url, seen, left = exchange.url(repository, first), set(), MAX_LIST_BYTES
    for _ in range(MAX_PAGES):
        seen.add(url)
        answer = await exchange.ask("GET", repository, url, {"Accept": media_type})
        try:
            # A web page at every path, as some registries have it, is no API.
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise NotFound(exchange.host, "a web page where a list should be")
            content = await answer.read(left)
            following = exchange.next_page(answer, url)
        finally:
            answer.close()
        left -= len(content)
        yield await _parse(exchange.host, content)
        if following is None:
            return
        if following in seen:
            raise BadAnswer(exchange.host, "the pages of its list go in a circle")
        url = following
    raise TooLarge(exchange.host, f"a list of more than {MAX_PAGES} pages")


async def _parse(host: str, content: bytes) -> dict[str, Any]:
    load: Callable[[bytes], Any] = json.loads
    try:
        document = load(content) if len(content) <= _INLINE_BYTES else await asyncio.to_thread(load, content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadAnswer(host, "its list is no JSON object")
    return document
