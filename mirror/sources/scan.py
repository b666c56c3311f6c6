"""Finding local content: says what lies in the roots, reading no more than each place's index, and only what changed.

A scan blocks (folders, stats, small reads) and deals in plain values, so that it can run in another process: `look`
finds what differs from what is known, `apply` makes it known. The two may happen in different processes.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mirror.sources.archive import ArchivePath
from mirror.sources.layout import MAX_INDEX_BYTES, LayoutBroken, check_layout_file, read_index
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.sources.saved_folder import saved_tags
from mirror.sources.shelf import Job, Shelf
from mirror.sources.walk import Found, Problem, Root, walk
from mirror.store.archive_file import Stamp
from mirror.store.files import Unreadable, is_inside, raise_if_exhausted, read_regular

# The kernel's clock for files ticks every 1 to 10 ms: what was written this shortly before it was read may have been
# written again since, and look the same. So it is read again at the next scan.
_YOUNG_NS = 100_000_000

Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read at a path, so that an unchanged place is not read again.

    `signature` is of the file as it was then; an empty one matches nothing: to be read again at the next scan.
    `places` is None where they are those of before, or are known to somebody else.
    """

    signature: Signature
    places: tuple[Place, ...] | None = ()
    problems: tuple[Problem, ...] = ()
    jobs: tuple[Job, ...] = ()
    # The tars that compressed archives became: the cache may be emptied at any time.
    unpacked: tuple[str, ...] = ()

    def without_places(self) -> "Seen":
        """What another process must know, to tell what changed."""
        return replace(self, places=None) if self.signature else self


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from what was known. `order` are all paths in the order of the walk, None where none came or went.

    `problems` are all problems of the walk; `reads` is how many places were opened and read.
    """

    changed: Mapping[str, Seen]
    order: tuple[str, ...] | None
    problems: frozenset[Problem]
    reads: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What one scan found; `changed` tells whether anything differs from the scan before.

    `jobs` is slow work that some archives need; when it is done, another scan finds more.
    """

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
    """Scans the roots again and again, reading only what changed."""

    roots: Sequence[Root]
    own_hosts: frozenset[str] = frozenset()
    shelf: Shelf | None = None
    memory: PlaceMemory | None = None
    _seen: dict[str, Seen] = field(default_factory=dict)
    _problems: frozenset[Problem] = frozenset()
    _last: Scan | None = None
    _recalled: set[str] = field(default_factory=set)
    _unsaved: set[str] = field(default_factory=set)
    _save_due: bool = False
    _reads: int = 0

    def scan(self) -> Scan:
        """Everything that lies in the roots now.

        Never raises for what is found there. Raises OSError where this process has no more descriptors or memory:
        that nothing can be opened does not mean that nothing is there.
        """
        return self.apply(self.look())

    def look(self) -> Changes:
        """What differs from what is known. Raises as `scan`."""
        self._reads = 0
        memory = self.memory if not self._seen else None
        if memory is not None:
            memory.load(self.roots, self.own_hosts)
        seen: dict[str, Seen] = {}
        problems: list[Problem] = []
        for root in self.roots:
            if not os.path.isdir(root.path):
                problems.append(Problem(root.path, "no such folder"))
                continue
            namer = Namer(root.prefix, root.host, self.own_hosts)
            for found in walk(root, problems, archives=self.shelf is not None):
                if found.path not in seen:
                    read = self._archive if found.is_archive else self._layout
                    seen[found.path] = read(found, root, namer, memory)
        if memory is not None:
            memory.unload()
        changed = {path: one for path, one in seen.items() if self._seen.get(path) is not one}
        order = None if seen.keys() == self._seen.keys() else tuple(seen)
        return Changes(changed, order, frozenset(problems), self._reads)

    def apply(self, changes: Changes) -> Scan:
        """Make what was found known."""
        before, problems_before = self._seen, self._problems
        self._seen = _merged(before, changes)
        self._problems = changes.problems
        self._unsaved |= changes.changed.keys() - self._recalled
        self._save_due |= bool(self._unsaved) or changes.order is not None
        self._recalled = set()
        # A place that was read again and is the same was no change.
        same_places = all(path in before and _is_same(before[path], self._seen[path]) for path in changes.changed)
        if self._last and same_places and changes.order is None and changes.problems == problems_before:
            self._last = replace(self._last, changed=False, reads=changes.reads)
        else:
            self._last = self._scan(changes)
        # Not while a job may want a copy that lies there, of an archive that was moved. Every time else: what was
        # too young to go when its archive went is to go later.
        if self.shelf is not None and not self._last.jobs:
            self.shelf.tidy(self._seen.keys())
        return self._last

    def _scan(self, changes: Changes) -> Scan:
        seen = self._seen.values()
        return Scan(
            tuple(place for one in seen for place in one.places or ()),
            tuple(sorted(changes.problems.union(*(one.problems for one in seen if one.problems)), key=str)),
            changed=True,
            jobs=tuple(job for one in seen for job in one.jobs),
            reads=changes.reads,
        )

    def known(self) -> dict[str, Seen]:
        """What another process must be told (`know`) so that its `look` finds what is new to this one."""
        return {path: one.without_places() for path, one in self._seen.items()}

    def know(self, known: Mapping[str, Seen]) -> None:
        """Take over what another process knows."""
        self._seen = dict(known)

    def note(self, changes: Changes) -> None:
        """As `apply`, where the places themselves are another process's to keep."""
        if changes.order is not None:
            self._seen = {path: changes.changed.get(path) or self._seen[path] for path in changes.order}
        for path, one in changes.changed.items():
            self._seen[path] = one.without_places()

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
            held = before is not None and before.places != ()
            if held:
                reason += "; what it held before is still served"
            return _unless_same(before, Seen((), None if held else (), (Problem(folder.path, reason),)))
        problems = tuple(Problem(folder.path, reason) for reason in place.problems)
        young = now_ns - max(index.st_mtime_ns, index.st_ctime_ns) < _YOUNG_NS
        return _unless_same(before, Seen(() if young else signature, (place,), problems))

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
        return _unless_same(before, Seen(final, shelved.places, problems, shelved.jobs, unpacked))

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
        if repo_tags := saved_tags(folder.path, entries, inside):
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


def _merged(before: Mapping[str, Seen], changes: Changes) -> dict[str, Seen]:
    """All that is seen now. Places that are equal to those of before stay the same objects."""
    order = before.keys() if changes.order is None else changes.order
    seen: dict[str, Seen] = {}
    for path in order:
        one, old = changes.changed.get(path), before.get(path)
        if one is None:
            one = before[path]
        elif one.places is None or (old is not None and one.places == old.places):
            one = replace(one, places=old.places if old else ())
        seen[path] = one
    return seen


def _is_same(before: Seen, now: Seen) -> bool:
    return before.places is now.places and (before.problems, before.jobs) == (now.problems, now.jobs)


def _unless_same(before: Seen | None, now: Seen) -> Seen:
    """`before` itself where reading again found the same, so that nobody takes it for a change."""
    if before is None or (before.signature and now.places is not None):
        return now
    same_places = now.places is None or now.places == before.places
    if same_places and (now.problems, now.jobs) == (before.problems, before.jobs) and not before.signature:
        # A young file that has come of age has a signature at last; its places stay the same objects.
        return replace(before, signature=now.signature) if now.signature else before
    return now
