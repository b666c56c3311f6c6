"""Where manifests without a name belong: signatures, SBOMs and whatever else a layout lists untagged.

Most of it is a matter of one place alone, and is kept as long as that place is the same; what is left (a signature
in one archive, its subject in another) is settled over all of them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.library import Library, ReadManifest
from mirror.sources.place import Entry, Place
from mirror.sources.snapshot import Homes

_Holders = dict[Digest, set[Name]]


@dataclass(frozen=True, slots=True)
class _Orphan:
    """An entry without a name whose subject its place does not hold."""

    digest: Digest
    subject: Digest


@dataclass(frozen=True, slots=True)
class _Settled:
    """What one place tells by itself. `walks` are what its indexes reach, by the index, as far as it lists any."""

    place: Place
    homes: Mapping[Digest, Collection[Name]]
    orphans: Sequence[_Orphan]
    walks: Mapping[Digest, Collection[Digest]]
    whole: bool


class Adoption:
    """Finds homes again and again, reading only places that are new. For one thread at a time."""

    def __init__(self) -> None:
        self._settled: dict[int, _Settled] = {}
        self._homes: Homes = {}

    def find(self, places: Sequence[Place], library: Library) -> Homes:
        """The repositories of each entry without a name. Blocks: reads those entries, and indexes beside them.

        An entry belongs to the repositories of its place that reach it or hold its subject; failing that, to every
        local repository that holds its subject; failing that, to the place's own name. The same object as before
        where nothing has moved.
        """
        settled: dict[int, _Settled] = {}
        for place in places:
            if not all(entry.namings for entry in place.entries):
                settled[id(place)] = self._settle(place, library)
        homes: dict[Digest, set[Name]] = {}
        for one in settled.values():
            for digest, names in one.homes.items():
                homes.setdefault(digest, set()).update(names)
        orphans = [(one.place, orphan) for one in settled.values() for orphan in one.orphans]
        if orphans:
            for place in places:
                if id(place) not in settled:
                    settled[id(place)] = self._settle(place, library)
            _adopt(orphans, _holders(settled.values()), homes)
        self._settled = settled
        found = {digest: tuple(sorted(names, key=str)) for digest, names in homes.items()}
        if found != self._homes:
            self._homes = found
        return self._homes

    def _settle(self, place: Place, library: Library) -> _Settled:
        known = self._settled.get(id(place))
        # What was missing may have come since. An id may be used again, but not while its place is kept.
        return known if known is not None and known.whole else _InPlace(place, library).settle()


def find_homes(places: Sequence[Place], library: Library) -> Homes:
    """See `Adoption.find`."""
    return Adoption().find(places, library)


def _adopt(orphans: Sequence[tuple[Place, _Orphan]], everywhere: _Holders, homes: dict[Digest, set[Name]]) -> None:
    """Settle orphans where their subjects are held; again and again, since a referrer may have referrers."""
    settled = True
    while settled and orphans:
        settled, left = False, []
        for place, orphan in orphans:
            found = everywhere.get(orphan.subject)
            if found:
                homes.setdefault(orphan.digest, set()).update(found)
                everywhere.setdefault(orphan.digest, set()).update(found)
                settled = True
            else:
                left.append((place, orphan))
        orphans = left
    for place, orphan in orphans:
        homes.setdefault(orphan.digest, set()).update([place.name] if place.name else [])


def _holders(settled: Iterable[_Settled]) -> _Holders:
    """Which names hold which manifests, over all places."""
    everywhere: _Holders = {}
    for one in settled:
        for entry in one.place.entries:
            digest = entry.descriptor.digest
            names = {naming.name for naming in entry.namings} or one.homes.get(digest, ())
            for reached in (digest, *one.walks.get(digest, ())) if names else ():
                everywhere.setdefault(reached, set()).update(names)
    return everywhere


class _InPlace:
    """Settles what one place can settle by itself."""

    def __init__(self, place: Place, library: Library) -> None:
        self._place = place
        self._walks = _Walks(place, library)
        self._reached = self._walks.of(place.entries)
        self._holders: _Holders = {}
        self._homes: dict[Digest, set[Name]] = {}
        for entry in place.entries:
            names = {naming.name for naming in entry.namings}
            if names:
                self._hold(entry, names)

    def settle(self) -> _Settled:
        unnamed = [entry for entry in self._place.entries if not entry.namings]
        waiting = [(entry, self._walks.subject(entry.descriptor)) for entry in unnamed]
        # What refers to nothing belongs to its place at once; what refers to it may then follow it there.
        for entry, subject in waiting:
            if subject is None and not self._holders.get(entry.descriptor.digest):
                self._settle(entry, [self._place.name] if self._place.name else [])
        orphans = self._follow([(entry, subject) for entry, subject in waiting if subject is not None])
        return _Settled(self._place, self._homes, orphans, self._reached, self._walks.whole)

    def _follow(self, orphans: list[tuple[Entry, Digest]]) -> list[_Orphan]:
        settled = True
        while settled and orphans:
            settled, left = False, []
            for entry, subject in orphans:
                if entry.descriptor.digest in self._holders:
                    settled = True  # reached by a named index of its place: found there by walking
                elif homes := self._holders.get(subject):
                    self._settle(entry, homes)
                    settled = True
                else:
                    left.append((entry, subject))
            orphans = left
        return [_Orphan(entry.descriptor.digest, subject) for entry, subject in orphans]

    def _settle(self, entry: Entry, homes: Iterable[Name]) -> None:
        names = set(homes)
        self._homes.setdefault(entry.descriptor.digest, set()).update(names)
        self._hold(entry, names)

    def _hold(self, entry: Entry, names: set[Name]) -> None:
        digest = entry.descriptor.digest
        for reached in (digest, *self._reached.get(digest, ())):
            self._holders.setdefault(reached, set()).update(names)


class _Walks:
    """What the indexes of a place reach. `whole`: nothing that was wanted was missing."""

    def __init__(self, place: Place, library: Library) -> None:
        self._place = place
        self._library = library
        self.whole = True

    def of(self, entries: Iterable[Entry]) -> dict[Digest, Collection[Digest]]:
        """By the digest of each entry that is an index: the manifests below it."""
        return {
            entry.descriptor.digest: self._walk(entry.descriptor)
            for entry in entries
            if _may_be_index(entry.descriptor.media_type)
        }

    def subject(self, descriptor: Descriptor) -> Digest | None:
        found = self._read(descriptor)
        return found.links.subject if found else None

    def _walk(self, root: Descriptor) -> Collection[Digest]:
        waiting, seen = [root], {root.digest: None}
        while waiting:
            descriptor = waiting.pop()
            if not _may_be_index(descriptor.media_type):
                continue  # an image lists no manifests: not worth a read
            found = self._read(descriptor)
            for child in found.links.manifests if found else ():
                if child.digest not in seen:
                    seen[child.digest] = None
                    waiting.append(child)
        del seen[root.digest]
        return tuple(seen)

    def _read(self, descriptor: Descriptor) -> ReadManifest | None:
        found = self._library.read_manifest(descriptor.digest, self._place, descriptor.media_type)
        self.whole = self.whole and found is not None
        return found


def _may_be_index(media_type: str) -> bool:
    return media_types.is_index(media_type) or not media_types.is_manifest(media_type)
