"""What is cached, for `mirror cache ls`, `mirror cache stats` and the metrics."""

from dataclasses import dataclass

from mirror.oci.descriptor import Descriptor
from mirror.oci.names import Name
from mirror.store.graph import BlobFiles, Graph
from mirror.store.index import CacheIndex
from mirror.store.names import NameStore


@dataclass(frozen=True, slots=True)
class Usage:
    """`bytes` on disk, in blocks of 4 KiB; manifests are counted once per repository, and are blobs too."""

    bytes: int
    blobs: int
    manifests: int
    tags: int
    repositories: int


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A tag, or a manifest that no tag reaches (`tag` is None). Times in Unix seconds, 0 for never.

    `bytes` is the size of all that belongs to it and is cached, shared or not; `missing` counts what is not cached.
    """

    name: Name
    tag: str | None
    descriptor: Descriptor
    bytes: int
    missing: int
    fetched_at: float
    checked_at: float
    used_at: float


def usage(names: NameStore, index: CacheIndex) -> Usage:
    """Reads every repository: for a thread."""
    index.flush()
    manifests = tags = repositories = 0
    for name in names.iterate():
        its_tags, its_manifests = names.peek(name).records()
        repositories += 1
        tags += len(its_tags)
        manifests += len(its_manifests)
    return Usage(index.usage_bytes(), index.blob_count(), manifests, tags, repositories)


def cached_images(blobs: BlobFiles, names: NameStore, index: CacheIndex) -> list[CachedImage]:
    """All cached images, by name and tag. Reads every repository, and manifests not read before: for a thread."""
    index.flush()
    graph = Graph(blobs, names, index)
    found: list[CachedImage] = []
    for unit, closure in graph.units():
        if unit.name is None or unit.record is None:
            continue
        cached = closure & graph.sizes.keys()
        found.append(
            CachedImage(
                unit.name,
                unit.tag,
                unit.record.descriptor,
                sum(graph.sizes[digest].size for digest in cached),
                len(closure) - len(cached),
                unit.record.fetched_at,
                graph.checked_at(unit),
                graph.used_at(unit, closure),
            )
        )
    return sorted(found, key=lambda image: (str(image.name), image.tag or "", image.descriptor.digest))
