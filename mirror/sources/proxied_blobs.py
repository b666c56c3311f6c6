"""Blobs of one upstream: from the pool where the repository may have them, else filled while they are sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from mirror.oci.digest import Digest
from mirror.oci.errors import BadGateway, BlobUnknown, Denied, OciError, Unknown
from mirror.oci.names import Host
from mirror.sources.flights import Flights
from mirror.sources.keeping import keep
from mirror.sources.listed_size import ReadSmall, listed_size
from mirror.sources.policy import Policy
from mirror.sources.source import Found
from mirror.sources.staleness import Freshness, Question
from mirror.sources.translate import offline, translated
from mirror.store.body import BlobBody
from mirror.store.cache import Cache
from mirror.store.feed import Incoming
from mirror.store.pull import LikelySize, Pull
from mirror.store.repository import CachedRepository
from mirror.upstream.client import UpstreamClient
from mirror.upstream.errors import SizeUntold, UpstreamError


class ProxiedBlobs:
    """Possession, not mention: a digest is a repository's when its upstream gave it or said that it has it."""

    def __init__(
        self,
        host: Host,
        client: UpstreamClient,
        cache: Cache,
        policy: Policy,
        freshness: Freshness,
        *,
        read: ReadSmall,
    ) -> None:
        self._host = host
        self._client = client
        self._blobs = cache.blobs
        self._index = cache.index
        self._policy = policy
        self._freshness = freshness
        self._read = read
        self._links: Flights[None] = Flights()

    async def stop(self) -> None:
        """End what is under way; fills are the store's to stop."""
        await self._links.stop()

    async def stat(self, repository: CachedRepository, digest: Digest) -> Found[int]:
        """Size in bytes. A blob that is not here costs the upstream a HEAD."""
        if repository.has(digest):
            size = await self._blobs.size(digest)
            if size is None and digest in self._blobs.busy():
                size = repository.size(digest)  # on its way to the disk
            if size is not None and _is_of(repository, digest, size):
                return Found(size, self._freshness.origin("hit", None, float("inf")))
        try:
            size = await self._freshness.once(self._question(repository, digest))
        except OciError as error:
            listed = await self._listed_size(repository, digest) if isinstance(error.__cause__, SizeUntold) else None
            if listed is None:
                raise
            # It proves nothing: whoever answers every path with 200 would have every digest that a manifest lists.
            size = listed
        return Found(size, self._freshness.origin("fwd=uri-miss", None, 0))

    @asynccontextmanager
    async def open(
        self, get_repository: Callable[[], Awaitable[CachedRepository]], digest: Digest
    ) -> AsyncIterator[Found[BlobBody]]:
        """The blob from the pool, or streaming from its fill."""
        repository = await get_repository()
        async with AsyncExitStack() as stack:
            found = None
            if not self._may_join(repository, digest):
                found = await self._pooled(stack, repository, digest)
            if found is None:
                found = await self._filled(stack, repository, digest)
            # Only now: what anybody may make up is not worth a line of the index.
            self._index.touch(repository.name, digest)
            yield found

    def _may_join(self, repository: CachedRepository, digest: Digest) -> bool:
        """Whether a fill runs whose bytes are the repository's, or whose first answer will say, or has just said,
        whether they are.
        """
        return self._blobs.is_filling(digest) and (
            repository.has(digest) or self._blobs.may_have(digest, str(repository.name))
        )

    async def _pooled(
        self, stack: AsyncExitStack, repository: CachedRepository, digest: Digest
    ) -> Found[BlobBody] | None:
        """What is here; None where it is not. Of another repository's bytes only what this one's upstream has."""
        if not repository.has(digest):
            if digest not in self._blobs.busy() and await self._blobs.size(digest) is None:
                return None
            await self._prove(repository, digest)
        try:
            body = await stack.enter_async_context(self._blobs.open(digest))
        except BlobUnknown:
            return None
        if not _is_of(repository, digest, body.size):
            await self._prove(repository, digest)
        return Found(body, self._freshness.origin("hit", None, float("inf")))

    async def _filled(self, stack: AsyncExitStack, repository: CachedRepository, digest: Digest) -> Found[BlobBody]:
        question = self._question(repository, digest)
        unknown = self._freshness.negatives.fresh(question.name, question.reference)
        if unknown is not None:
            raise unknown
        if self._policy.offline:
            raise self._freshness.negatives.stale(question.name, question.reference) or offline(self._host)
        supply = _Supply(self._client, repository, digest)
        # Bytes that come from somebody else's fill are this repository's only if its upstream says so.
        # No size is held against the answer: what a HEAD said of it may have been a lie, and the digest judges.
        prove = partial(self._prove, repository, digest)
        pull = await stack.enter_async_context(
            self._blobs.join(digest, None, supply.fetch, supplier=str(repository.name), prove=prove)
        )
        size = await self._started(pull, question, partial(self._listed_size, repository, digest))
        linking = self._linking(repository, digest, size if pull.is_certain else None)
        if linking is not None or not pull.collapsed:  # else one before this one has done so
            self._freshness.negatives.drop(question.name, question.reference)
        if linking is not None:
            # Nobody waits for the disk before a body begins; whoever has got all of it finds it the repository's.
            pull.before_end = linking
        how = "; collapsed" if pull.collapsed else "; stored" if self._blobs.keeps(size) else ""
        body = pull.body

        def is_arriving() -> bool:
            # What was forgotten meanwhile is proven anew.
            is_linking = linking is not None and not linking.done()
            return body.is_arriving() and (is_linking or repository.still_has(digest))

        found = replace(body, is_arriving=is_arriving)
        return Found(found, self._freshness.origin(f"fwd=uri-miss{how}", None, 0))

    async def _started(self, pull: Pull, question: Question[int], likely_size: LikelySize) -> int:
        """The blob's size in bytes. Raises what forbids it, or what was known before where the upstream fails."""
        try:
            return await pull.started(likely_size)
        except Unknown as error:
            self._freshness.negatives.put(question.name, question.reference, error)
            raise
        except OciError as error:
            stale = self._freshness.negatives.stale(question.name, question.reference)
            if stale is None or (isinstance(error, Denied) and self._policy.refuse_gone):
                raise
            raise stale from error

    async def _prove(self, repository: CachedRepository, digest: Digest) -> None:
        """See that the digest is the repository's, of the size that it has. Raises as a cold question does."""
        size = await self._blobs.told_size(digest)
        if not _is_of(repository, digest, size):
            _check_size(digest, await self._freshness.once(self._question(repository, digest)), size)

    async def _link(self, repository: CachedRepository, digest: Digest, size: int) -> None:
        """Make the digest the repository's, once for all who see it come."""
        if (linking := self._linking(repository, digest, size)) is not None:
            await asyncio.shield(linking)

    def _linking(self, repository: CachedRepository, digest: Digest, size: int | None) -> "asyncio.Task[None] | None":
        """What does so, begun; None where it is done."""
        supplier = str(repository.name)
        if repository.has(digest) and size in (None, repository.size(digest)):
            self._blobs.membership_written(digest, supplier)
            return None

        async def link() -> None:
            if await keep("membership", repository.name, lambda: repository.link(digest, size)):
                self._blobs.membership_written(digest, supplier)

        return self._links.begin((repository.name, digest, size), link)

    async def _listed_size(self, repository: CachedRepository, digest: Digest) -> int | None:
        return await asyncio.to_thread(listed_size, repository, digest, self._read)

    def _question(self, repository: CachedRepository, digest: Digest) -> Question[int]:
        async def ask() -> int:
            told = await self._blobs.told_size(digest)
            listed = await self._listed_size(repository, digest) if told is None else None
            expected = listed if told is None else told
            size = await self._client.stat_blob(repository.name.repository, digest, expected_bytes=expected)
            _check_size(digest, size, told)
            await self._link(repository, digest, size)
            return size

        unknown = BlobUnknown({"name": str(repository.name), "digest": digest})
        return Question(repository.name, f"blob {digest}", 0, ask, unknown)


def _is_of(repository: CachedRepository, digest: Digest, size: int | None) -> bool:
    """Whether the repository has a digest whose bytes are so many: what its upstream said of it may be of others."""
    return repository.has(digest) and (size is None or repository.size(digest) in (None, size))


def _check_size(digest: Digest, said: int, size: int | None) -> None:
    """An upstream that answers every path with 200 does not have what it names. Raises BadGateway."""
    if size not in (None, said):
        raise BadGateway({"digest": digest, "reason": f"its upstream says {said} bytes, not {size}"})


class _Supply:
    """One repository of one upstream as a supplier of a fill."""

    def __init__(self, client: UpstreamClient, repository: CachedRepository, digest: Digest) -> None:
        self._client = client
        self._repository = repository
        self._digest = digest

    @asynccontextmanager
    async def fetch(self, start: int, etag: str | None, stop: int | None = None) -> AsyncIterator[Incoming]:
        """See `store.feed.Fetch`. Raises OciError."""
        name = self._repository.name
        try:
            async with self._client.open_blob(name.repository, self._digest, start, etag, stop=stop) as body:
                chunks = self._translated(body.chunks)
                yield Incoming(body.start, body.total_size, body.etag, chunks, body.doubt)
        except UpstreamError as error:
            raise self._error(error) from error

    async def _translated(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                yield chunk
        except UpstreamError as error:
            raise self._error(error) from error

    def _error(self, error: UpstreamError) -> OciError:
        return translated(error, BlobUnknown({"name": str(self._repository.name), "digest": self._digest}))
