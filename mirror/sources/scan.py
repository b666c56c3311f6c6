"""Finding local content: walks the roots and says what lies there, reading no more than each place's index.

A scan blocks (folders, stats, small reads) and returns plain values; it runs beside the event loop.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mirror.oci.names import Host
from mirror.sources.archive import EXTENSIONS, ArchivePath
from mirror.sources.layout import MAX_INDEX_BYTES, LayoutBroken, check_layout_file, read_index
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.sources.shelf import Job, Shelf
from mirror.store.archive_file import Stamp
from mirror.store.files import Unreadable, is_inside, raise_if_exhausted, read_regular

# Deeper folders are a mistake or a trap; repository names end at 255 characters anyway.
MAX_DEPTH = 128
# Links make several paths to one folder; a few that point at each other make more than anyone could visit.
MAX_PATHS_TO_A_FOLDER = 16

Signature = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Root:
    """A folder of local content. `prefix` and `host` apply to the names of its places."""

    path: str
    prefix: str | None = None
    host: Host | None = None
    coalesce: bool = True


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not served, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Scan:
    """What one scan found; `changed` tells whether anything differs from the scan before.

    `jobs` is slow work that some archives need; when it is done, another scan finds more.
    """

    places: tuple[Place, ...]
    problems: tuple[Problem, ...]
    changed: bool
    jobs: tuple[Job, ...] = ()


@dataclass(slots=True)
class _Seen:
    """What was last read at a path, so that an unchanged place is not read again."""

    signature: Signature
    places: tuple[Place, ...] = ()
    problems: tuple[Problem, ...] = ()
    jobs: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder met on the way: its path as served, its path below the root, and the folders above it."""

    path: str
    parts: tuple[str, ...]
    ancestors: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Found:
    """A layout folder or an archive file; `parts` is its path below the root."""

    path: str
    parts: tuple[str, ...]
    is_archive: bool


@dataclass
class Scanner:
    """Scans the roots again and again, reading only what changed."""

    roots: Sequence[Root]
    own_hosts: frozenset[str] = frozenset()
    shelf: Shelf | None = None
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _problems: frozenset[Problem] = frozenset()

    def scan(self) -> Scan:
        """Everything that lies in the roots now.

        Never raises for what is found there. Raises OSError where this process has no more descriptors or memory:
        that nothing can be opened does not mean that nothing is there.
        """
        seen: dict[str, _Seen] = {}
        problems: list[Problem] = []
        for root in self.roots:
            if not os.path.isdir(root.path):
                problems.append(Problem(root.path, "no such folder"))
                continue
            namer = Namer(root.prefix, root.host, self.own_hosts)
            for found in self._walk(root, problems):
                if found.path not in seen:
                    read = self._archive if found.is_archive else self._layout
                    seen[found.path] = read(found, root, namer)
        for one in seen.values():
            problems.extend(one.problems)
        now = frozenset(problems)
        # A `_Seen` that was not read again is the same object as before.
        changed = now != self._problems or seen.keys() != self._seen.keys()
        changed = changed or any(self._seen[path] is not one for path, one in seen.items())
        self._seen, self._problems = seen, now
        places = tuple(place for one in seen.values() for place in one.places)
        if self.shelf is not None and changed:
            self.shelf.tidy(seen.keys())
        jobs = tuple(job for one in seen.values() for job in one.jobs)
        return Scan(places, tuple(sorted(now, key=str)), changed, jobs)

    def _walk(self, root: Root, problems: list[Problem]) -> Iterator[_Found]:
        """Every layout folder and archive below the root, in order of path."""
        real_root = os.path.realpath(root.path)
        waiting = [_Folder(root.path, (), frozenset())]
        visits: Counter[tuple[int, int]] = Counter()
        while waiting:
            folder = waiting.pop()
            try:
                status = os.stat(folder.path)
                with os.scandir(folder.path) as listing:
                    children = sorted(listing, key=lambda child: child.name)
            except OSError as error:
                raise_if_exhausted(error)
                problems.append(Problem(folder.path, error.strerror or "unreadable"))
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in folder.ancestors:
                continue  # a link back up
            visits[identity] += 1
            too_much = _too_much(len(folder.ancestors), visits[identity])
            if too_much:
                problems.append(Problem(folder.path, too_much))
                continue
            names = {child.name for child in children}
            is_layout = "index.json" in names and ("oci-layout" in names or "blobs" in names)
            if is_layout:
                yield _Found(folder.path, folder.parts, is_archive=False)
            ancestors = folder.ancestors | {identity}
            for child in reversed(children):
                if child.name.startswith(".") or (is_layout and child.name == "blobs"):
                    continue  # hidden names are for tools that are still writing
                parts = (*folder.parts, child.name)
                match _kind(child, real_root, problems):
                    case "folder":
                        waiting.append(_Folder(child.path, parts, ancestors))
                    case "archive" if self.shelf is not None:
                        yield _Found(child.path, parts, is_archive=True)
                    case _:
                        pass

    def _layout(self, folder: _Found, root: Root, namer: Namer) -> _Seen:
        before = self._seen.get(folder.path)
        try:
            index = os.stat(f"{folder.path}/index.json")
            signature = (index.st_mtime_ns, index.st_ctime_ns, index.st_size, index.st_ino)
        except OSError as error:
            raise_if_exhausted(error)
            return _Seen((), problems=(Problem(f"{folder.path}/index.json", error.strerror or "unreadable"),))
        if before is not None and before.signature == signature:
            return before
        try:
            place = self._read_layout(folder, root, namer, index.st_mtime_ns)
        except (LayoutBroken, Unreadable, OSError) as error:
            if isinstance(error, OSError):
                raise_if_exhausted(error)
            reason = str(error)
            if before is not None and before.places:
                reason += "; what it held before is still served"
            # An empty signature: a broken place is read again at the next scan.
            seen = _Seen((), before.places if before else (), (Problem(folder.path, reason),))
            return before if before == seen else seen
        return _Seen(signature, (place,), tuple(Problem(folder.path, reason) for reason in place.problems))

    def _archive(self, found: _Found, root: Root, namer: Namer) -> _Seen:
        before = self._seen.get(found.path)
        try:
            stamp = Stamp.of(os.stat(found.path))
        except OSError as error:
            raise_if_exhausted(error)
            return _Seen((), problems=(Problem(found.path, error.strerror or "unreadable"),))
        signature = (stamp.size, stamp.modified_ns, stamp.inode)
        if before is not None and before.signature == signature:
            return before
        assert self.shelf is not None  # noqa: S101 archives are looked for only with a shelf
        at = ArchivePath(found.path, os.path.realpath(root.path), found.parts, coalesce=root.coalesce)
        shelved = self.shelf.read(at, stamp, namer)
        reasons = dict.fromkeys(shelved.problems + tuple(r for place in shelved.places for r in place.problems))
        problems = tuple(Problem(found.path, reason) for reason in reasons)
        # An empty signature: looked at again at the next scan.
        seen = _Seen(signature if shelved.final else (), shelved.places, problems, shelved.jobs)
        return before if before == seen else seen

    def _read_layout(self, folder: _Found, root: Root, namer: Namer, modified_ns: int) -> Place:
        real_root = os.path.realpath(root.path)
        try:
            check_layout_file(read_regular(f"{folder.path}/oci-layout", 4096, real_root))
        except FileNotFoundError:
            raise LayoutBroken("no oci-layout file beside index.json") from None
        content = read_regular(f"{folder.path}/index.json", MAX_INDEX_BYTES, real_root)
        # A root that is itself a layout goes by its folder's name.
        name = namer.place(folder.parts or (os.path.basename(real_root),))
        entries, problems = read_index(content, namer, name)
        unnamed = any(not entry.namings for entry in entries)
        if name.problem and (unnamed or problems):
            problems = (name.problem, *problems)
        return Place(
            path=folder.path,
            root=real_root,
            name=name.name,
            entries=entries,
            modified_ns=modified_ns,
            plain=name.plain,
            coalesce=root.coalesce,
            problems=problems,
        )


def _too_much(depth: int, visits: int) -> str | None:
    """Why a folder is not looked into, where its path or its number of paths is beyond reason."""
    if depth > MAX_DEPTH:
        return f"more than {MAX_DEPTH} folders deep"
    if visits > MAX_PATHS_TO_A_FOLDER:
        return f"links make more than {MAX_PATHS_TO_A_FOLDER} paths to this folder"
    return None


def _kind(child: os.DirEntry[str], real_root: str, problems: list[Problem]) -> Literal["folder", "archive"] | None:
    """What a folder's entry is to a scan. A link that leads out of the root is a problem, with its mend."""
    try:
        if child.is_dir():
            kind: Literal["folder", "archive"] = "folder"
        elif child.name.lower().endswith(EXTENSIONS):
            kind = "archive"
        else:
            return None
        if not child.is_symlink():
            return kind
    except OSError:
        return None
    target = os.path.realpath(child.path)
    if is_inside(target, real_root):
        return kind
    problems.append(Problem(child.path, f"leads out of the root; add {target} to layouts to serve it"))
    return None
