"""`_lists/`: the tag list and the referrers lists of a repository, as its upstream gave them, with their times."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

from cachetools import LRUCache

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.store.lines import replace_file
from mirror.store.records import format_time, parse_time

TAGS: Final = "tags"
# Which list: the tags, or what refers to a subject.
ListKind = Literal["tags"] | Digest

# A client may ask for the referrers of any digest it makes up; beyond this many the oldest quarter goes.
MAX_LISTS = 4096
_MEMORY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class CachedList:
    """A list as it was put, any JSON value; all who ask share it, unchanged. `fetched_at` in Unix seconds.

    What it lists is read from it once: a page of many thousands costs what one of few does.
    """

    document: Any
    fetched_at: float

    @property
    def is_empty(self) -> bool:
        """Whether nothing is listed: no `tags` and no `manifests` (distribution-spec 1.1, the two list answers)."""
        match self.document:
            case {"tags": [_, *_]} | {"manifests": [_, *_]} | [_, *_]:
                return False
        return True

    @cached_property
    def tags(self) -> Sequence[str] | None:
        """In the order in which they were put; None where the document is no list of tags."""
        match self.document:
            case {"tags": [*tags]}:
                return [tag for tag in tags if isinstance(tag, str)]
        return None

    @cached_property
    def referrers(self) -> Sequence[Descriptor] | None:
        """The same of what refers to a subject."""
        try:
            match self.document:
                case {"manifests": [*entries]}:
                    return [Descriptor.from_json(entry) for entry in entries]
        except ManifestInvalid:
            pass
        return None


_Stamp = tuple[int, int, int]


class ListMemory:
    """Lists that were read, by path and file: bounded by bytes, shared by all repositories of a process."""

    def __init__(self, max_bytes: int = _MEMORY_BYTES) -> None:
        self._entries: LRUCache[str, tuple[_Stamp, CachedList | None]] = LRUCache(
            # The document, and what was read from it.
            max_bytes,
            getsizeof=lambda entry: 500 + 8 * entry[0][1],
        )
        self._lock = Lock()

    def get(self, path: str, stamp: _Stamp) -> tuple[CachedList | None] | None:
        with self._lock:
            found = self._entries.get(path)
        return (found[1],) if found is not None and found[0] == stamp else None

    def put(self, path: str, stamp: _Stamp, found: CachedList | None) -> None:
        with self._lock:
            if self._entries.getsizeof((stamp, found)) <= self._entries.maxsize:
                self._entries[path] = (stamp, found)


class Lists:
    """The `_lists/` of one repository. Writers hold the repository's lock."""

    def __init__(self, folder: Path | str, memory: ListMemory, max_lists: int = MAX_LISTS) -> None:
        self._folder = str(folder)
        self._memory = memory
        self._max_lists = max_lists
        self._count: int | None = None

    def get(self, kind: ListKind) -> CachedList | None:
        """The list that was last put; one stat where it is in memory."""
        path = self._path(kind)
        try:
            now = os.stat(path)
        except OSError:
            return None
        stamp = (now.st_ino, now.st_size, now.st_mtime_ns)
        known = self._memory.get(path, stamp)
        if known is None:
            known = (_read(path),)
            self._memory.put(path, stamp, known[0])
        return known[0]

    def pending_bytes(self, kind: ListKind) -> int:
        """How many bytes `get` would have to parse."""
        path = self._path(kind)
        try:
            now = os.stat(path)
        except OSError:
            return 0
        return 0 if self._memory.get(path, (now.st_ino, now.st_size, now.st_mtime_ns)) else now.st_size

    def put(self, kind: ListKind, document: Any, fetched_at: float) -> None:
        """Publish a list by rename; the caller holds the lock. Raises OSError."""
        folder = Path(self._folder)
        folder.mkdir(exist_ok=True)
        path = self._path(kind)
        if not Path(path).exists():
            self._make_room(folder)
        content = json.dumps({"fetched": format_time(fetched_at), "document": document}, separators=(",", ":"))
        replace_file(path, content.encode())

    def remove(self, kind: ListKind) -> None:
        Path(self._path(kind)).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder; the caller holds the lock."""
        folder = Path(self._folder)
        if folder.is_dir():
            for file in list(folder.iterdir()):
                file.unlink(missing_ok=True)
            folder.rmdir()
        self._count = None

    def _make_room(self, folder: Path) -> None:
        if self._count is None or self._count >= self._max_lists:
            files = [file for file in folder.iterdir() if file.name != "tags.json"]
            if len(files) >= self._max_lists:
                files.sort(key=lambda file: file.stat().st_mtime_ns)
                for file in files[: self._max_lists // 4]:
                    file.unlink(missing_ok=True)
                del files[: self._max_lists // 4]
            self._count = len(files)
        self._count += 1

    def _path(self, kind: ListKind) -> str:
        name = f"referrers-{kind.fallback_tag}" if isinstance(kind, Digest) else "tags"
        return f"{self._folder}/{name}.json"


def _read(path: str) -> CachedList | None:
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or "document" not in document:
        return None
    fetched = document.get("fetched")
    return CachedList(document["document"], parse_time(fetched if isinstance(fetched, str) else None))
