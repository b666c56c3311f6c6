"""A folder of local content looked at as the server looks at it, without a server."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository, split_host
from mirror.sources.adoption import find_homes
from mirror.sources.archive_reader import ArchiveReader
from mirror.sources.library import Library
from mirror.sources.scan import Scan, Scanner
from mirror.sources.scan_settings import Root
from mirror.sources.shelf import Shelf
from mirror.sources.snapshot import EMPTY, Snapshot
from mirror.sources.view import Meaning, View
from mirror.store.archive_file import BLOCK_BYTES
from mirror.store.archive_state import ArchiveState
from mirror.store.body import FileSlice
from mirror.store.files import read_exactly
from mirror.store.generated import GeneratedManifests

MAX_UNPACKED_BYTES = 4 * 1024 * 1024


class LocalFolder:
    """A context: `look` scans the roots, does the slow work that archives need, and shows what is served then."""

    def __init__(
        self, cache: Path, *roots: Root, own_hosts: frozenset[str] = frozenset(), tidies: bool = True
    ) -> None:
        self.state = ArchiveState(cache / "archives.db")
        self.shelf = Shelf(ArchiveReader(self.state, str(cache / "unpacked"), MAX_UNPACKED_BYTES), tidies)
        self.scanner = Scanner(roots, own_hosts, self.shelf)
        self._generated = GeneratedManifests(cache / "generated")
        self.view = View(Library(EMPTY, verify=self.shelf.verify), self._generated)
        self.last = Scan((), (), changed=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.state.close()

    def look(self) -> Self:
        """Scan until no slow work is left, and serve what was found."""
        scan = self.scanner.scan()
        done = set()
        while jobs := [job for job in scan.jobs if job not in done]:
            for job in jobs:
                self.shelf.work(job)
            done.update(jobs)
            scan = self.scanner.scan()
        self.last = scan
        library = Library(Snapshot.of(scan.places), self.view.library)
        homes = find_homes(library.snapshot, library)
        self.view = View(Library(Snapshot.of(scan.places, homes), library), self._generated, self.view)
        return self

    def tags(self, name: str) -> list[str]:
        return list(self.view.snapshot.repositories[named(name)].sorted_tags)

    def names(self) -> list[str]:
        return list(map(str, self.view.snapshot.names))

    def problems(self) -> Mapping[str, str]:
        """The reason by file name, of what is not served."""
        return {Path(problem.path).name: problem.reason for problem in self.last.problems}

    def meaning(self, name: str, reference: str) -> Meaning | None:
        repository = self.view.snapshot.repositories.get(named(name))
        found = self.view.resolve(repository, reference) if repository else None
        # Whatever else is wrong: a manifest is what its digest says.
        assert found is None or found.manifest.digest.matches(found.manifest.content)
        return found

    def digest(self, name: str, reference: str) -> Digest | None:
        found = self.meaning(name, reference)
        return found.manifest.digest if found else None

    def blob(self, name: str, digest: str) -> bytes | None:
        repository = self.view.snapshot.repositories[named(name)]
        with self.view.blob(repository, Digest.parse(digest)) as body:
            if isinstance(body, FileSlice):
                return read_exactly(body.fd, body.offset, body.size)
            assert body is None or isinstance(body, bytes)
            return body


def named(text: str) -> Name:
    host, repository = split_host(text)
    return Name(Host(host) if host else None, Repository(repository))


def root(path: Path, **more: Any) -> Root:
    path.mkdir(parents=True, exist_ok=True)
    return Root(str(path), **more)


def end_of_archive() -> bytes:
    return bytes(2 * BLOCK_BYTES)
