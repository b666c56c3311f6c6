"""Which cached content belongs to which tag: what eviction removes together, and what `mirror cache ls` adds up."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES, ManifestLinks
from mirror.oci.names import Name
from mirror.store.index import CacheIndex, StoredBlob, StoredLinks
from mirror.store.names import NameStore
from mirror.store.records import Record
from mirror.store.repository import CachedRepository

_NO_LINKS = StoredLinks()


class BlobFiles(Protocol):
    """What eviction needs of the pool of blobs. Called from a thread."""

    def size(self, digest: Digest) -> int | None:
        """Size in bytes of a whole blob, None where it is not there."""
        ...

    def read(self, digest: Digest) -> bytes:
        """The content of a small blob. Raises OSError where it is gone."""
        ...

    def remove(self, digest: Digest) -> bool:
        """Remove a blob unless it is in use, in one step; whether it is gone."""
        ...

    def iterate(self) -> Iterator[tuple[Digest, int]]:
        """All whole blobs with their sizes in bytes."""
        ...

    def in_use(self, digest: Digest) -> bool:
        """Whether somebody, in any process, reads or fills the blob."""
        ...


@dataclass(frozen=True, slots=True)
class Unit:
    """What leaves the cache together: what `root` reaches. A tag, or a manifest without one, or (`name` is None) a
    blob that no manifest reaches.
    """

    name: Name | None
    root: Digest
    tag: str | None = None
    record: Record | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag is not None else f"{self.name or ''}@{self.root}"


@dataclass(slots=True)
class _Repository:
    files: CachedRepository
    tags: dict[str, Record]
    manifests: dict[Digest, Record]
    # By subject: manifests that refer to it, and tags that are named after it (fallback tags, cosign's `.sig`).
    referrers: dict[Digest, list[Digest]] = field(default_factory=dict)
    attached: dict[Digest, list[Record]] = field(default_factory=dict)


class Graph:
    """A picture of the cache at one moment, read from its files: takes up to seconds, for a thread."""

    def __init__(self, blobs: BlobFiles, names: NameStore, index: CacheIndex) -> None:
        self._blobs = blobs
        self.sizes: dict[Digest, StoredBlob] = index.blobs()
        self._uses = index.uses()
        self._links = index.links()
        self._new_links: dict[Digest, StoredLinks] = {}
        self._repositories: dict[Name, _Repository] = {}
        for name in names.iterate():
            self._repositories[name] = self._read(names.peek(name))
        index.add_links(self._new_links)

    def units(self) -> Iterator[tuple[Unit, set[Digest]]]:
        """Everything that is cached, with what belongs to it: tags, then manifests that none of them reaches, then
        blobs on their own.
        """
        everywhere: set[Digest] = set()
        for name, repository in self._repositories.items():
            reached: set[Digest] = set()
            attached = {record.tag for records in repository.attached.values() for record in records}
            units = [
                Unit(name, record.descriptor.digest, tag, record)
                for tag, record in repository.tags.items()
                if tag not in attached
            ]
            units += [Unit(name, digest, None, record) for digest, record in repository.manifests.items()]
            for unit in units:
                if unit.tag is not None or unit.root not in reached:
                    closure = self.closure(unit)
                    reached |= closure
                    yield unit, closure
            everywhere |= reached
        yield from ((Unit(None, digest), {digest}) for digest in self.sizes if digest not in everywhere)

    def closure(self, unit: Unit) -> set[Digest]:
        """What belongs to a unit: children, blobs, and within its repository what refers to them; cached or not."""
        repository = self._repositories[unit.name] if unit.name else None
        found: set[Digest] = set()
        waiting: list[Digest] = [unit.root]
        while waiting:
            digest = waiting.pop()
            if digest in found:
                continue
            found.add(digest)
            links = self._links.get(digest, _NO_LINKS)
            found.update(links.blobs)
            waiting.extend(links.manifests)
            if repository is not None:
                waiting.extend(repository.referrers.get(digest, ()))
                waiting.extend(record.descriptor.digest for record in repository.attached.get(digest, ()))
        return found

    def attached(self, name: Name, digests: set[Digest]) -> Iterator[Record]:
        """Tags of a repository that are named after one of `digests`, and go with it."""
        by_subject = self._repositories[name].attached
        for subject in by_subject.keys() & digests:
            yield from by_subject[subject]

    def used_at(self, unit: Unit, closure: set[Digest]) -> float:
        """Unix seconds when any of its tags or manifests was last asked for, or fetched."""
        if unit.name is None:
            return self.sizes[unit.root].added_at
        repository = self._repositories[unit.name]
        tags = list(self.attached(unit.name, closure))
        if unit.tag is not None and unit.record is not None:
            tags.append(unit.record)
        manifests = repository.manifests.keys() & closure
        times = [record.fetched_at for record in tags]
        times += [repository.manifests[digest].fetched_at for digest in manifests]
        text = str(unit.name)
        for reference in [*(record.tag for record in tags), *manifests]:
            used = self._uses.get((text, reference or ""))
            times.append(used.used_at if used else 0.0)
        return max(times, default=0.0)

    def checked_at(self, unit: Unit) -> float:
        """Unix seconds when the upstream last confirmed a tag; 0 where it never did since it was fetched."""
        found = self._uses.get((str(unit.name), unit.tag)) if unit.tag is not None else None
        return found.checked_at if found else 0.0

    def files(self, name: Name) -> CachedRepository | None:
        """The repository as it was read for this picture."""
        found = self._repositories.get(name)
        return found.files if found else None

    def _read(self, files: CachedRepository) -> _Repository:
        tags, manifests = files.records()
        repository = _Repository(files, tags, manifests)
        for digest, record in manifests.items():
            links = self._read_links(digest, record.descriptor.media_type)
            if links.subject is not None:
                repository.referrers.setdefault(links.subject, []).append(digest)
        for tag, record in tags.items():
            subject = Digest.parse_tag(tag.partition(".")[0])
            if subject is not None and subject in manifests and subject != record.descriptor.digest:
                repository.attached.setdefault(subject, []).append(record)
        return repository

    def _read_links(self, digest: Digest, media_type: str | None) -> StoredLinks:
        known = self._links.get(digest)
        stored = self.sizes.get(digest)
        if known is not None or stored is None or stored.size > MAX_MANIFEST_BYTES:
            return known or _NO_LINKS
        try:
            links = ManifestLinks.parse(self._blobs.read(digest), media_type)
        except (OSError, ManifestInvalid):
            return _NO_LINKS
        children = tuple(child.digest for child in links.manifests)
        found = StoredLinks(children, tuple(child.digest for child in links.blobs), links.subject)
        self._links[digest] = self._new_links[digest] = found
        # A child may have come without a record of its own, through another repository.
        for child in links.manifests:
            self._read_links(child.digest, child.media_type)
        return found
