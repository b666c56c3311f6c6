"""Walking the roots: which folders are layouts, which files are archives. Nothing is opened, only listed."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mirror.sources.archive import EXTENSIONS
from mirror.sources.archive_folders import MANIFEST_JSON
from mirror.sources.scan_settings import Root
from mirror.store.files import is_inside, raise_if_exhausted

# Deeper folders are a mistake or a trap; repository names end at 255 characters anyway.
MAX_DEPTH = 128
# Links make several paths to one folder; a few that point at each other make more than anyone could visit.
MAX_PATHS_TO_A_FOLDER = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not served, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Found:
    """A layout folder or an archive file below the real path `real_root`; `parts` is its path below the root.

    `linked`: a layout's own files are symbolic links, which may yet lead out of the root. `saved`: beside them lies
    what `docker save` writes.
    """

    path: str
    parts: tuple[str, ...]
    real_root: str
    is_archive: bool
    linked: bool = False
    saved: bool = False


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder met on the way: its path as served, its path below the root, and the folders above it."""

    path: str
    parts: tuple[str, ...]
    ancestors: frozenset[tuple[int, int]]


def walk(root: Root, problems: list[Problem], *, archives: bool) -> Iterator[Found]:
    """Every layout folder and archive below the root, in order of path; what is wrong goes to `problems`.

    Raises OSError where this process has no more descriptors or memory.
    """
    real_root = os.path.realpath(root.path)
    waiting = [_Folder(root.path, (), frozenset())]
    visits: Counter[tuple[int, int]] = Counter()
    while waiting:
        folder = waiting.pop()
        try:
            children, identity = _list(folder)
        except OSError as error:
            raise_if_exhausted(error)
            problems.append(Problem(folder.path, error.strerror or "unreadable"))
            continue
        if identity in folder.ancestors:
            continue  # a link back up
        visits[identity] += 1
        too_much = _too_much(len(folder.ancestors), visits[identity])
        if too_much:
            problems.append(Problem(folder.path, too_much))
            continue
        is_layout = "index.json" in children and ("oci-layout" in children or "blobs" in children)
        if is_layout:
            linked = any(children[name].is_symlink() for name in ("index.json", "oci-layout") if name in children)
            saved = MANIFEST_JSON in children
            yield Found(folder.path, folder.parts, real_root, is_archive=False, linked=linked, saved=saved)
            if len(children) == 3 and "blobs" in children and "oci-layout" in children:
                continue  # the usual layout has nothing else
        ancestors = folder.ancestors | {identity}
        for name in sorted(children, reverse=True):
            if name.startswith(".") or (is_layout and name == "blobs"):
                continue  # hidden names are for tools that are still writing
            child = children[name]
            match _kind(child, real_root, problems):
                case "folder":
                    waiting.append(_Folder(child.path, (*folder.parts, name), ancestors))
                case "archive" if archives:
                    yield Found(child.path, (*folder.parts, name), real_root, is_archive=True)
                case _:
                    pass


def _list(folder: _Folder) -> tuple[dict[str, os.DirEntry[str]], tuple[int, int]]:
    status = os.stat(folder.path)
    with os.scandir(folder.path) as listing:
        return {child.name: child for child in listing}, (status.st_dev, status.st_ino)


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
