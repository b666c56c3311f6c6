"""How large a blob is by the manifests that list it: for upstreams whose answer does not tell."""

import heapq
from collections.abc import Callable

from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import ManifestLinks
from mirror.store.repository import CachedRepository

# Who asks for a blob has mostly just had the manifest that lists it.
_LATEST = 64

# Gives a manifest's bytes, or None where they are gone; may block.
ReadSmall = Callable[[Digest], bytes | None]


def listed_size(repository: CachedRepository, digest: Digest, read: ReadSmall) -> int | None:
    """What one of the latest manifests of the repository says of a blob, in bytes; None where none lists it. Blocks.

    Whoever can push a manifest can have it say anything.
    """
    _, manifests = repository.records()
    for record in heapq.nlargest(_LATEST, manifests.values(), key=lambda one: one.fetched_at):
        content = read(record.descriptor.digest)
        if content is None or digest.hex.encode() not in content:
            continue
        try:
            links = ManifestLinks.parse(content, record.descriptor.media_type)
        except ManifestInvalid:
            continue
        for listed in links.blobs:
            if listed.digest == digest:
                return listed.size
    return None
