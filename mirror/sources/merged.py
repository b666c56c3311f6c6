"""All content there is: local first, then the upstream of the name's host; lists are the union of both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import Denied, NameNotYetKnown, NameUnknown, OciError, Unavailable, Unknown
from mirror.oci.manifest import Manifest
from mirror.oci.names import Host, Name, Repository
from mirror.sources.fallback_tags import WithFallbackTags
from mirror.sources.local import LocalContent
from mirror.sources.source import Found, Source
from mirror.store.body import BlobBody
from mirror.store.generated import GeneratedManifests
from mirror.store.names import NameStore

T = TypeVar("T")

INCOMPLETE = "a source did not answer: this list may be incomplete"


@dataclass(frozen=True)
class Content:
    """What the registry serves: local content, and upstreams by their host."""

    local: LocalContent
    upstreams: Mapping[Host, Source]
    default_host: Host | None
    cached: NameStore | None = None
    generated: GeneratedManifests | None = None

    async def names(self) -> Sequence[Name]:
        """Every local name, and every cached one whose upstream is configured; in the order of how they are written.

        Asks no upstream.
        """
        local = self.local.snapshot.names
        cached = await asyncio.to_thread(self._cached_names) if self.cached is not None else []
        return sorted({*local, *cached}, key=str) if cached else local

    def may_have(self, name: Name) -> bool:
        """Whether there may be such a repository: a local one, or one of a configured upstream."""
        return name in self.local.snapshot.repositories or name.host in self.upstreams

    def _cached_names(self) -> list[Name]:
        cached = self.cached.iterate() if self.cached is not None else ()
        return [name for name in cached if name.host in self.upstreams]

    def meant(self, host: Host | None, repository: Repository) -> tuple[Name, Source]:
        """The canonical name that a request means, and the sources that may answer it.

        Needs the first scan to have ended. Raises NameUnknown where nothing may answer: an unknown host, or a
        plain name that local content had once.
        """
        if host is not None:
            name, local_only = Name(host, repository), False
        else:
            found, local_only = self.local.plain_name(repository, self.default_host)
            if found is None:
                raise self.local.unknown(repository, "its local content is gone")
            name = found
        upstream = None if local_only or name.host is None else self.upstreams.get(name.host)
        source: Source = FirstMatch((self.local,) if upstream is None else (self.local, upstream))
        return name, source if self.generated is None else WithFallbackTags(source, self.generated)


@dataclass(frozen=True)
class FirstMatch:
    """Ordered sources; the first that knows what was asked answers. A `Source` itself."""

    sources: Sequence[Source]

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        """See `Source.resolve`."""
        return await self._first(lambda source: source.resolve(name, reference))

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        """See `Source.stat_blob`."""
        return await self._first(lambda source: source.stat_blob(name, digest))

    @asynccontextmanager
    async def open_blob(self, name: Name, digest: Digest) -> AsyncIterator[Found[BlobBody]]:
        """See `Source.open_blob`."""
        async with AsyncExitStack() as stack:
            found = await self._first(lambda source: stack.enter_async_context(source.open_blob(name, digest)))
            yield found

    async def tags(self, name: Name, last: str, limit: int | None) -> Found[Sequence[str]]:
        """The union of all sources' tags; where one fails, the others', with a warning."""
        found = await self._every(lambda source: source.tags(name, last, limit))
        if len(found) == 1:
            return found[0]
        tags = sorted(set().union(*(one.value for one in found)))
        return Found(tags if limit is None else tags[:limit], found[-1].origin)

    async def referrers(self, name: Name, subject: Digest) -> Found[Sequence[Descriptor]]:
        """The union of all sources' referrers, each digest once."""
        found = await self._every(lambda source: source.referrers(name, subject))
        joined = {descriptor.digest: descriptor for one in reversed(found) for descriptor in one.value}
        return Found(list(joined.values()), found[-1].origin)

    async def _first(self, ask: Callable[[Source], Awaitable[T]]) -> T:
        unknown: Unknown = NameUnknown()
        for source in self.sources:
            try:
                return await ask(source)
            except Unknown as error:
                unknown = _telling_more(unknown, error)
        raise unknown

    async def _every(self, ask: Callable[[Source], Awaitable[Found[T]]]) -> list[Found[T]]:
        """Every source's answer, at least one; the last carries a warning where another failed."""
        found: list[Found[T]] = []
        failed: OciError | None = None
        unknown: Unknown = NameUnknown()
        for source in self.sources:
            try:
                found.append(await ask(source))
            except Unknown as error:
                unknown = _telling_more(unknown, error)
            except (Unavailable, Denied) as error:
                failed = error
        if not found:
            raise failed or unknown
        if len(found) < len(self.sources):
            # Who said nothing now may say something later.
            origin = replace(found[-1].origin, fresh_until=0)
            if failed is not None:
                origin = replace(origin, warnings=(*origin.warnings, INCOMPLETE))
            found[-1] = replace(found[-1], origin=origin)
        return found


def _telling_more(first: Unknown, second: Unknown) -> Unknown:
    """ "Not yet known" before all else; "no such manifest here" tells more than "no such repository"."""
    if isinstance(first, NameNotYetKnown) or not isinstance(first, NameUnknown):
        return first
    return second
