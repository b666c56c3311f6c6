"""Finding local content: says what lies in the roots, reading no more than each place's index, and only what changed.

A scan blocks (folders, stats, small reads). `look` tells what differs from the look before, with places written down
as documents, so that others than those who serve them can do it (`ScanService`); `scan` is for who does both.
"""

import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mirror.sources.archive import ArchivePath
from mirror.sources.layout import MAX_INDEX_BYTES, LayoutBroken, check_layout_file, read_index
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.sources.place_document import write_places
from mirror.sources.places import Places
from mirror.sources.saved_folder import saved_tags
from mirror.sources.scan_settings import Root
from mirror.sources.shelf import Job, Shelf
from mirror.sources.walk import Found, Problem, walk
from mirror.store.archive_file import Stamp
from mirror.store.files import Unreadable, is_inside, raise_if_exhausted, read_regular

# The kernel's clock for files ticks every 1 to 10 ms: what was written this shortly before it was read may have been
# written again since, and look the same. So it is read again at the next scan.
_YOUNG_NS = 100_000_000

Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read at a path, so that an unchanged place is not read again.

    `signature` is of the file as it was then; an empty one matches nothing: to be read again at the next look.
    `document` is None where nothing could be read, so that what was read before still counts.
    """

    signature: Signature
    document: str | None = ""
    problems: tuple[Problem, ...] = ()
    jobs: tuple[Job, ...] = ()
    # The tars that compressed archives became: the cache may be emptied at any time.
    unpacked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found. `changed` has the documents of paths that came or changed, as `Places.hear` wants them.

    `order` are all paths in the order of the walk, None where none came or went. `problems` and `jobs` are those of
    now: `jobs` is slow work that some archives need; when it is done, another look finds more. `reads` is how many
    places were opened and read.
    """

    changed: Mapping[str, str | None]
    order: tuple[str, ...] | None
    problems: frozenset[Problem]
    jobs: tuple[Job, ...]
    reads: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies in the roots; `changed` tells whether other places do than at the scan before."""

    places: tuple[Place, ...]
    problems: tuple[Problem, ...]
    changed: bool
    jobs: tuple[Job, ...] = ()
    reads: int = 0


class PlaceMemory(Protocol):
    """What earlier processes read: an index, which may be lost at any time."""

    def load(self, roots: Sequence[Root], own_hosts: frozenset[str]) -> None: ...
    def recall(self, path: str, root: Root, signature: Signature) -> Seen | None: ...
    def unload(self) -> None: ...
    def save(self, seen: Mapping[str, tuple[Root, Seen]], all_paths: Iterable[str]) -> None: ...


@dataclass
class Scanner:
    """Looks through the roots again and again, reading only what changed."""

    roots: Sequence[Root]
    own_hosts: frozenset[str] = frozenset()
    shelf: Shelf | None = None
    memory: PlaceMemory | None = None
    _seen: dict[str, Seen] = field(default_factory=dict)
    _places: Places = field(default_factory=Places)
    _recalled: set[str] = field(default_factory=set)
    _unsaved: set[str] = field(default_factory=set)
    _save_due: bool = False
    _reads: int = 0

    def scan(self) -> Scan:
        """Everything that lies in the roots now. Raises as `look`."""
        look = self.look()
        for path, document in look.changed.items():
            self._places.hear(path, document)
        changed = self._places.take(look.order)
        return Scan(self._places.all, tuple(sorted(look.problems, key=str)), changed, look.jobs, look.reads)

    def look(self, tell: Callable[[str, str | None], None] | None = None) -> Look:
        """What differs from the look before; `tell` hears of each path and its document while that goes on.

        Never raises for what is found there. Raises OSError where this process has no more descriptors or memory:
        that nothing can be opened does not mean that nothing is there.
        """
        self._reads = 0
        self._recalled = set()
        before, problems = self._seen, set[Problem]()
        seen: dict[str, Seen] = {}
        changed: dict[str, str | None] = {}
        for path, now in self._walk(problems, seen):
            old = before.get(path)
            if old is None or (now is not old and now.document not in (None, old.document)):
                changed[path] = now.document
                if tell is not None:
                    tell(path, now.document)
            if now is not old:
                self._unsaved.add(path)
                if old is not None and now.document is None:
                    now = replace(now, document=old.document)  # noqa: PLW2901 what it held before still counts
            seen[path] = now
        same_paths = seen.keys() == before.keys()
        self._seen = seen
        self._unsaved -= self._recalled
        self._save_due |= bool(self._unsaved) or not same_paths
        problems.update(problem for one in seen.values() for problem in one.problems)
        jobs = tuple(job for one in seen.values() for job in one.jobs)
        # Not while a job may want a copy that lies there, of an archive that was moved. Every time else: what was
        # too young to go when its archive went is to go later.
        if self.shelf is not None and not jobs:
            self.shelf.tidy(seen.keys())
        return Look(changed, None if same_paths else tuple(seen), frozenset(problems), jobs, self._reads)

    def doubt(self, path: str) -> None:
        """The next look reads what lies there again, though its file is the same."""
        if path in self._seen:
            self._seen[path] = replace(self._seen[path], signature=())

    def save(self) -> None:
        """Let the memory have what it has not yet, for the next start."""
        if self.memory is None or not self._save_due:
            return
        paths, self._unsaved, self._save_due = self._unsaved, set(), False
        found: dict[str, tuple[Root, Seen]] = {}
        for path in paths & self._seen.keys():
            # Whichever of several roots it was found in first: with another, it would only not be recalled.
            root = next((root for root in self.roots if is_inside(path, root.path)), None)
            if root is not None:
                found[path] = (root, self._seen[path])
        self.memory.save(found, self._seen.keys())

    def _walk(self, problems: set[Problem], seen: Container[str]) -> Iterator[tuple[str, Seen]]:
        """Every path that is not among `seen` with what is there now; as it was seen before where nothing changed."""
        memory = self.memory if not self._seen else None
        if memory is not None:
            memory.load(self.roots, self.own_hosts)
        for root in self.roots:
            if not os.path.isdir(root.path):
                problems.add(Problem(root.path, "no such folder"))
                continue
            namer = Namer(root.prefix, root.host, self.own_hosts)
            wrong: list[Problem] = []
            for found in walk(root, wrong, archives=self.shelf is not None):
                if found.path not in seen:
                    read = self._archive if found.is_archive else self._layout
                    yield found.path, read(found, root, namer, memory)
            problems.update(wrong)
        if memory is not None:
            memory.unload()

    def _layout(self, folder: Found, root: Root, namer: Namer, memory: PlaceMemory | None) -> Seen:
        before = self._seen.get(folder.path)
        try:
            index = os.stat(f"{folder.path}/index.json")
        except OSError as error:
            raise_if_exhausted(error)
            problem = Problem(f"{folder.path}/index.json", error.strerror or "unreadable")
            return _unless_same(before, Seen((), problems=(problem,)))
        signature = (index.st_mtime_ns, index.st_ctime_ns, index.st_size, index.st_ino)
        if before is not None and before.signature == signature:
            return before
        if memory is not None and (recalled := memory.recall(folder.path, root, signature)) is not None:
            self._recalled.add(folder.path)
            return recalled
        self._reads += 1
        now_ns = time.time_ns()
        try:
            place = self._read_layout(folder, root, namer, index.st_mtime_ns)
        except (LayoutBroken, Unreadable, OSError) as error:
            if isinstance(error, OSError):
                raise_if_exhausted(error)
            reason = str(error)
            if before is not None and before.document:
                reason += "; what it held before is still served"
            return _unless_same(before, Seen((), None, (Problem(folder.path, reason),)))
        problems = tuple(Problem(folder.path, reason) for reason in place.problems)
        young = now_ns - max(index.st_mtime_ns, index.st_ctime_ns) < _YOUNG_NS
        return _unless_same(before, Seen(() if young else signature, write_places([place]), problems))

    def _archive(self, found: Found, root: Root, namer: Namer, memory: PlaceMemory | None) -> Seen:
        before = self._seen.get(found.path)
        try:
            stamp = Stamp.of(os.stat(found.path))
        except OSError as error:
            raise_if_exhausted(error)
            problem = Problem(found.path, error.strerror or "unreadable")
            return _unless_same(before, Seen((), problems=(problem,)))
        signature = (stamp.size, stamp.modified_ns, stamp.inode)
        if before is not None and before.signature == signature and all(map(os.path.exists, before.unpacked)):
            return before
        if memory is not None and (recalled := memory.recall(found.path, root, signature)) is not None:
            self._recalled.add(found.path)
            return recalled
        self._reads += 1
        assert self.shelf is not None  # noqa: S101 archives are looked for only with a shelf
        at = ArchivePath(found.path, found.real_root, found.parts, coalesce=root.coalesce)
        shelved = self.shelf.read(at, stamp, namer)
        reasons = dict.fromkeys(shelved.problems + tuple(r for place in shelved.places for r in place.problems))
        problems = tuple(Problem(found.path, reason) for reason in reasons)
        final = signature if shelved.final else ()
        unpacked = tuple({place.unpacked: None for place in shelved.places if place.unpacked})
        return _unless_same(before, Seen(final, write_places(shelved.places), problems, shelved.jobs, unpacked))

    def _read_layout(self, folder: Found, root: Root, namer: Namer, modified_ns: int) -> Place:
        # A path without links lies in the root; looking that up for each would cost more than reading them.
        inside = folder.real_root if folder.linked else None
        try:
            content = read_regular(f"{folder.path}/oci-layout", 4096, inside, follow=folder.linked)
        except FileNotFoundError:
            raise LayoutBroken("no oci-layout file beside index.json") from None
        check_layout_file(content)
        content = read_regular(f"{folder.path}/index.json", MAX_INDEX_BYTES, inside, follow=folder.linked)
        # A root that is itself a layout goes by its folder's name.
        name = namer.place(folder.parts or (os.path.basename(folder.real_root),))
        entries, problems = read_index(content, namer, name)
        if folder.saved and (repo_tags := saved_tags(folder.path, entries, inside)):
            entries, problems = read_index(content, namer, name, repo_tags)
        unnamed = any(not entry.namings for entry in entries)
        if name.problem and (unnamed or problems):
            problems = (name.problem, *problems)
        return Place(
            path=folder.path,
            root=folder.real_root,
            name=name.name,
            entries=entries,
            modified_ns=modified_ns,
            plain=name.plain,
            coalesce=root.coalesce,
            problems=problems,
        )


def _unless_same(before: Seen | None, now: Seen) -> Seen:
    """`before` itself where reading again found the same, so that nobody takes it for a change."""
    if before is None or now.document not in (None, before.document):
        return now
    if (now.problems, now.jobs, now.unpacked) != (before.problems, before.jobs, before.unpacked):
        return now
    # A young file that has come of age has a signature at last.
    return before if now.signature == before.signature else replace(before, signature=now.signature)
