"""One snapshot being served: its bytes, how far its repositories were explored, what its tags came to mean."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cachetools import LRUCache

from mirror.logs import event
from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import Manifest, ManifestLinks
from mirror.oci.names import Name
from mirror.sources.coalesce import Conflict, coalesce
from mirror.sources.library import Library
from mirror.sources.reach import Reach
from mirror.sources.snapshot import Candidate, LocalRepository
from mirror.store.body import BlobBody
from mirror.store.generated import GeneratedManifests


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a tag or digest means; `generated` where this program made the manifest.

    Not `whole`: one of the places that give the tag could not be read; its bytes may still arrive.
    """

    manifest: Manifest
    generated: bool = False
    whole: bool = True


log = logging.getLogger(__name__)


class View:
    """Blocks, and may be asked from any thread. What was learnt moves on to the next snapshot where it holds.

    `tells`: whether conflicts are logged; not by every one of several workers.
    """

    def __init__(
        self, library: Library, generated: GeneratedManifests, before: "View | None" = None, *, tells: bool = True
    ) -> None:
        self.library = library
        self.snapshot = library.snapshot
        self._generated = generated
        self._tells = tells
        self._lock = threading.Lock()
        # Explored repositories and joined tags: bounded by count; what is dropped is found anew when asked.
        self._reaches: LRUCache[Name, Reach] = LRUCache(5_000)
        self._joined: LRUCache[tuple[Name, str], Meaning] = LRUCache(20_000)
        self._said: LRUCache[tuple[str, ...], bool] = before._said if before else LRUCache(10_000)
        if before is not None:
            with before._lock:
                self._carry_over(before._reaches.items())

    def reach(self, repository: LocalRepository) -> Reach:
        """What the repository reaches, as far as it was explored."""
        with self._lock:
            found = self._reaches.get(repository.name)
            if found is None:
                found = self._reaches[repository.name] = Reach(self.library, repository)
            return found

    def resolve(self, repository: LocalRepository, reference: str) -> Meaning | None:
        """The manifest of a tag or a digest (a `Digest`); None where the repository has none."""
        if not is_digest(reference):
            return self._tag(repository, reference)
        digest = Digest(reference)
        reached = self.reach(repository).find(digest)
        if reached is None:
            return self._made_here(repository, digest)
        found = self.library.manifest(digest, reached.near, reached.media_type) if reached.is_manifest else None
        return Meaning(found.manifest, digest in self.snapshot.pool.generated) if found else None

    @contextmanager
    def blob(
        self, repository: LocalRepository, digest: Digest, *, verified: bool = True
    ) -> Iterator[BlobBody | None]:
        """The bytes of a digest that the repository reaches, open as long as the context is; None for others.

        Unless `verified`, only their size is to be believed.
        """
        reached = self.reach(repository).find(digest)
        if reached is None:
            made = self._made_here(repository, digest)
            yield made.manifest.content if made else None
            return
        with self.library.blob(digest, reached.near, reached.sizes, verified=verified) as body:
            yield body

    def holds(self, repository: LocalRepository, digest: Digest) -> bool:
        """Whether the repository reaches the digest, or it was generated for it."""
        return self.reach(repository).find(digest) is not None or self._made_here(repository, digest) is not None

    def _tag(self, repository: LocalRepository, tag: str) -> Meaning | None:
        candidates = repository.candidates(tag)
        if len(candidates) > 1:
            return self._join(repository, tag)
        found = self._read(candidates[0]) if candidates else None
        if found is not None:
            self.reach(repository).note(candidates[0])
        return found

    def _read(self, candidate: Candidate) -> Meaning | None:
        descriptor = candidate.descriptor
        found = self.library.manifest(descriptor.digest, candidate.place, descriptor.media_type)
        return Meaning(found.manifest, descriptor.digest in self.snapshot.pool.generated) if found else None

    def _join(self, repository: LocalRepository, tag: str) -> Meaning | None:
        """A tag that several places give. What is generated is stored before anybody hears of it."""
        with self._lock:
            known = self._joined.get((repository.name, tag))
        if known is not None:
            return known
        candidates = repository.candidates(tag)
        # Looked at before: what arrives only now may not have been joined, and is at the next time.
        whole = all(self._read(candidate) is not None for candidate in candidates)
        joined = coalesce(self.library, candidates)
        if joined is None:
            return None
        for conflict in joined.conflicts if self._tells else ():
            self._warn(repository.name, tag, conflict)
        if joined.content is not None:
            digest = self._generated.put(joined.content)
            links = ManifestLinks.parse(joined.content)
            found: Meaning | None = Meaning(Manifest(digest, links.media_type, joined.content), generated=True)
        else:
            found = self._read(joined.chosen) if joined.chosen else None
        for candidate in candidates:
            self.reach(repository).note(candidate)
        if found is None:
            return None
        if not whole:
            return replace(found, whole=False)
        with self._lock:
            self._joined[repository.name, tag] = found
        return found

    def _made_here(self, repository: LocalRepository, digest: Digest) -> Meaning | None:
        """A manifest that was generated, now or earlier: the repository's as long as it holds all its parts."""
        content = self._generated.get(digest)
        if content is None:
            return None
        try:
            links = ManifestLinks.parse(content)
        except ManifestInvalid:
            return None
        reach = self.reach(repository)
        if any(reach.find(child.digest) is None for child in links.children()):
            return None
        return Meaning(Manifest(digest, links.media_type, content), generated=True)

    def _warn(self, name: Name, tag: str, conflict: Conflict) -> None:
        places = (conflict.winner.place.path, conflict.loser.place.path)
        key = (str(name), tag, conflict.platform, *places)
        with self._lock:
            if key in self._said:
                return
            self._said[key] = True
        served, other = places
        fields = {"image": f"{name}:{tag}", "platform": conflict.platform, "served": served, "other": other}
        event(log, logging.WARNING, "conflict", **fields)

    def _carry_over(self, explored: Iterable[tuple[Name, Reach]]) -> None:
        """A repository whose manifests are as they were need not be explored again."""
        for name, reach in explored:
            repository = self.snapshot.repositories.get(name)
            if repository is not None and reach.still_holds(repository):
                self._reaches[name] = reach.moved_to(self.library)
