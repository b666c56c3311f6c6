"""Tag and referrers lists of one upstream: kept like tags, served stale, and made of what is cached at worst."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid, ManifestUnknown, NameUnknown, Unavailable
from mirror.oci.manifest import Manifest, ManifestLinks
from mirror.oci.names import Name
from mirror.sources.policy import Policy
from mirror.sources.source import Found, Origin
from mirror.sources.staleness import Freshness, Kept, Question
from mirror.store.lists import TAGS, CachedList
from mirror.store.repository import CachedRepository
from mirror.upstream.client import UpstreamClient
from mirror.upstream.errors import NoReferrersApi, NotFound

# How long an upstream without the referrers API is believed to have none (design).
NO_API_SECONDS = 3600.0

FROM_CACHE = "the upstream cannot be asked: this list holds only what is cached"

Resolve = Callable[[Name, str], Awaitable[Found[Manifest]]]


class ProxiedLists:
    """`resolve` reads the fallback tag of an upstream without the referrers API, through the cache."""

    def __init__(self, client: UpstreamClient, policy: Policy, freshness: Freshness, resolve: Resolve) -> None:
        self._client = client
        self._policy = policy
        self._freshness = freshness
        self._resolve = resolve
        self._no_api_until = 0.0

    async def tags(self, repository: CachedRepository, last: str, limit: int | None) -> Found[Sequence[str]]:
        """A page of the upstream's tags; of the cached ones where the list was never had and cannot be."""
        await repository.ready_list(TAGS)
        cached = repository.list(TAGS)
        question = Question(
            repository.name,
            "tags",
            self._policy.tag_ttl_seconds,
            lambda: self._ask_tags(repository),
            NameUnknown({"name": str(repository.name)}),
        )
        try:
            found = await self._freshness.answer(question, _kept(cached, _tags))
        except Unavailable:
            own = repository.tags()
            if not own:
                raise
            found = Found(own, _from_cache(self._freshness.origin("hit", None, 0)))
        start = bisect_right(found.value, last) if last else 0
        return Found(found.value[start : None if limit is None else start + limit], found.origin)

    async def referrers(self, repository: CachedRepository, subject: Digest) -> Found[Sequence[Descriptor]]:
        """What refers to `subject`, by the API or the fallback tag; empty for a repository that exists."""
        await repository.ready_list(subject)
        cached = repository.list(subject)
        question = Question(
            repository.name,
            f"referrers {subject}",
            self._policy.referrers_ttl_seconds,
            lambda: self._ask_referrers(repository, subject),
            NameUnknown({"name": str(repository.name)}),
        )
        try:
            return await self._freshness.answer(question, _kept(cached, _descriptors))
        except Unavailable:
            if not repository.exists():
                raise
            return Found((), _from_cache(self._freshness.origin("hit", None, 0)))

    async def _ask_tags(self, repository: CachedRepository) -> Sequence[str]:
        try:
            tags = sorted(set(await self._client.tags(repository.name.repository)))
        except NotFound:
            kept = repository.list(TAGS)
            if kept is None or kept.is_empty:
                raise
            return _tags(kept.document)
        await asyncio.to_thread(repository.put_list, TAGS, {"tags": tags})
        return tags

    async def _ask_referrers(self, repository: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
        found: Sequence[Descriptor] | None = None
        if time.monotonic() >= self._no_api_until:
            try:
                found = await self._client.referrers(repository.name.repository, subject)
            except NoReferrersApi:
                self._no_api_until = time.monotonic() + NO_API_SECONDS
        if found is None:
            found = await self._by_fallback_tag(repository, subject)
        document = {"manifests": [descriptor.to_json() for descriptor in found]}
        if found:
            await asyncio.to_thread(repository.put_list, subject, document)
            return found
        kept = await asyncio.to_thread(repository.put_absent_list, subject, document)
        return _descriptors(kept.document)

    async def _by_fallback_tag(self, repository: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
        """distribution-spec 1.1, "Unavailable Referrers API"."""
        try:
            manifest = (await self._resolve(repository.name, subject.fallback_tag)).value
            return ManifestLinks.parse(manifest.content, manifest.media_type).manifests
        except (ManifestUnknown, ManifestInvalid):
            return ()


def _kept(cached: CachedList | None, read: Callable[[Any], Sequence[Any]]) -> Kept[Sequence[Any]] | None:
    return Kept(read(cached.document), cached.fetched_at) if cached is not None else None


def _tags(document: Any) -> Sequence[str]:
    return [tag for tag in document.get("tags", ()) if isinstance(tag, str)]


def _descriptors(document: Any) -> Sequence[Descriptor]:
    return [Descriptor.from_json(entry) for entry in document.get("manifests", ())]


def _from_cache(origin: Origin) -> Origin:
    return replace(origin, warnings=(*origin.warnings, FROM_CACHE))
