"""Local content as a source: scanned again and again, each scan's snapshot replacing the last in one step."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from mirror.logs import event
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import BlobUnknown, ManifestUnknown, NameNotYetKnown, NameUnknown
from mirror.oci.manifest import Manifest
from mirror.oci.names import DOCKER_HUB, Host, Name, Repository, familiar
from mirror.sources.adoption import Adoption, Stamp, changed
from mirror.sources.heap import settle, uncollected
from mirror.sources.library import Library, Verify
from mirror.sources.place import Place
from mirror.sources.reach import RETRY_MISSING_SECONDS
from mirror.sources.scan_feed import Heard
from mirror.sources.scan_loop import ScanLoop, Scans
from mirror.sources.snapshot import EMPTY, LocalRepository, Snapshot
from mirror.sources.source import GENERATED_WARNING, LOCAL, Found, Origin
from mirror.sources.view import View
from mirror.store.body import BlobBody, body_size
from mirror.store.generated import GeneratedManifests
from mirror.store.threads import acquire

log = logging.getLogger(__name__)
T = TypeVar("T")

GENERATED = Origin(warnings=(GENERATED_WARNING,))


class Remembered(Protocol):
    """Canonical names that plain requests meant once; they outlive their content and this process."""

    def add(self, names: Iterable[str]) -> None: ...
    def refresh(self) -> bool: ...
    def __contains__(self, name: str) -> bool: ...


class LocalContent:
    """A `Source` over layouts and archives. `generation` grows with every new snapshot.

    `tells`: whether it logs what every one of several workers finds.
    """

    def __init__(
        self,
        scans: Scans,
        remembered: Remembered,
        generated: GeneratedManifests,
        verify: Verify | None = None,
        *,
        tells: bool = True,
    ) -> None:
        self._scans = ScanLoop(scans)
        self._remembered = remembered
        self._generated = generated
        self._verify = verify
        self._tells = tells
        self._view = View(Library(EMPTY, verify=self._verified), generated)
        self._adoption = Adoption()
        self._told_local_only: frozenset[str] = frozenset()
        # Whether a scan found changes that are not served yet; it stays so where serving them failed.
        self._behind = False
        self._scanned = asyncio.Event()
        self._adopted = asyncio.Event()
        self._unpacking = False
        self._unread: Mapping[str, Stamp] = {}
        self.generation = 0

    @property
    def snapshot(self) -> Snapshot:
        """What is being served now."""
        return self._view.snapshot

    @property
    def view(self) -> View:
        """The same, with what was learnt of it. Asking it blocks."""
        return self._view

    @property
    def ready(self) -> bool:
        """Whether the first scan has ended."""
        return self._scanned.is_set()

    async def wait_ready(self) -> None:
        """Returns once the first scan has ended."""
        await self._scanned.wait()

    async def wait_named(self, host: Host | None, repository: Repository) -> None:
        """Returns once it is known what a request for this name means.

        An entry without a name may give its place's name to a repository: where no host is named, and no name of
        the first scan is meant, it must have found its home, or a stranger would answer in between.
        """
        await self._scanned.wait()
        if host is None and Name(None, repository) not in self.snapshot.repositories:
            await self._adopted.wait()

    @property
    def complete(self) -> bool:
        """Whether every repository of the first scan is known, also those of entries without names."""
        return self._adopted.is_set()

    async def wait_complete(self) -> None:
        """Returns once `complete` is true."""
        await self._adopted.wait()

    def start(self) -> None:
        """Begin to follow the scans."""
        self._scans.start(self._take)

    def rescan(self) -> None:
        """Have the folders looked through now rather than at the next turn."""
        self._scans.rescan()

    async def stop(self) -> None:
        """Follow no more; what was found is still served."""
        await self._scans.stop()

    def unknown(self, name: str, reason: str | None = None) -> NameUnknown:
        """The error for a name that is not here; it may yet turn up in an archive that was never unpacked."""
        detail = {"name": name} | ({"reason": reason} if reason else {})
        return NameNotYetKnown(detail) if self._unpacking else NameUnknown(detail)

    def plain_name(self, repository: Repository, default_host: Host | None) -> tuple[Name | None, bool]:
        """What a request that names no host means, and whether only local content may answer it.

        None where nothing may: local content had that name once, and a stranger's must not take its place.
        """
        plain = Name(None, repository)
        if plain in self.snapshot.repositories:
            return plain, True
        # What names no host itself is written down as Docker reads it, whatever is the default host here.
        read = Name(DOCKER_HUB, Repository(familiar(DOCKER_HUB, repository)))
        found = self.snapshot.repositories.get(read)
        if found is not None and found.plain:
            return read, True
        if str(plain) in self._remembered or str(read) in self._remembered:
            return None, True
        if default_host is None:
            return plain, True
        return Name(default_host, Repository(familiar(default_host, repository))), False

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        """See `Source.resolve`. A tag's manifest with wrong bytes is passed over for the next newest."""
        found = await self._ask(name, lambda view, repository: view.resolve(repository, reference))
        if found is None:
            raise ManifestUnknown({"name": str(name), "reference": reference[:300]})
        return Found(found.manifest, _standing(GENERATED if found.generated else LOCAL, found.whole))

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        """See `Source.stat_blob`."""
        async with self._opened(name, digest, verified=False) as body:
            return Found(body_size(body))

    @asynccontextmanager
    async def open_blob(self, name: Name, digest: Digest) -> AsyncIterator[Found[BlobBody]]:
        """See `Source.open_blob`. A manifest's bytes are a blob too."""
        async with self._opened(name, digest, verified=True) as body:
            yield Found(body)

    @asynccontextmanager
    async def _opened(self, name: Name, digest: Digest, *, verified: bool) -> AsyncIterator[BlobBody]:
        if not await self._ask(name, lambda view, repository: view.holds(repository, digest) or None):
            raise BlobUnknown({"name": str(name), "digest": digest})
        view, repository = await self._repository(name)
        opened = view.blob(repository, digest, verified=verified)
        body = await acquire(opened.__enter__, lambda _: opened.__exit__(None, None, None))
        try:
            if body is None:
                raise BlobUnknown({"name": str(name), "digest": digest})
            yield body
        finally:
            opened.__exit__(None, None, None)  # closing a file that was only read does not wait for the disk

    async def tags(self, name: Name, last: str, limit: int | None) -> Found[Sequence[str]]:
        """See `Source.tags`."""
        _, repository = await self._repository(name)
        return Found(repository.page(last, limit))

    async def referrers(self, name: Name, subject: Digest) -> Found[Sequence[Descriptor]]:
        """See `Source.referrers`."""
        await self._adopted.wait()
        view, repository = await self._repository(name)
        reach = view.reach(repository)
        found = await asyncio.to_thread(reach.referrers, subject)
        return Found(found, _standing(LOCAL, reach.complete))

    async def _ask(self, name: Name, question: Callable[[View, LocalRepository], T | None]) -> T | None:
        """Ask the repository, in a thread; once more when entries without names have found their homes."""
        view, repository = await self._repository(name)
        found = await asyncio.to_thread(question, view, repository)
        if found is None and not view.snapshot.adopted:
            await self._adopted.wait()
            found = await asyncio.to_thread(question, *await self._repository(name))
        return found

    async def _repository(self, name: Name) -> tuple[View, LocalRepository]:
        await self._scanned.wait()
        view = self._view
        if name not in view.snapshot.repositories and not view.snapshot.adopted:
            await self._adopted.wait()
            view = self._view
        repository = view.snapshot.repositories.get(name)
        if repository is None:
            raise self.unknown(str(name))
        return view, repository

    async def _take(self, heard: Heard) -> None:
        """Serve what a scan found, where that is new."""
        if await asyncio.to_thread(self._remembered.refresh):
            # What was forgotten while it is here is seen again.
            await asyncio.to_thread(self._remembered.add, self.snapshot.plain_names)
        # What was unpacked is known to nobody before it is published: till then its names may yet turn up.
        self._unpacking |= heard.unpacking
        self._behind |= heard.changed or await asyncio.to_thread(changed, self._unread)
        if self._behind or not self._adopted.is_set():
            with uncollected():
                await self._serve(heard.places)
        self._behind = False
        self._unpacking = heard.unpacking

    async def _serve(self, places: Sequence[Place]) -> None:
        """Make what was found the snapshot that is served."""
        # Half a second for 50,000 entries: never in the event loop.
        before = self._view.library
        first = await asyncio.to_thread(Snapshot.of, places, None, before.snapshot)
        library = Library(first, before)
        if not self._scanned.is_set():
            # The first requests need not wait for the homes of entries without names.
            await self._publish(library)
            self._scanned.set()
        adopted = await asyncio.to_thread(self._adoption.adopt, first, library)
        self._unread = adopted.unread
        snapshot = await asyncio.to_thread(Snapshot.of, places, adopted.homes, first)
        await self._publish(Library(snapshot, library))
        if not self._adopted.is_set():
            settle()
        self._adopted.set()

    def _verified(self, place: Place, digest: Digest) -> bool:
        """Whether bytes are what an archive claims; where not, what they are part of is withdrawn."""
        right = self._verify is None or self._verify(place, digest)
        if not right:
            self._scans.doubt(place.path)
        return right

    async def _publish(self, library: Library) -> None:
        snapshot = library.snapshot
        self._view = await asyncio.to_thread(self._prepare, library)
        self.generation += 1
        event(
            log,
            logging.INFO if snapshot.adopted and self._tells else logging.DEBUG,
            "serving",
            repositories=len(snapshot.repositories),
            places=len(snapshot.places),
            tags=snapshot.tag_count,
        )
        self._tell_local_only(snapshot)

    def _tell_local_only(self, snapshot: Snapshot) -> None:
        """Names whose requests without a host are never completed from an upstream: who misses a tag should know."""
        names = frozenset(snapshot.plain_names)
        if self._tells and snapshot.adopted and names != self._told_local_only:
            self._told_local_only = names
            shown = ", ".join(sorted(names)[:20]) + (", …" if len(names) > 20 else "")
            event(log, logging.INFO, "local_only_without_a_host", count=len(names), names=shown)

    def _prepare(self, library: Library) -> View:
        """What would keep the event loop: names to be remembered, lists to be sorted, what is known to be kept."""
        snapshot = library.snapshot
        # Before anybody can see them: a name that was answered once is never forgotten by a crash.
        self._remembered.add(snapshot.plain_names)
        snapshot.prepare(self._view.snapshot)
        return View(library, self._generated, self._view, tells=self._tells)


def _standing(origin: Origin, complete: bool) -> Origin:
    """An answer that misses something stands for a moment only: a copy may still bring it, and no index changes."""
    return origin if complete else replace(origin, fresh_until=time.monotonic() + RETRY_MISSING_SECONDS)
