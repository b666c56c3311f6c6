"""Search, as configured: the index in the cache's folder, what it is filled from, the extension that answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from mirror.app.local import view_now
from mirror.app.prepare import SEARCH_FILE, begin_search
from mirror.app.upstreams import cache
from mirror.config import Config
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid, ManifestUnknown, NameUnknown
from mirror.oci.manifest import ManifestLinks
from mirror.oci.names import DOCKER_HUB, Host, Name, Repository, familiar
from mirror.oci.reference import Reference
from mirror.server.extensions import Extension
from mirror.server.features import features_endpoint
from mirror.server.search import search_endpoint, search_features
from mirror.sources.local import LocalContent
from mirror.sources.search_index import Cached, SearchFiller
from mirror.sources.snapshot import LocalRepository
from mirror.sources.view import View
from mirror.store.cache import Cache
from mirror.store.repository import CachedRepository
from mirror.store.search import SearchIndex


def extensions(index: SearchIndex) -> Sequence[Extension]:
    """Everything that is enabled."""
    endpoints = {
        "features": features_endpoint({"search": search_features()}),
        "search": search_endpoint(index),
    }
    return (Extension("_mirror", "What this registry holds and can do", "/v2/_mirror/features", endpoints),)


def cached_content(config: Config, kept: Cache) -> Cached:
    """What is cached of the configured upstreams."""
    return Cached(kept.names, kept.blobs.pool.read, frozenset(config.upstreams))


@asynccontextmanager
async def search_index(config: Config, *, fills: bool) -> AsyncIterator[SearchIndex]:
    """The index that workers share, open as long as the context is. `fills`: this worker is the one that fills it."""
    if fills:
        index = await asyncio.to_thread(begin_search, config)
    else:
        index = await asyncio.to_thread(SearchIndex, config.cache.path / SEARCH_FILE)
    try:
        yield index
    finally:
        await asyncio.to_thread(index.close)


@asynccontextmanager
async def filling(filler: SearchFiller | None, local: LocalContent) -> AsyncIterator[None]:
    """Keep the index up beside all else; None where another worker does."""
    task = asyncio.create_task(filler.run(local), name="search index") if filler else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextmanager
def search_now(config: Config) -> Iterator[tuple[View, Cache, SearchIndex]]:
    """Content as it lies there now, and an index over it that no server sees. Blocks."""
    _, view = view_now(config)
    with cache(config).opened() as kept:
        index = SearchIndex(None)
        try:
            # A server's may be of other folders; what it knows of manifests, and since when, is true all the same.
            index.copy_from(config.cache.path / SEARCH_FILE)
            SearchFiller(index, cached_content(config, kept)).once(view)
            yield view, kept, index
        finally:
            index.close()


def referrers_now(config: Config, reference: Reference) -> tuple[Digest, Sequence[Descriptor]]:
    """What an image's digest is, and what refers to it, as far as folders and cache tell. Blocks.

    Raises NameUnknown or ManifestUnknown.
    """
    _, view = view_now(config)
    known = False
    tag = reference.tag or "latest"
    with cache(config).opened() as kept:
        for repository, cached in _meant(config, view, kept, reference):
            known = True
            subject = reference.digest or _tagged(view, repository, cached, tag)
            if subject is not None:
                found = _cached_referrers(kept, cached, subject) if cached is not None else ()
                local = view.reach(repository).referrers(subject) if repository is not None else ()
                joined = {one.digest: one for one in (*found, *local)}
                return subject, sorted(joined.values(), key=lambda one: one.digest)
    detail = {"name": str(reference.name)}
    raise ManifestUnknown(detail | {"reference": tag}) if known else NameUnknown(detail)


def _meant(
    config: Config, view: View, kept: Cache, reference: Reference
) -> Iterator[tuple[LocalRepository | None, CachedRepository | None]]:
    """What there is by the names that a reference may mean, in the order in which they count."""
    for name in _names(config, view, reference):
        repository = view.snapshot.repositories.get(name)
        # Where nobody named a host, a stranger's does not answer for what is here.
        is_ours = repository is not None and repository.plain and reference.host is None
        cached = kept.names.peek(name) if name.host in config.upstreams and not is_ours else None
        if cached is not None and not cached.exists():
            cached = None
        if repository is not None or cached is not None:
            yield repository, cached


def _names(config: Config, view: View, reference: Reference) -> Sequence[Name]:
    """As `LocalContent.plain_name` reads them."""

    def on(host: Host | None) -> Name:
        return Name(host, Repository(familiar(host, reference.repository)))

    if reference.host is not None:
        return [on(reference.host)]
    read = view.snapshot.repositories.get(on(DOCKER_HUB))
    local = [read.name] if read is not None and read.plain else []
    return list(dict.fromkeys([on(None), *local, on(config.default_host)]))


def _tagged(
    view: View, repository: LocalRepository | None, cached: CachedRepository | None, tag: str
) -> Digest | None:
    meaning = view.resolve(repository, tag) if repository is not None else None
    if meaning is not None:
        return meaning.manifest.digest
    stored = cached.tag(tag) if cached is not None else None
    return stored.descriptor.digest if stored is not None else None


def _cached_referrers(kept: Cache, cached: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
    """As a server gives them whose upstream is gone: the list that was had, else what the fallback tag lists."""
    listed = cached.list(subject)
    if listed is not None:
        return [Descriptor.from_json(entry) for entry in listed.document.get("manifests", ())]
    fallback = cached.tag(subject.fallback_tag)
    if fallback is None:
        return ()
    try:
        content = kept.blobs.pool.read(fallback.descriptor.digest)
        return ManifestLinks.parse(content, fallback.descriptor.media_type).manifests
    except (OSError, ManifestInvalid):
        return ()
