"""What the manifests of a local repository reach: membership (a digest is never served by itself) and referrers."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import referrer
from mirror.sources.library import Library
from mirror.sources.place import Place
from mirror.sources.snapshot import Candidate, LocalRepository

# Sparse indexes list much that is not there, and looking for it costs a stat for each layout.
RETRY_MISSING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reached:
    """A digest of the repository: `near` lists it or holds what lists it. `sizes` are those that descriptors give."""

    media_type: str
    sizes: frozenset[int]
    near: Place
    is_manifest: bool


class Reach:
    """Explores a repository's manifests as far as was asked, and no further. Blocks: called from threads."""

    def __init__(self, library: Library, repository: LocalRepository) -> None:
        self._library = library
        self._roots = repository.roots
        self._lock = threading.Lock()
        self._known: dict[Digest, Reached] = {}
        self._referrers: dict[Digest, dict[Digest, Descriptor]] = {}
        self._unread: deque[tuple[Descriptor, Place]] = deque()
        # Manifests that were not there: a copy may still be under way, so they are looked for again.
        self._missing: list[tuple[Descriptor, Place]] = []
        self._missing_since = 0.0
        for candidate in repository.roots.values():
            self._add(candidate.descriptor, candidate.place, is_manifest=True)

    def still_holds(self, repository: LocalRepository) -> bool:
        """Whether what was explored is true of this repository too: the same entries of the same places."""
        # Most repositories are the very ones of the snapshot before.
        return self._roots is repository.roots or (
            self._roots.keys() == repository.roots.keys()
            and all(
                before.place is (now := repository.roots[digest]).place and before.descriptor is now.descriptor
                for digest, before in self._roots.items()
            )
        )

    def moved_to(self, library: Library) -> "Reach":
        """The same exploration, going on in a newer library."""
        self._library = library
        self._missing_since = 0.0  # what was missing may have come with what is new
        return self

    def known(self, digest: Digest) -> Reached | None:
        """What is known of the digest so far. Does not block."""
        return self._known.get(digest)

    @property
    def complete(self) -> bool:
        """Whether every manifest that was looked for was there."""
        return not self._missing

    def find(self, digest: Digest) -> Reached | None:
        """Explore until the digest is found; None where nothing of the repository reaches it."""
        with self._lock:
            if digest not in self._known:
                self._retry_missing()
            while digest not in self._known and self._unread:
                self._read_next()
        return self._known.get(digest)

    def note(self, candidate: Candidate) -> None:
        """Read this manifest's children before others: it was just served, they will be asked for next."""
        with self._lock:
            self._read(candidate.descriptor, candidate.place)

    def all(self) -> Mapping[Digest, Reached]:
        """Everything the repository holds."""
        with self._lock:
            self._retry_missing()
            while self._unread:
                self._read_next()
        return self._known

    def referrers(self, subject: Digest) -> Sequence[Descriptor]:
        """Descriptors of the manifests whose subject this is, artifactType and annotations filled in."""
        self.all()
        return list(self._referrers.get(subject, {}).values())

    def _add(self, descriptor: Descriptor, near: Place, is_manifest: bool) -> None:
        before = self._known.get(descriptor.digest)
        if before is None:
            sizes = frozenset((descriptor.size,))
        elif descriptor.size in before.sizes and before.is_manifest >= is_manifest:
            return
        else:
            sizes = before.sizes | {descriptor.size}
            is_manifest = is_manifest or before.is_manifest
        self._known[descriptor.digest] = Reached(descriptor.media_type, sizes, near, is_manifest)
        if is_manifest and (before is None or not before.is_manifest):
            self._unread.append((descriptor, near))

    def _retry_missing(self) -> None:
        now = time.monotonic()
        if self._missing and now - self._missing_since > RETRY_MISSING_SECONDS:
            self._missing_since = now
            self._unread.extend(self._missing)
            self._missing.clear()

    def _read_next(self) -> None:
        descriptor, near = self._unread.popleft()
        self._read(descriptor, near)

    def _read(self, descriptor: Descriptor, near: Place) -> None:
        found = self._library.manifest(descriptor.digest, near, descriptor.media_type)
        if found is None:
            self._missing.append((descriptor, near))
            return
        for child in found.links.manifests:
            self._add(child, near, is_manifest=True)
        for child in found.links.blobs:
            self._add(child, near, is_manifest=False)
        if found.links.subject is not None:
            self._referrers.setdefault(found.links.subject, {})[descriptor.digest] = referrer(
                found.manifest, found.links
            )
