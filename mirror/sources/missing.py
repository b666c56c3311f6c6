"""Manifests and configs that local content lists and lacks (as sparse indexes do): that is normal, and told."""

import logging
from collections.abc import Set

from mirror.logs import event
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.snapshot import LocalRepository

log = logging.getLogger(__name__)


class Missing:
    """One line for each place, and another when other things are missing there."""

    def __init__(self) -> None:
        self._by_name: dict[Name, dict[str, set[Digest]]] = {}
        self._told: dict[str, set[Digest]] = {}

    def put(self, repository: LocalRepository, missing: Set[Digest]) -> None:
        """What is missing of a repository now."""
        self.drop(repository.name)
        for digest in missing:
            root = repository.roots.get(digest)
            place = root.place if root else repository.places[0]
            self._by_name.setdefault(repository.name, {}).setdefault(place.path, set()).add(digest)

    def drop(self, name: Name) -> None:
        """Nothing is missing of this repository, or all of it is gone."""
        self._by_name.pop(name, None)

    def tell(self) -> None:
        """Log what is new."""
        by_path: dict[str, set[Digest]] = {}
        for places in self._by_name.values():
            for path, missing in places.items():
                by_path.setdefault(path, set()).update(missing)
        for path, missing in by_path.items():
            if self._told.get(path) != missing:
                event(log, logging.WARNING, "incomplete", path=path, missing=len(missing), first=min(missing))
        self._told = by_path
