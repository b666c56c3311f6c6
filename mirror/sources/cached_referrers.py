"""What refers to what among cached manifests: for while nobody can be asked for a list that was never had."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

from cachetools import LRUCache

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import Manifest, ManifestLinks, referrer
from mirror.store.repository import CachedRepository

# By digest, so never stale; forgetting one costs reading it again.
_MAX_KNOWN = 50_000


class _Referrer(NamedTuple):
    """What a manifest refers to, and how it is listed there."""

    subject: Digest
    listed: Descriptor


class CachedReferrers:
    """`read` gives a manifest's bytes, or None where they are gone; it may block."""

    def __init__(self, read: Callable[[Digest], bytes | None]) -> None:
        self._read = read
        # None: it refers to nothing.
        self._known: LRUCache[Digest, _Referrer | None] = LRUCache(_MAX_KNOWN)
        self._lock = Lock()

    def of(self, repository: CachedRepository, subject: Digest) -> Sequence[Descriptor]:
        """Those of the repository's manifests that refer to `subject`. Blocks: reads what it has not read before."""
        _, manifests = repository.records()
        found = (self._look(record.descriptor) for record in manifests.values())
        return [one.listed for one in found if one is not None and one.subject == subject]

    def _look(self, descriptor: Descriptor) -> _Referrer | None:
        digest = descriptor.digest
        with self._lock:
            if digest in self._known:
                return self._known[digest]
        content = self._read(digest)
        if content is None:
            return None
        found = _referrer(digest, content, descriptor.media_type)
        with self._lock:
            self._known[digest] = found
        return found


def _referrer(digest: Digest, content: bytes, media_type: str) -> _Referrer | None:
    try:
        links = ManifestLinks.parse(content, media_type)
    except ManifestInvalid:
        return None
    if links.subject is None:
        return None
    return _Referrer(links.subject, referrer(Manifest(digest, links.media_type, content), links))
