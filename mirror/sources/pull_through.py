"""An upstream behind the cache: what was pulled once is served again, fresh or stale, whatever the upstream does."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

from mirror.logs import event
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import BadGateway, ManifestInvalid, ManifestUnknown
from mirror.oci.manifest import MAX_MANIFEST_BYTES, Manifest, ManifestLinks
from mirror.oci.names import Host, Name
from mirror.sources.cached_referrers import CachedReferrers
from mirror.sources.keeping import keep
from mirror.sources.policy import Policy, check_askable, denied
from mirror.sources.prefetch import ReferrersPrefetch
from mirror.sources.proxied_blobs import ProxiedBlobs
from mirror.sources.proxied_lists import ProxiedLists
from mirror.sources.source import Found
from mirror.sources.staleness import Freshness, Kept, Question
from mirror.store.body import BlobBody
from mirror.store.cache import Cache
from mirror.store.repository import CachedRepository, CachedTag
from mirror.upstream.answers import UpstreamManifest
from mirror.upstream.client import UpstreamClient

log = logging.getLogger(__name__)


class PullThrough:
    """A `Source` over one upstream host and what is cached of it."""

    def __init__(self, host: Host, client: UpstreamClient, cache: Cache, policy: Policy) -> None:
        self.host = host
        self._client = client
        self._cache = cache
        self._policy = policy
        self._freshness = Freshness(host, policy, cache.index)
        self._proxied_blobs = ProxiedBlobs(host, client, cache, policy, self._freshness, read=self._read_small)
        self._lists = ProxiedLists(client, policy, self._freshness, self, CachedReferrers(self._read_small))
        self._prefetch = ReferrersPrefetch(self) if policy.prefetch_referrers else None

    async def stop(self) -> None:
        """End every question under way; fills are the store's to stop."""
        if self._prefetch is not None:
            await self._prefetch.stop()
        await self._proxied_blobs.stop()
        await self._freshness.stop()

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        """See `Source.resolve`. Digests are never revalidated; a tag is, when its time is over."""
        repository = await self._repository(name, None if is_digest(reference) else reference)
        if is_digest(reference):
            return await self._by_digest(repository, Digest(reference))
        known = repository.tag(reference)
        stored = await self._stored(known.descriptor) if known else None

        def used() -> None:
            self._cache.index.touch(name, reference)

        question = Question(
            name,
            reference,
            self._policy.tag_ttl_seconds,
            lambda: self._ask_tag(repository, reference, known, stored),
            ManifestUnknown({"name": str(name), "reference": reference}),
            used,
        )
        found = await self._freshness.answer(question, Kept(stored, known.checked_at) if known and stored else None)
        used()
        return found

    async def refresh(self, name: Name, tag: str) -> Manifest:
        """Ask the upstream for a tag now, whatever is cached. Raises as a cold question does."""
        repository = await self._repository(name, tag)
        unknown = ManifestUnknown({"name": str(name), "reference": tag})
        self._freshness.negatives.drop(name, tag)
        return await self._freshness.once(Question(name, tag, 0, lambda: self._fetch(repository, tag), unknown))

    async def ask(self, repository: CachedRepository, tag: str) -> Manifest:
        """See `proxied_lists.Tags`."""
        return await self._ask_tag(repository, tag, repository.tag(tag), await self.cached(repository, tag))

    async def cached(self, repository: CachedRepository, tag: str) -> Manifest | None:
        """See `proxied_lists.Tags`."""
        known = repository.tag(tag)
        return await self._stored(known.descriptor) if known else None

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        """See `Source.stat_blob`."""
        return await self._proxied_blobs.stat(await self._repository(name), digest)

    def open_blob(self, name: Name, digest: Digest) -> AbstractAsyncContextManager[Found[BlobBody]]:
        """See `Source.open_blob`. A blob that is not here streams while it arrives."""
        return self._proxied_blobs.open(partial(self._repository, name), digest)

    async def tags(self, name: Name, last: str, limit: int | None) -> Found[Sequence[str]]:
        """See `Source.tags`."""
        return await self._lists.tags(await self._repository(name), last, limit)

    async def referrers(self, name: Name, subject: Digest) -> Found[Sequence[Descriptor]]:
        """See `Source.referrers`."""
        return await self._lists.referrers(await self._repository(name), subject)

    async def _repository(self, name: Name, tag: str | None = None) -> CachedRepository:
        """The cached repository, ready to be asked. Raises what forbids to ask for it at all."""
        check_askable(name, tag)
        rule = self._policy.denied_by(name.repository)
        if rule is not None:
            event(log, logging.INFO, "denied", name=str(name), rule=rule)
            raise denied(name)
        repository = self._cache.names.repository(name)
        await repository.ready()
        return repository

    async def _by_digest(self, repository: CachedRepository, digest: Digest) -> Found[Manifest]:
        name = repository.name
        known = repository.manifest(digest)
        stored = await self._stored(known) if known else None

        def used() -> None:
            self._cache.index.touch(name, digest)

        question = Question(
            name,
            digest,
            float("inf"),
            lambda: self._ask_digest(repository, digest),
            ManifestUnknown({"name": str(name), "reference": digest}),
            used,
        )
        if stored is not None:
            found = Found(stored, self._freshness.origin("hit", question, question.ttl_seconds))
        else:
            found = await self._freshness.answer(question, None)
        used()
        return found

    async def _stored(self, descriptor: Descriptor) -> Manifest | None:
        """The manifest's bytes from the store; None where they were evicted."""
        content = await self._bytes(descriptor.digest)
        return None if content is None else Manifest(descriptor.digest, descriptor.media_type, content)

    async def _bytes(self, digest: Digest) -> bytes | None:
        return await asyncio.to_thread(self._read_small, digest)

    def _read_small(self, digest: Digest) -> bytes | None:
        """What is in the pool, where it may be a manifest: it could be a layer of any size."""
        pool = self._cache.blobs.pool
        size = pool.size(digest)
        if size is None or size > MAX_MANIFEST_BYTES:
            return None
        try:
            content = pool.read(digest)
            if digest.matches(content):
                return content
            # It was right when it was written. Out of the way, so that it can be had again.
            event(log, logging.ERROR, "damaged_in_cache", digest=digest)
            if pool.remove(digest):
                self._cache.index.blob_removed(digest)
        except FileNotFoundError:
            pass  # evicted at this moment
        except OSError as error:
            event(log, logging.ERROR, "cache_not_read", digest=digest, reason=error)
        return None

    async def _ask_tag(
        self, repository: CachedRepository, tag: str, cached: CachedTag | None, stored: Manifest | None
    ) -> Manifest:
        """Revalidate with one HEAD; a GET only where the digest moved, or HEAD does not tell it."""
        if cached is not None and stored is not None:
            now = repository.tag_checked_elsewhere(tag)
            if now and now.checked_at > cached.checked_at and now.descriptor.digest == stored.digest:
                return stored  # another process has just asked
            head = await self._client.head_manifest(repository.name.repository, tag)
            if head.digest == stored.digest:
                repository.touch_checked(tag)
                return stored
        return await self._fetch(repository, tag)

    async def _ask_digest(self, repository: CachedRepository, digest: Digest) -> Manifest:
        """Bytes that came through another repository are used, once this one's upstream says that it has them."""
        content = await self._bytes(digest)
        if content is not None:
            head = await self._client.head_manifest(repository.name.repository, digest)
            # Some answer every path with 200: what does not name these bytes has to give them.
            if head.digest == digest or (head.digest is None and head.size == len(content)):
                got = UpstreamManifest(content, head.media_type, digest, head.etag)
                return await self._keep(repository, None, got)
        return await self._fetch(repository, digest)

    async def _fetch(self, repository: CachedRepository, reference: str) -> Manifest:
        got = await self._client.get_manifest(repository.name.repository, reference)
        if not is_digest(reference):
            return await self._keep(repository, reference, got)
        digest = Digest(reference)
        if not digest.matches(got.content):
            raise BadGateway({"upstream": self.host, "reason": f"other bytes than {digest}"})
        return await self._keep(repository, None, replace(got, digest=digest))

    async def _keep(self, repository: CachedRepository, tag: str | None, got: UpstreamManifest) -> Manifest:
        """Store a manifest and its names: the bytes first, so that no name ever leads nowhere."""
        try:
            # Reading the largest takes longer than the event loop should stand still.
            links = await asyncio.to_thread(ManifestLinks.parse, got.content, got.media_type)
        except ManifestInvalid as error:
            raise BadGateway({"upstream": self.host, "reason": f"no manifest: {error.detail}"}) from None
        descriptor = Descriptor(links.media_type, got.digest, len(got.content))
        try:
            await self._cache.blobs.put(got.digest, got.content)
        except OSError as error:
            event(log, logging.ERROR, "manifest_not_cached", name=str(repository.name), reason=str(error))
        else:
            if tag is None:
                await keep("manifest", repository.name, lambda: repository.put_manifest(descriptor))
            else:
                await keep("tag", repository.name, lambda: repository.put_tag(tag, descriptor, got.etag))
        is_reference = links.subject is not None or (tag is not None and Digest.parse_tag(tag) is not None)
        if self._prefetch is not None and not is_reference:
            self._prefetch.begin(repository.name, got.digest)
        return Manifest(got.digest, links.media_type, got.content)
