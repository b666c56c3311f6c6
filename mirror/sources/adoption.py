"""Where manifests without a name belong: signatures, SBOMs and whatever else a layout lists untagged."""

from collections.abc import Iterable, Mapping, Sequence

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.library import Library
from mirror.sources.place import Entry, Place
from mirror.sources.snapshot import Snapshot

Homes = Mapping[Digest, Sequence[Name]]
_Holders = dict[Digest, set[Name]]


def find_homes(snapshot: Snapshot, library: Library) -> Homes:
    """The repositories of each entry without a name. Blocks: reads those entries, and indexes beside them.

    An entry belongs to the repositories of its place that reach it or hold its subject; failing that, to every
    local repository that holds its subject; failing that, to the place's own name.
    """
    unnamed = list(snapshot.unnamed())
    if not unnamed:
        return {}
    return _Adoption(snapshot, library).run(unnamed)


class _Adoption:
    def __init__(self, snapshot: Snapshot, library: Library) -> None:
        self._snapshot = snapshot
        self._library = library
        self._held: dict[int, _Holders] = {}
        self._homes: dict[Digest, set[Name]] = {}

    def run(self, unnamed: Sequence[tuple[Place, Entry]]) -> Homes:
        waiting = [(place, entry, self._subject(place, entry)) for place, entry in unnamed]
        # What refers to nothing belongs to its place at once; what refers to it may then follow it there.
        for place, entry, subject in waiting:
            if subject is None and not self._holders(place).get(entry.descriptor.digest):
                self._settle(place, entry, [place.name] if place.name else [])
        orphans = [one for one in waiting if one[2] is not None]
        for in_place in (True, False):
            orphans = self._follow_subjects(orphans, in_place)
        for place, entry, _ in orphans:
            self._settle(place, entry, [place.name] if place.name else [])
        return {digest: sorted(names, key=str) for digest, names in self._homes.items()}

    def _follow_subjects(
        self, orphans: Sequence[tuple[Place, Entry, Digest | None]], in_place: bool
    ) -> list[tuple[Place, Entry, Digest | None]]:
        """Settle what can be; again and again, since a referrer may have referrers. Returns the rest."""
        everywhere: _Holders = {}
        if not in_place and orphans:
            for place in self._snapshot.places:
                for digest, names in self._holders(place).items():
                    everywhere.setdefault(digest, set()).update(names)
        remaining = list(orphans)
        settled = True
        while settled and remaining:
            settled, left = False, []
            for place, entry, subject in remaining:
                holders = self._holders(place)
                if entry.descriptor.digest in holders and in_place:
                    settled = True  # reached by a named index of its place: found there by walking
                    continue
                homes = (holders if in_place else everywhere).get(subject) if subject else None
                if homes:
                    self._settle(place, entry, homes)
                    everywhere.setdefault(entry.descriptor.digest, set()).update(homes)
                    settled = True
                else:
                    left.append((place, entry, subject))
            remaining = left
        return remaining

    def _settle(self, place: Place, entry: Entry, homes: Iterable[Name]) -> None:
        names = set(homes)
        self._homes.setdefault(entry.descriptor.digest, set()).update(names)
        for digest in self._walk(place, entry.descriptor):
            self._holders(place).setdefault(digest, set()).update(names)

    def _holders(self, place: Place) -> _Holders:
        """Which names of the place hold which manifests: those listed, and those that listed indexes list."""
        found = self._held.get(id(place))
        if found is None:
            found = self._held[id(place)] = {}
            for entry in place.entries:
                names = {naming.name for naming in entry.namings}
                for digest in self._walk(place, entry.descriptor) if names else ():
                    found.setdefault(digest, set()).update(names)
        return found

    def _walk(self, place: Place, root: Descriptor) -> Iterable[Digest]:
        waiting, seen = [root], {root.digest}
        while waiting:
            descriptor = waiting.pop()
            if media_types.is_manifest(descriptor.media_type) and not media_types.is_index(descriptor.media_type):
                continue  # an image lists no manifests: not worth a read
            found = self._library.manifest(descriptor.digest, place, descriptor.media_type)
            for child in found.links.manifests if found else ():
                if child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append(child)
        return seen

    def _subject(self, place: Place, entry: Entry) -> Digest | None:
        found = self._library.manifest(entry.descriptor.digest, place, entry.descriptor.media_type)
        return found.links.subject if found else None
