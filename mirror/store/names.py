"""`names/`: what was fetched from which upstream repository, as plain files (design: `names/<host>/<repository>/`).

`host:5000` is written `host_5000`. No component of a repository begins with `_`, so what does is ours.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from cachetools import LRUCache

from mirror.oci.names import Host, Name, Repository, is_repository
from mirror.store.index import CacheIndex
from mirror.store.lists import ListMemory
from mirror.store.repository import CachedRepository

# Tags, manifests and links held in memory, at 200 to 500 bytes each.
MAX_ENTRIES = 200_000
_OURS = frozenset({"_index.json", "_journal", "_links", "_lists"})


class NameStore:
    """All cached repositories. `path` is the folder `names`; it is made by the first put."""

    def __init__(self, path: Path, index: CacheIndex, max_entries: int = MAX_ENTRIES) -> None:
        self.path = path
        self._index = index
        self._lists = ListMemory()
        self._lock = Lock()
        # A repository larger than all of it is kept alone: read anew for each request, it would never answer.
        self._repositories: LRUCache[Name, CachedRepository] = LRUCache(
            max_entries, getsizeof=lambda repository: min(repository.weight, max_entries)
        )

    def repository(self, name: Name) -> CachedRepository:
        """The repository, whether or not anything of it is cached. Reads nothing yet.

        Raises ValueError for a name that names no host.
        """
        with self._lock:
            found = self._repositories.get(name)
            if found is None:
                found = self._open(name)
                self._repositories[name] = found
            return found

    def peek(self, name: Name) -> CachedRepository:
        """The same for one who walks over all of them: memory is not filled with them."""
        with self._lock:
            found = self._repositories.get(name)
        return found or CachedRepository(name, self._folder(name), self._index, self._lists)

    def iterate(self) -> Iterator[Name]:
        """The names of all cached repositories. Walks folders: for a thread."""
        for host in _folders(str(self.path)):
            for repository in _repositories(f"{self.path}/{host}", ""):
                yield Name(Host(_decode_host(host)), repository)

    def fold(self) -> None:
        """Bring every `_index.json` held in memory up to date, for whoever reads the files next. Raises OSError."""
        with self._lock:
            repositories = list(self._repositories.values())
        for repository in repositories:
            repository.fold()

    def _open(self, name: Name) -> CachedRepository:
        return CachedRepository(name, self._folder(name), self._index, self._lists, self._weigh)

    def _weigh(self, repository: CachedRepository) -> None:
        with self._lock:
            if self._repositories.get(repository.name) is repository:
                self._repositories[repository.name] = repository

    def _folder(self, name: Name) -> Path:
        if name.host is None or not is_repository(name.repository):
            raise ValueError(f"{name} is no name of an upstream's repository")
        return self.path / _encode_host(name.host) / name.repository


def _encode_host(host: str) -> str:
    # No host has an underscore; some disks have no colon.
    return host.replace(":", "_")


def _decode_host(folder: str) -> str:
    return folder.replace("_", ":")


def _repositories(folder: str, prefix: str) -> Iterator[Repository]:
    for component in _folders(folder):
        repository = prefix + component
        if not is_repository(repository):
            continue
        inside = f"{folder}/{component}"
        if any(Path(inside, ours).exists() for ours in _OURS):
            yield Repository(repository)
        yield from _repositories(inside, repository + "/")


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("_") and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
