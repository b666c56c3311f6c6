"""Reading local content: manifests with checked bytes, and where the bytes of a digest lie.

Everything here blocks, and is called from threads; what it keeps is bounded and guarded by locks.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

from cachetools import LRUCache

from mirror.logs import event
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES, Manifest, ManifestLinks
from mirror.sources.layout import blob_path
from mirror.sources.place import Member, Place
from mirror.sources.snapshot import Snapshot
from mirror.store.archive_file import Stamp
from mirror.store.body import BlobBody, FileSlice
from mirror.store.files import Unreadable, open_regular, raise_if_exhausted, read_exactly

log = logging.getLogger(__name__)

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """A manifest with checked bytes, and what it links to."""

    manifest: Manifest
    links: ManifestLinks


@dataclass(frozen=True, slots=True)
class _Location:
    """`size` is None where the whole file is the blob. Of an archive only the file with `stamp` is meant.

    `root` is None where the file is the cache's own.
    """

    path: str
    root: str | None
    place: Place
    offset: int = 0
    size: int | None = None
    stamp: Stamp | None = None

    @classmethod
    def member(cls, place: Place, member: Member) -> Self:
        """Inside an archive, or in its unpacked copy."""
        root = None if place.unpacked else place.root
        return cls(place.bytes_path, root, place, member.offset, member.size, place.stamp)

    @classmethod
    def blob_file(cls, place: Place, digest: Digest) -> Self:
        """In a layout folder."""
        return cls(blob_path(place.path, digest), place.root, place)


Verify = Callable[[Place, Digest], bool]


class _Kept:
    """What outlives a snapshot, and the lock that guards it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Manifests by digest never change: bounded by bytes, no expiry.
        self.manifests: LRUCache[Digest, ReadManifest] = LRUCache(
            64 * MIB, getsizeof=lambda found: 4 * len(found.manifest.content) + 2048
        )
        # What was said once of a broken file is not said again; bounded, since anything can be broken.
        self.said: LRUCache[str, bool] = LRUCache(10_000)


class Library:
    """The bytes of one snapshot. A new snapshot gets a new library; manifests, named by digest, move along."""

    def __init__(self, snapshot: Snapshot, before: "Library | None" = None, verify: Verify | None = None) -> None:
        self.snapshot = snapshot
        self._verify: Verify | None = verify or (before._verify if before else None)
        self._kept: _Kept = before._kept if before else _Kept()

    def cached_manifest(self, digest: Digest) -> ReadManifest | None:
        """The manifest, where it was read before. Does not block."""
        with self._kept.lock:
            return self._kept.manifests.get(digest)

    def manifest(self, digest: Digest, near: Place | None, media_type: str | None = None) -> ReadManifest | None:
        """The manifest with this digest, from the place `near` or any other; None where no right bytes are.

        `media_type` is what a descriptor says it is.
        """
        found = self.cached_manifest(digest)
        if found is not None:
            return found
        found = self.read_manifest(digest, near, media_type)
        if found is not None:
            with self._kept.lock:
                self._kept.manifests[digest] = found
        return found

    def read_manifest(self, digest: Digest, near: Place | None, media_type: str | None = None) -> ReadManifest | None:
        """As `manifest`, and not kept: for a reader of everything, whom nobody may follow."""
        content = self._right_content(digest, near)
        if content is None:
            return None
        try:
            links = ManifestLinks.parse(content, media_type)
        except ManifestInvalid as error:
            self._say_once("manifest_not_served", str(digest), reason=str(error.detail))
            return None
        return ReadManifest(Manifest(digest, links.media_type, content), links)

    def content(self, digest: Digest, near: Place | None, max_bytes: int) -> bytes | None:
        """The right bytes of a small blob such as a config, or None."""
        return self._right_content(digest, near, max_bytes)

    @contextmanager
    def blob(
        self, digest: Digest, near: Place | None, sizes: frozenset[int], *, verified: bool = True
    ) -> Iterator[BlobBody | None]:
        """The blob, open as long as the context is; None where no file of one of these sizes (bytes) holds it.

        `verified`: what an archive only claims is hashed first, which reads all of it.
        """
        generated = self.snapshot.pool.generated.get(digest)
        if generated is not None:
            yield generated
            return
        with ExitStack() as stack:
            for location in self._locations(digest, near):
                try:
                    found = stack.enter_context(self._open(location, digest, sizes, verified))
                except FileNotFoundError:
                    continue
                except Unreadable as error:
                    self._say_once("blob_not_served", location.path, digest=digest, reason=str(error))
                    continue
                yield found
                return
            yield None

    @contextmanager
    def _open(
        self, location: _Location, digest: Digest, sizes: frozenset[int] | None, verified: bool = True
    ) -> Iterator[FileSlice]:
        """The bytes at a location. Raises Unreadable, with the reason, where they are not to be served."""
        with open_regular(location.path, location.root) as (fd, status):
            if location.stamp is not None and Stamp.of(status) != location.stamp:
                raise Unreadable("the archive is no longer the one that was read")
            size = status.st_size if location.size is None else location.size
            if sizes is not None and size not in sizes:
                raise Unreadable(f"{size} bytes, its descriptor says {' or '.join(map(str, sorted(sizes)))}")
            if verified and self._verify is not None and not self._verify(location.place, digest):
                raise Unreadable("its bytes are not what the archive says of them")
            yield FileSlice(fd, location.offset, size, status.st_mtime_ns)

    def _right_content(self, digest: Digest, near: Place | None, max_bytes: int = MAX_MANIFEST_BYTES) -> bytes | None:
        generated = self.snapshot.pool.generated.get(digest)
        if generated is not None:
            return generated
        for location in self._locations(digest, near):
            try:
                with self._open(location, digest, None) as found:
                    if found.size > max_bytes:
                        raise Unreadable(f"{found.size} bytes, at most {max_bytes} are read")
                    content = read_exactly(found.fd, found.offset, found.size)
            except FileNotFoundError:
                continue
            except (Unreadable, OSError) as error:
                if isinstance(error, OSError):
                    raise_if_exhausted(error)
                self._say_once("blob_not_served", location.path, digest=digest, reason=str(error))
                continue
            if digest.matches(content):
                return content
            self._say_once("blob_not_served", location.path, digest=digest, reason="its bytes have another digest")
        return None

    def _locations(self, digest: Digest, near: Place | None) -> Iterator[_Location]:
        """Where the bytes may lie: near first, then the whole pool."""
        if near is not None and near.members is None:
            yield _Location.blob_file(near, digest)
        elif near is not None and near.members is not None and digest in near.members:
            yield _Location.member(near, near.members[digest])
        for place, member in self.snapshot.pool.copies(digest):
            if place is not near:
                yield _Location.member(place, member)
        for place in self.snapshot.pool.folders:
            if place is not near and os.path.lexists(blob_path(place.path, digest)):
                yield _Location.blob_file(place, digest)

    def _say_once(self, name: str, path: str, **fields: object) -> None:
        key = f"{name} {path} {fields.get('reason')}"
        with self._kept.lock:
            if key in self._kept.said:
                return
            self._kept.said[key] = True
        event(log, logging.WARNING, name, path=path, **fields)
