"""Local content as a source: scanned again and again, each scan's snapshot replacing the last in one step."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from cachetools import LRUCache

from mirror.logs import event
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import BlobUnknown, ManifestUnknown, NameUnknown
from mirror.oci.manifest import Manifest
from mirror.oci.names import Host, Name, Repository, familiar
from mirror.sources.adoption import find_homes
from mirror.sources.library import Library, ReadManifest
from mirror.sources.reach import Reach, Reached
from mirror.sources.scan import Problem, Scan, Scanner
from mirror.sources.snapshot import EMPTY, Candidate, LocalRepository, Snapshot
from mirror.sources.source import Found
from mirror.store.body import BlobBody, body_size

log = logging.getLogger(__name__)
T = TypeVar("T")


class Remembered(Protocol):
    """Canonical names that plain requests meant once; they outlive their content and this process."""

    def add(self, names: Iterable[str]) -> None: ...
    def refresh(self) -> bool: ...
    def __contains__(self, name: str) -> bool: ...


class View:
    """One snapshot with its library, and how far each of its repositories was explored."""

    def __init__(self, library: Library, before: "View | None" = None) -> None:
        self.library = library
        self.snapshot = library.snapshot
        # Explored repositories: bounded by count; one that is dropped is explored anew when asked.
        self._reaches: LRUCache[Name, Reach] = LRUCache(5_000)
        self._lock = threading.Lock()
        if before is not None:
            with before._lock:
                self._carry_over(before._reaches.items())

    def reach(self, repository: LocalRepository) -> Reach:
        """What the repository reaches, as far as it was explored. May be asked from any thread."""
        with self._lock:
            found = self._reaches.get(repository.name)
            if found is None:
                found = self._reaches[repository.name] = Reach(self.library, repository)
            return found

    def _carry_over(self, explored: Iterable[tuple[Name, Reach]]) -> None:
        """A repository whose manifests are as they were need not be explored again."""
        for name, reach in explored:
            repository = self.snapshot.repositories.get(name)
            if repository is not None and reach.still_holds(repository):
                self._reaches[name] = reach.moved_to(self.library)


class LocalContent:
    """A `Source` over layouts and archives. `generation` grows with every new snapshot."""

    def __init__(self, scanner: Scanner, remembered: Remembered, refresh_seconds: float) -> None:
        self._scanner = scanner
        self._remembered = remembered
        self._refresh_seconds = refresh_seconds
        self._view = View(Library(EMPTY))
        self._problems: frozenset[Problem] = frozenset()
        self._scanned = asyncio.Event()
        self._adopted = asyncio.Event()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.generation = 0

    @property
    def snapshot(self) -> Snapshot:
        """What is being served now."""
        return self._view.snapshot

    @property
    def problems(self) -> frozenset[Problem]:
        """What the last scan could not serve."""
        return self._problems

    @property
    def ready(self) -> bool:
        """Whether the first scan has ended."""
        return self._scanned.is_set()

    async def wait_ready(self) -> None:
        """Returns once the first scan has ended."""
        await self._scanned.wait()

    @property
    def complete(self) -> bool:
        """Whether every repository of the first scan is known, also those of entries without names."""
        return self._adopted.is_set()

    async def wait_complete(self) -> None:
        """Returns once `complete` is true."""
        await self._adopted.wait()

    def start(self) -> None:
        """Begin to scan, and go on every `refresh_seconds`."""
        self._task = asyncio.create_task(self._keep_scanning(), name="scan of local content")

    def rescan(self) -> None:
        """Scan now rather than at the next turn."""
        self._wanted.set()

    async def stop(self) -> None:
        """End the scanning; what was found is still served."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def plain_name(self, repository: Repository, default_host: Host | None) -> tuple[Name | None, bool]:
        """What a request that names no host means, and whether only local content may answer it.

        None where nothing may: local content had that name once, and a stranger's must not take its place.
        """
        plain = Name(None, repository)
        if plain in self.snapshot.repositories:
            return plain, True
        if str(plain) in self._remembered:
            return None, True
        if default_host is None:
            return plain, True
        name = Name(default_host, Repository(familiar(default_host, repository)))
        found = self.snapshot.repositories.get(name)
        if found is not None and found.plain:
            return name, True
        return (None, True) if str(name) in self._remembered else (name, False)

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        """See `Source.resolve`. A tag's manifest with wrong bytes is passed over for the next newest."""
        found = await self._ask(name, lambda view, repository: _resolve(view, repository, reference))
        if found is None:
            raise ManifestUnknown({"name": str(name), "reference": reference[:300]})
        return Found(found.manifest)

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        """See `Source.stat_blob`."""
        async with self.open_blob(name, digest) as found:
            return Found(body_size(found.value))

    @asynccontextmanager
    async def open_blob(self, name: Name, digest: Digest) -> AsyncIterator[Found[BlobBody]]:
        """See `Source.open_blob`. A manifest's bytes are a blob too."""
        view, reached = await self._reached(name, digest)
        opened = view.library.blob(digest, reached.near, reached.sizes)
        body = await asyncio.to_thread(opened.__enter__)
        try:
            if body is None:
                raise BlobUnknown({"name": str(name), "digest": digest})
            yield Found(body)
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
        return Found(await asyncio.to_thread(view.reach(repository).referrers, subject))

    async def _reached(self, name: Name, digest: Digest) -> tuple[View, Reached]:
        found = await self._ask(
            name,
            lambda view, repository: (
                (view, reached) if (reached := view.reach(repository).find(digest)) is not None else None
            ),
        )
        if found is None:
            raise BlobUnknown({"name": str(name), "digest": digest})
        return found

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
            raise NameUnknown({"name": str(name)})
        return view, repository

    async def _keep_scanning(self) -> None:
        while True:
            self._wanted.clear()
            try:
                await self._scan_once()
            except Exception:
                # A scan that fails in a way not foreseen must not end all scanning; what was found stays.
                log.exception("scan_failed")
            try:
                async with asyncio.timeout(self._refresh_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _scan_once(self) -> None:
        scan = await asyncio.to_thread(self._scanner.scan)
        self._remembered.refresh()
        if not scan.changed and self._adopted.is_set():
            return
        self._report(scan)
        first = Snapshot.of(scan.places)
        library = Library(first, self._view.library)
        if not self._scanned.is_set():
            # The first requests need not wait for the homes of entries without names.
            self._publish(library)
            self._scanned.set()
        homes = await asyncio.to_thread(find_homes, first, library)
        self._publish(Library(Snapshot.of(scan.places, homes), library))
        self._adopted.set()

    def _publish(self, library: Library) -> None:
        snapshot = library.snapshot
        self._remembered.add([str(name) for name, repository in snapshot.repositories.items() if repository.plain])
        self._view = View(library, self._view)
        self.generation += 1
        event(
            log,
            logging.INFO if snapshot.adopted else logging.DEBUG,
            "serving",
            repositories=len(snapshot.repositories),
            places=len(snapshot.places),
            tags=sum(len(repository.tags) for repository in snapshot.repositories.values()),
        )

    def _report(self, scan: Scan) -> None:
        now = frozenset(scan.problems)
        for problem in sorted(now - self._problems, key=str):
            event(log, logging.WARNING, "skipped", path=problem.path, reason=problem.reason)
        self._problems = now


def _resolve(view: View, repository: LocalRepository, reference: str) -> ReadManifest | None:
    reach = view.reach(repository)
    if not is_digest(reference):
        for candidate in repository.candidates(reference):
            found = _read(view.library, candidate)
            if found is not None:
                reach.note(candidate)
                return found
        return None
    digest = Digest(reference)
    reached = reach.find(digest)
    if reached is None or not reached.is_manifest:
        return None
    return view.library.manifest(digest, reached.near, reached.media_type)


def _read(library: Library, candidate: Candidate) -> ReadManifest | None:
    descriptor = candidate.descriptor
    return library.manifest(descriptor.digest, candidate.place, descriptor.media_type)
