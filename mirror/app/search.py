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
from mirror.oci.errors import ManifestUnknown, NameUnknown
from mirror.oci.names import DOCKER_HUB, Host, Name, Repository, familiar
from mirror.oci.reference import Reference
from mirror.server.extensions import Extension
from mirror.server.features import features_endpoint
from mirror.server.search import search_endpoint, search_features
from mirror.sources.local import LocalContent
from mirror.sources.search_index import Cached, SearchFiller
from mirror.sources.snapshot import Snapshot
from mirror.sources.view import View
from mirror.store.cache import Cache
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
    found: dict[Digest, Descriptor] = {}
    subject = reference.digest
    with cache(config).opened() as kept:
        known = False
        for name in _meant(config, reference, view.snapshot):
            repository = view.snapshot.repositories.get(name)
            cached = kept.names.peek(name) if name.host in config.upstreams else None
            known = known or repository is not None or (cached is not None and cached.exists())
            tag = reference.tag or "latest"
            if subject is None and repository is not None:
                meaning = view.resolve(repository, tag)
                subject = meaning.manifest.digest if meaning else None
            if subject is None and cached is not None:
                stored = cached.tag(tag)
                subject = stored.descriptor.digest if stored else None
            if subject is None:
                continue
            listed = cached.list(subject) if cached is not None else None
            entries = listed.document.get("manifests", ()) if listed else ()
            found |= {one.digest: one for one in map(Descriptor.from_json, entries)}
            if repository is not None:
                found |= {one.digest: one for one in view.reach(repository).referrers(subject)}
            break
    detail = {"name": str(reference.name)}
    if subject is None:
        raise ManifestUnknown(detail | {"reference": reference.tag or "latest"}) if known else NameUnknown(detail)
    return subject, sorted(found.values(), key=lambda one: one.digest)


def _meant(config: Config, reference: Reference, snapshot: Snapshot) -> Sequence[Name]:
    """The names that a reference may mean, in the order in which they count (as `LocalContent.plain_name`)."""

    def on(host: Host | None) -> Name:
        return Name(host, Repository(familiar(host, reference.repository)))

    if reference.host is not None:
        return [on(reference.host)]
    read = snapshot.repositories.get(on(DOCKER_HUB))
    return [on(None), *([read.name] if read and read.plain else []), on(config.default_host)]
