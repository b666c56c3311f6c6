"""Tag and referrers lists of one upstream: kept like tags, served stale, and made of what is cached at worst."""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid, NameUnknown, OciError, Unavailable
from mirror.oci.manifest import Manifest, ManifestLinks
from mirror.oci.names import Name
from mirror.sources.cached_referrers import CachedReferrers
from mirror.sources.keeping import keep
from mirror.sources.policy import Policy
from mirror.sources.source import Found, Origin
from mirror.sources.staleness import Freshness, Kept, Question
from mirror.store.lists import TAGS
from mirror.store.repository import CachedRepository
from mirror.upstream.client import UpstreamClient
from mirror.upstream.errors import NoReferrersApi, NotFound

# How long an upstream without the referrers API is believed to have none (design).
NO_API_SECONDS = 3600.0

# How long the upstream has for the first of a list that was never had, where one can be made of what is cached:
# longer than a copy of the list would wait, for it is less, and no client should sit out the time-outs.
CACHED_PATIENCE_SECONDS = 1.5

FROM_CACHE = "the upstream cannot be asked: this list holds only what is cached"


class Tags(Protocol):
    """How a tag is had: for the fallback tag of an upstream without the referrers API."""

    async def ask(self, repository: CachedRepository, tag: str) -> Manifest:
        """From the upstream, by HEAD where it is cached. Raises UpstreamError."""
        ...

    async def cached(self, repository: CachedRepository, tag: str) -> Manifest | None:
        """From the cache only."""
        ...


class ProxiedLists:
    """Lists of one upstream."""

    def __init__(
        self,
        client: UpstreamClient,
        policy: Policy,
        freshness: Freshness,
        manifests: Tags,
        cached: CachedReferrers,
    ) -> None:
        self._client = client
        self._policy = policy
        self._freshness = freshness
        self._manifests = manifests
        self._cached = cached
        # Repositories whose tags are being listed, of which the first page is there.
        self._coming: set[Name] = set()
        self._has_api = False
        self._no_api_until = 0.0

    async def tags(self, repository: CachedRepository, last: str, limit: int | None) -> Found[Sequence[str]]:
        """A page of the upstream's tags; of the cached ones where the list was never had and cannot be."""
        await repository.ready_list(TAGS)
        cached = repository.list(TAGS)
        kept = None
        if cached is not None and cached.tags is not None:
            kept = Kept(_with_later(repository, cached.tags, cached.fetched_at), cached.fetched_at)
        question = Question(
            repository.name,
            # No tag's own key: none has a space.
            "tags list",
            self._policy.tag_ttl_seconds,
            lambda: self._ask_tags(repository),
            NameUnknown({"name": str(repository.name)}),
            patience_seconds=CACHED_PATIENCE_SECONDS if kept is None and repository.tags() else None,
            is_coming=lambda: repository.name in self._coming,
        )
        try:
            found = await self._freshness.answer(question, kept)
        except OciError as error:
            own = repository.tags()
            if kept is not None or not own or self._counts(error):
                raise
            found = Found(own, _from_cache(self._freshness.origin("hit", None, 0)))
        start = bisect_right(found.value, last) if last else 0
        return Found(found.value[start : None if limit is None else start + limit], found.origin)

    async def referrers(self, repository: CachedRepository, subject: Digest) -> Found[Sequence[Descriptor]]:
        """What refers to `subject`, by the API or the fallback tag; empty for a repository that exists."""
        await repository.ready_list(subject)
        cached = repository.list(subject)
        kept = Kept(cached.referrers, cached.fetched_at) if cached and cached.referrers is not None else None
        question = Question(
            repository.name,
            f"referrers {subject}",
            self._policy.referrers_ttl_seconds,
            lambda: self._ask_referrers(repository, subject),
            NameUnknown({"name": str(repository.name)}),
            patience_seconds=CACHED_PATIENCE_SECONDS if kept is None and repository.exists() else None,
        )
        try:
            return await self._freshness.answer(question, kept)
        except OciError as error:
            if kept is not None or not repository.exists() or self._counts(error):
                raise
            found = await self._cached_referrers(repository, subject)
            return Found(found, _from_cache(self._freshness.origin("hit", None, 0)))

    async def _cached_referrers(self, repository: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
        """What the cached fallback tag lists, and the cached manifests that refer to the subject."""
        listed = _children(await self._manifests.cached(repository, subject.fallback_tag))
        found = await asyncio.to_thread(self._cached.of, repository, subject)
        return list({one.digest: one for one in (*listed, *found)}.values())

    def _counts(self, error: OciError) -> bool:
        """Whether what the upstream said stands also where something is cached."""
        return self._policy.refuse_gone and not isinstance(error, Unavailable)

    async def _ask_tags(self, repository: CachedRepository) -> Sequence[str]:
        # A list is as old as the question (RFC 9111, 4.2.3): what comes while its pages do may be missing.
        asked_at = time.time()
        try:
            found = await self._client.tags(
                repository.name.repository, on_page=lambda: self._coming.add(repository.name)
            )
        finally:
            self._coming.discard(repository.name)
        tags = sorted(set(found))
        await keep("list", repository.name, lambda: repository.put_list(TAGS, {"tags": tags}, asked_at))
        return _with_later(repository, tags, asked_at)

    async def _ask_referrers(self, repository: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
        if time.monotonic() >= self._no_api_until:
            try:
                found = await self._client.referrers(repository.name.repository, subject)
            except NoReferrersApi:
                # Who has answered it for another repository has the API: this one is answered by its tag.
                if not self._has_api:
                    self._no_api_until = time.monotonic() + NO_API_SECONDS
            else:
                self._has_api = True
                await keep("list", repository.name, lambda: repository.put_list(subject, _document(found)))
                return found
        return await self._by_fallback_tag(repository, subject)

    async def _by_fallback_tag(self, repository: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
        """distribution-spec 1.1, "Unavailable Referrers API"."""
        try:
            found = await asyncio.to_thread(_children, await self._manifests.ask(repository, subject.fallback_tag))
        except NotFound as error:
            kept = repository.list(subject)
            had = kept is not None and not kept.is_empty and not self._policy.refuse_gone
            if had or error.code == NameUnknown.code:
                raise
            # Some say so of repositories that they do not have: anybody may ask for any, and no name stays of that.
            if repository.exists():
                await keep("list", repository.name, lambda: repository.put_absent_list(subject, _document(())))
            return ()
        await keep("list", repository.name, lambda: repository.put_list(subject, _document(found)))
        return found


def _with_later(repository: CachedRepository, listed: Sequence[str], asked_at: float) -> Sequence[str]:
    """A list of tags, in ASCII order, with those fetched since it was asked for: its upstream has them too."""
    later = repository.tags_since(asked_at)
    if not later:
        return listed
    joined = list(listed)
    for tag in later:
        at = bisect_left(joined, tag)
        if joined[at : at + 1] != [tag]:
            joined.insert(at, tag)
    return joined


def _document(descriptors: Sequence[Descriptor]) -> dict[str, Any]:
    return {"manifests": [descriptor.to_json() for descriptor in descriptors]}


def _children(manifest: Manifest | None) -> Sequence[Descriptor]:
    """What a fallback tag's index lists; nothing where it is no manifest."""
    try:
        return ManifestLinks.parse(manifest.content, manifest.media_type).manifests if manifest else ()
    except ManifestInvalid:
        return ()


def _from_cache(origin: Origin) -> Origin:
    return replace(origin, warnings=(*origin.warnings, FROM_CACHE))
