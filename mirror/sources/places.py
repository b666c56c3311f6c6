"""All places that were found, in order; what has not changed stays the same object."""

from collections.abc import Sequence

from mirror.sources.place import Place
from mirror.sources.place_document import read_places


class Places:
    """Follows a scanner, in its process or in another: `hear` what changed, then `take` it over into `all`."""

    def __init__(self) -> None:
        self._by_path: dict[str, tuple[Place, ...]] = {}
        self._heard: dict[str, tuple[Place, ...]] = {}
        self.all: tuple[Place, ...] = ()

    def hear(self, path: str, document: str | None) -> None:
        """The document of a path that came or changed, or None: it cannot be read, and what it held still counts."""
        before = self._by_path.get(path, ())
        places = before if document is None else read_places(path, document)
        self._heard[path] = before if before == places else places

    def take(self, order: Sequence[str] | None) -> bool:
        """Count what was heard; `order` are all paths where others are there now. Whether that changed anything."""
        heard, self._heard = self._heard, {}
        if order is None and all(self._by_path.get(path) is places for path, places in heard.items()):
            return False
        known = self._by_path | heard
        self._by_path = known if order is None else {path: known[path] for path in order}
        return self._gather()

    def unhear(self) -> None:
        """Who told it broke off: it will be told again."""
        self._heard = {}

    def _gather(self) -> bool:
        """`all` anew; the same object as before where every place is, since others compare it so."""
        before, self.all = self.all, tuple([place for places in self._by_path.values() for place in places])
        if len(before) == len(self.all) and all(one is other for one, other in zip(before, self.all, strict=True)):
            self.all = before
            return False
        return True
