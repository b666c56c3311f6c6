"""The client of one upstream registry: what may be asked of it (distribution-spec 1.1, "Endpoints")."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Self, TypeVar

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import DigestInvalid
from mirror.oci.names import is_repository, is_tag
from mirror.upstream.answers import UpstreamBody, UpstreamManifest, UpstreamManifestHead
from mirror.upstream.blobs import BlobHead, blob_size, body_chunks, open_blob_at
from mirror.upstream.breaker import Breaker, BreakerState, MemoryBreakerState
from mirror.upstream.connections import Connections, tls_context
from mirror.upstream.errors import NotFound, TimedOut
from mirror.upstream.events import Observe, ignore
from mirror.upstream.exchange import Exchange
from mirror.upstream.failover import FailOver, Work
from mirror.upstream.given import Given
from mirror.upstream.http import Answer
from mirror.upstream.lists import list_referrers, list_tags
from mirror.upstream.manifests import get_manifest, head_manifest
from mirror.upstream.settings import Capability, UpstreamSettings

T = TypeVar("T")

# Requests for manifests, lists and sizes at a time; they are small, and never wait behind blobs.
SMALL_REQUESTS = 16


class UpstreamClient:
    """Enter it before use. Every method raises `UpstreamError`s; `deadline_seconds` bounds the wait for an answer.

    `breaker_state` gives the place where an endpoint's breaker is kept, by the endpoint's URL; it is called in a
    thread. Names and tags that the specification's grammar does not know are NotFound, without a packet sent.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        observe: Observe = ignore,
        breaker_state: Callable[[str], BreakerState] = lambda endpoint_url: MemoryBreakerState(),
    ) -> None:
        self.settings = settings
        self._observe = observe
        self._breaker_state = breaker_state
        self._exchanges: list[Exchange] = []
        self._failover = FailOver(settings, self._exchanges)
        self._given = Given()
        self._small_slots = asyncio.Semaphore(SMALL_REQUESTS)
        self._blob_slots = asyncio.Semaphore(settings.max_connections)

    async def start(self) -> None:
        """Raises OSError where a certificate file cannot be used."""
        # Certificates and the breakers' records are files.
        self._exchanges.extend(await asyncio.to_thread(self._open))

    def _open(self) -> list[Exchange]:
        settings, observe = self.settings, self._observe
        own = tls_context(settings.tls, with_certificate=True)
        other = tls_context(settings.tls, with_certificate=False) if settings.tls.client_cert else own
        return [
            Exchange(
                endpoint,
                Connections(settings, own, other),
                Breaker(settings.host, endpoint.url, self._breaker_state(endpoint.url), observe),
                observe,
            )
            for endpoint in settings.endpoints
        ]

    async def close(self) -> None:
        """Drops every connection; what still runs on one fails."""
        for exchange in self._exchanges:
            await exchange.close()
        self._exchanges.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def open_seconds(self) -> Mapping[str, float]:
        """How long each endpoint will not be asked, by its URL; 0 where it will."""
        return {one.endpoint.url: one.breaker.open_seconds for one in self._exchanges}

    async def head_manifest(
        self, repository: str, reference: str, *, deadline_seconds: float | None = None
    ) -> UpstreamManifestHead:
        """What a tag or digest names, without its bytes; where HEAD is refused, by GET."""
        _check(self.settings.host, repository, reference)
        return await self._small(
            _capability(reference), lambda one: head_manifest(one, repository, reference), deadline_seconds
        )

    async def get_manifest(
        self, repository: str, reference: str, *, deadline_seconds: float | None = None
    ) -> UpstreamManifest:
        """A manifest whose bytes fit the digest asked for, and the one that the upstream names."""
        _check(self.settings.host, repository, reference)
        return await self._small(
            _capability(reference), lambda one: get_manifest(one, repository, reference), deadline_seconds
        )

    async def stat_blob(
        self,
        repository: str,
        digest: Digest,
        *,
        expected_bytes: int | None = None,
        deadline_seconds: float | None = None,
    ) -> int:
        """A blob's size in bytes, by HEAD; where that does not say what is expected, by a GET of one byte."""
        _check(self.settings.host, repository)
        return await self._small(
            "pull", lambda one: blob_size(one, repository, digest, expected_bytes), deadline_seconds
        )

    @asynccontextmanager
    async def open_blob(
        self,
        repository: str,
        digest: Digest,
        start: int = 0,
        etag: str | None = None,
        *,
        stop: int | None = None,
        deadline_seconds: float | None = None,
    ) -> AsyncIterator[UpstreamBody]:
        """A blob from byte `start` to before `stop`, or to its end; with `etag`, only if it is the same (If-Range).

        Retried until the head came; what happens to the body is the caller's to resume. An error raised within the
        context, or `body.doubt`, has the endpoint asked last for this blob from then on. `body.start` is 0 where the
        upstream sends it all. Raises RangeRefused when there is no byte at `start`. The deadline is for the head.
        """

        async def opened(one: Exchange) -> tuple[str, Answer, BlobHead]:
            url = one.endpoint.url
            answer, head = await open_blob_at(
                one, repository, digest, start, self._given.etag_for(digest, etag, url), stop=stop
            )
            return url, answer, head

        _check(self.settings.host, repository)
        async with AsyncExitStack() as stack:
            await self._blob_slot(stack, deadline_seconds)
            url, answer, head = await self._failover.run(
                "pull", opened, deadline_seconds, last=self._given.doubted(digest)
            )
            stack.callback(answer.close)
            chunks = await stack.enter_async_context(aclosing(body_chunks(answer)))
            given_etag = answer.headers.get("ETag")
            self._given.note_etag(digest, given_etag, url)
            doubt = partial(self._given.doubt, digest, url)
            try:
                yield UpstreamBody(head.total_size, head.start, given_etag, chunks, doubt)
            except Exception:
                doubt()
                raise

    async def tags(
        self,
        repository: str,
        *,
        on_page: Callable[[], None] = lambda: None,
        deadline_seconds: float | None = None,
    ) -> list[str]:
        """All tags, in the upstream's order; `on_page` is called for each page. Raises TooLarge beyond the bounds of
        `lists`.
        """
        _check(self.settings.host, repository)
        return await self._small("resolve", lambda one: list_tags(one, repository, on_page), deadline_seconds)

    async def referrers(
        self, repository: str, subject: Digest, *, deadline_seconds: float | None = None
    ) -> list[Descriptor]:
        """What refers to `subject`. Raises NoReferrersApi; the fallback tag is the caller's to ask for."""
        _check(self.settings.host, repository)
        return await self._small("resolve", lambda one: list_referrers(one, repository, subject), deadline_seconds)

    async def _small(self, capability: Capability, work: Work[T], deadline_seconds: float | None) -> T:
        return await self._failover.run(capability, work, deadline_seconds, self._small_slots)

    async def _blob_slot(self, stack: AsyncExitStack, deadline_seconds: float | None) -> None:
        try:
            async with asyncio.timeout(deadline_seconds):
                await stack.enter_async_context(self._blob_slots)
        except TimeoutError:
            raise TimedOut(self.settings.host, f"no free connection within {deadline_seconds:g} s") from None


def _check(host: str, repository: str, reference: str | None = None) -> None:
    """Raises NotFound for what no registry has by the specification's grammar."""
    if not is_repository(repository):
        raise NotFound(host, "no repository can have that name", code="NAME_UNKNOWN")
    if reference is not None and not (is_tag(reference) or _is_checked_digest(reference)):
        raise NotFound(host, "no manifest can have that tag or digest", code="MANIFEST_UNKNOWN")


def _is_checked_digest(reference: str) -> bool:
    try:
        return bool(Digest.parse(reference))
    except DigestInvalid:
        return False


def _capability(reference: str) -> Capability:
    return "pull" if is_digest(reference) else "resolve"
