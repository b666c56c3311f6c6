"""Where manifests without a name belong: signatures, SBOMs and whatever else a layout lists untagged."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.layout import blob_path
from mirror.sources.library import Library
from mirror.sources.place import Entry, Place
from mirror.sources.snapshot import Homes, Snapshot

# What a file was known by; None where there was none.
Stamp = tuple[int, ...] | None
_Holders = dict[Digest, set[Name]]


@dataclass(frozen=True, slots=True)
class Adopted:
    """Where entries without a name belong. `unread` are the files of those that could not be read, as they were."""

    homes: Homes
    unread: Mapping[str, Stamp]


def find_homes(snapshot: Snapshot, library: Library) -> Homes:
    """See `adopt`."""
    return adopt(snapshot, library).homes


class Adoption:
    """Adopts again and again, reading only places that are new. For one thread at a time.

    Nearly always each place tells by itself where its entries belong; that is kept as long as the place is the same.
    Where one does not (a signature in one archive, its subject in another), all are looked at together.
    """

    def __init__(self) -> None:
        self._in_place: dict[int, tuple[Place, Homes]] = {}
        self._homes: Homes = {}

    def adopt(self, snapshot: Snapshot, library: Library) -> Adopted:
        """See `adopt`. The homes are the same object as before where nothing has moved."""
        found = self._each_by_itself(snapshot, library) or adopt(snapshot, library)
        if found.homes != self._homes:
            self._homes = found.homes
        return Adopted(self._homes, found.unread)

    def _each_by_itself(self, snapshot: Snapshot, library: Library) -> Adopted | None:
        unread: dict[str, Stamp] = {}
        in_place: dict[int, tuple[Place, Homes]] = {}
        homes: dict[Digest, set[Name]] = {}
        for place, unnamed in _by_place(snapshot.unnamed()):
            # An id is used again only when its place is gone, which is held here.
            known = self._in_place.get(id(place))
            if known is None:
                adoption = _Adoption([place], library, keep=False)
                if adoption.in_place(unnamed):
                    return None
                known = (place, adoption.homes())
                unread.update(adoption.unread)
                if not adoption.unread:
                    in_place[id(place)] = known
            else:
                in_place[id(place)] = known
            for digest, names in known[1].items():
                homes.setdefault(digest, set()).update(names)
        self._in_place = in_place
        return Adopted({digest: sorted(names, key=str) for digest, names in homes.items()}, unread)


def adopt(snapshot: Snapshot, library: Library) -> Adopted:
    """The repositories of each entry without a name. Blocks: reads those entries, and indexes beside them.

    An entry belongs to the repositories of its place that reach it or hold its subject; failing that, to every
    local repository that holds its subject; failing that, to the place's own name.
    """
    unnamed = list(snapshot.unnamed())
    if not unnamed:
        return Adopted({}, {})
    adoption = _Adoption(snapshot.places, library, keep=True)
    adoption.everywhere(adoption.in_place(unnamed))
    return Adopted(adoption.homes(), adoption.unread)


def changed(unread: Mapping[str, Stamp]) -> bool:
    """Whether any of these files is another now: a copy may bring an index before what it lists. Blocks."""
    return any(_stamp(path) != before for path, before in unread.items())


@dataclass(frozen=True, slots=True)
class _Orphan:
    """An entry without a name; `key` tells it from the same manifest in another place."""

    place: Place
    entry: Entry
    subject: Digest | None

    @property
    def key(self) -> tuple[int, Digest]:
        return id(self.place), self.entry.descriptor.digest


class _Adoption:
    def __init__(self, places: Sequence[Place], library: Library, *, keep: bool) -> None:
        self._places = places
        self._library = library
        self._read = library.manifest if keep else library.read_manifest
        self._held: dict[int, _Holders] = {}
        self._homes: dict[tuple[int, Digest], set[Name]] = {}
        self.unread: dict[str, Stamp] = {}

    def in_place(self, unnamed: Sequence[tuple[Place, Entry]]) -> list[_Orphan]:
        """Settle what a place can settle by itself; the rest."""
        orphans = [_Orphan(place, entry, self._subject(place, entry)) for place, entry in unnamed]
        # What a named index of its place reaches is found there by walking; it may have more homes all the same.
        self._homes.update({one.key: set() for one in orphans if one.key[1] in self._holders(one.place)})
        left = [one for one in orphans if one.subject is not None]
        for one in orphans:
            # What refers to nothing belongs to its place at once; what refers to it may then follow it there.
            if one.subject is None and one.key not in self._homes:
                self._settle(one, _own_name(one))
        self._follow(left, self._holders)
        return [one for one in left if one.key not in self._homes]

    def everywhere(self, left: Sequence[_Orphan]) -> None:
        """Settle the rest."""
        while left := [one for one in left if one.key not in self._homes]:
            everywhere = self._everywhere()
            self._follow(left, lambda _: everywhere)  # noqa: B023 called within this turn only
            left = [one for one in left if one.key not in self._homes]
            # Of a chain whose first subject is nowhere, the first goes to its place's name, and the others follow.
            waiting = {one.entry.descriptor.digest for one in left}
            for one in [one for one in left if one.subject not in waiting]:
                self._settle(one, _own_name(one))
            self._follow([one for one in left if one.key not in self._homes], self._holders)

    def homes(self) -> Homes:
        """By digest, of all places together."""
        homes: dict[Digest, set[Name]] = {}
        for (_, digest), names in self._homes.items():
            homes.setdefault(digest, set()).update(names)
        return {digest: sorted(names, key=str) for digest, names in homes.items() if names}

    def _follow(self, orphans: Sequence[_Orphan], held: Callable[[Place], _Holders]) -> None:
        """Settle those whose subject is held; and then what refers to them, since a referrer may have referrers."""
        referrers: dict[Digest, list[_Orphan]] = {}
        for one in orphans:
            if one.subject is not None:
                referrers.setdefault(one.subject, []).append(one)
        waiting = deque(orphans)
        while waiting:
            one = waiting.popleft()
            names = held(one.place).get(one.subject, set()) if one.subject else set()
            if names <= self._homes.get(one.key, set()):
                continue
            for digest in self._settle(one, names):
                held(one.place).setdefault(digest, set()).update(names)
                waiting.extend(referrers.get(digest, ()))

    def _settle(self, one: _Orphan, names: Set[Name]) -> Iterable[Digest]:
        """Give it these homes; gives back everything that they now hold through it."""
        self._homes.setdefault(one.key, set()).update(names)
        digests = list(self._walk(one.place, one.entry.descriptor))
        for digest in digests:
            self._holders(one.place).setdefault(digest, set()).update(names)
        return digests

    def _everywhere(self) -> _Holders:
        found: _Holders = {}
        for place in self._places:
            for digest, names in self._holders(place).items():
                found.setdefault(digest, set()).update(names)
        return found

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
            found = self._read(descriptor.digest, place, descriptor.media_type)
            for child in found.links.manifests if found else ():
                if child.digest not in seen:
                    seen.add(child.digest)
                    waiting.append(child)
        return seen

    def _subject(self, place: Place, entry: Entry) -> Digest | None:
        digest = entry.descriptor.digest
        found = self._library.cached_manifest(digest)
        if found is None:
            path = blob_path(place.path, digest)
            before = _stamp(path)
            found = self._read(digest, place, entry.descriptor.media_type)
            if found is None and place.members is None:
                self.unread[path] = before
        return found.links.subject if found else None


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _by_place(unnamed: Iterable[tuple[Place, Entry]]) -> Iterator[tuple[Place, list[tuple[Place, Entry]]]]:
    for _, group in groupby(unnamed, key=lambda one: id(one[0])):
        entries = list(group)
        yield entries[0][0], entries


def _own_name(one: _Orphan) -> Set[Name]:
    return {one.place.name} if one.place.name else set()
