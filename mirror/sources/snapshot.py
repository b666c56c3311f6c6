"""All local content at one moment: which names there are, and what each tag may mean."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.place import Entry, Member, Place

# The repositories of entries that go by no name of their own.
Homes = Mapping[Digest, Sequence[Name]]


class Candidate(NamedTuple):
    """One entry that a tag may mean, and the place that lists it."""

    descriptor: Descriptor
    place: Place


@dataclass
class LocalRepository:
    """A repository of local content. `tags` holds each tag's candidates, the newest file first, ties by path.

    `roots` are the manifests that its places list for it, tagged or not; `places` are those places. `plain`: some of
    it named no host itself.
    """

    name: Name
    tags: dict[str, list[Candidate]] = field(default_factory=dict)
    roots: dict[Digest, Candidate] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    plain: bool = False

    @cached_property
    def sorted_tags(self) -> Sequence[str]:
        """All tags in ASCII order."""
        return sorted(self.tags)

    def page(self, last: str, limit: int | None) -> Sequence[str]:
        """At most `limit` tags after `last`."""
        start = bisect_right(self.sorted_tags, last) if last else 0
        return self.sorted_tags[start : None if limit is None else start + limit]

    def candidates(self, tag: str) -> Sequence[Candidate]:
        """What `tag` may mean. An unknown tag with `_` is tried with `+`: Helm asks for `1.1.0_oci`."""
        found = self.tags.get(tag)
        if found is None and "_" in tag:
            found = self.tags.get(tag.replace("_", "+"))
        return found or ()


@dataclass(frozen=True)
class Pool:
    """Where the bytes of local content may lie, whatever names them."""

    places: Sequence[Place]

    def copies(self, digest: Digest) -> Iterator[tuple[Place, Member]]:
        """Where the bytes lie in archives; each copy counts, since any of them may be broken."""
        first, others = self.members
        if digest in first:
            yield first[digest]
            yield from others.get(digest, ())

    @cached_property
    def members(self) -> tuple[dict[Digest, tuple[Place, Member]], dict[Digest, list[tuple[Place, Member]]]]:
        """What lies in archives: the first copy of each, and the others of those few that have any."""
        first: dict[Digest, tuple[Place, Member]] = {}
        others: dict[Digest, list[tuple[Place, Member]]] = {}
        for place in self.places:
            for digest, member in (place.members or {}).items():
                if first.setdefault(digest, (found := (place, member))) is not found:
                    others.setdefault(digest, []).append(found)
        return first, others

    @cached_property
    def generated(self) -> Mapping[Digest, bytes]:
        """Manifests that no place holds as a blob: they were made for images that have none."""
        return {
            entry.descriptor.digest: entry.content
            for place in self.places
            if place.members is not None
            for entry in place.entries
            if entry.content is not None
        }

    @cached_property
    def folders(self) -> Sequence[Place]:
        """The layouts that are folders: their part of the pool is asked by path."""
        return [place for place in self.places if place.members is None]

    def moved_to(self, places: Sequence[Place]) -> "Pool":
        """The pool of other places; what archives hold is not gathered anew where they are the same."""
        pool = Pool(places)
        own, before = (_archives(places), _archives(self.places))
        if len(own) == len(before) and all(one is other for one, other in zip(own, before, strict=True)):
            pool.__dict__["members"], pool.__dict__["generated"] = self.members, self.generated
        return pool


@dataclass(frozen=True)
class Snapshot:
    """Immutable; a rescan makes a new one. `adopted` tells whether entries without names have found their homes.

    `repositories` that no change has touched are the same objects as in the snapshot before.
    """

    pool: Pool
    repositories: Mapping[Name, LocalRepository]
    homes: Homes
    adopted: bool

    @classmethod
    def of(cls, places: Sequence[Place], homes: Homes | None = None, before: "Snapshot | None" = None) -> "Snapshot":
        """Group the places' entries by name. `homes` says where entries without a name belong, once it is known.

        With `before`, only repositories whose places or homes are others than there are grouped anew; until homes
        are known again, those of before count.
        """
        adopted = homes is not None
        if before is None:
            repositories = _grouped(places, homes or {}, None)
            return cls(Pool(places), repositories, homes or {}, adopted)
        homes = before.homes if homes is None else homes
        pool = before.pool if places is before.places else before.pool.moved_to(places)
        moved = _moved(before.homes, homes)
        touched = _touched(before, places, homes).union(*moved.values())
        if not touched:
            return cls(pool, before.repositories, homes, adopted)
        near = _near(before, places, touched, moved.keys())
        grouped = _grouped(near, homes, touched)
        repositories = {name: one for name, one in before.repositories.items() if name not in touched}
        repositories.update(grouped)
        return cls(pool, repositories, homes, adopted)

    @property
    def places(self) -> Sequence[Place]:
        """Everything that was found."""
        return self.pool.places

    def unnamed(self) -> Iterable[tuple[Place, Entry]]:
        """Entries that go by no name of their own."""
        return ((place, entry) for place in self.places for entry in place.entries if not entry.namings)

    @cached_property
    def names(self) -> Sequence[Name]:
        """Every canonical name, in ASCII order of how it is written."""
        return sorted(self.repositories, key=str)

    @property
    def plain_names(self) -> Sequence[str]:
        """Names that requests without a host mean."""
        return [str(name) for name, repository in self.repositories.items() if repository.plain]

    @cached_property
    def tag_count(self) -> int:
        """Over all repositories."""
        return sum(len(repository.tags) for repository in self.repositories.values())

    def prepare(self, before: "Snapshot") -> None:
        """Do beforehand what takes its time: whoever asks may be the event loop."""
        if "names" in before.__dict__ and before.repositories.keys() == self.repositories.keys():
            self.__dict__["names"] = before.names
        _ = self.names, self.tag_count, self.pool.generated, self.pool.members, self.pool.folders
        for name, repository in self.repositories.items():
            if before.repositories.get(name) is not repository:
                _ = repository.sorted_tags


EMPTY = Snapshot(Pool(()), {}, {}, adopted=False)


def names_of(place: Place, homes: Homes) -> set[Name]:
    """The repositories that a place has a part in."""
    names = {naming.name for entry in place.entries for naming in entry.namings}
    for entry in place.entries:
        if not entry.namings:
            names.update(homes.get(entry.descriptor.digest, ()))
    return names


def _touched(before: Snapshot, places: Sequence[Place], homes: Homes) -> set[Name]:
    """The names whose repositories may be others now."""
    was, now = {id(place) for place in before.places}, {id(place) for place in places}
    touched: set[Name] = set()
    for place in before.places:
        if id(place) not in now:
            touched |= names_of(place, before.homes)
    for place in places:
        if id(place) not in was:
            touched |= names_of(place, homes)
    return touched


def _moved(before: Homes, now: Homes) -> dict[Digest, set[Name]]:
    """Entries without names that live elsewhere now, with their homes of both times."""
    if now is before:
        return {}
    return {
        digest: {*before.get(digest, ()), *now.get(digest, ())}
        for digest in before.keys() | now.keys()
        if before.get(digest) != now.get(digest)
    }


def _near(
    before: Snapshot, places: Sequence[Place], touched: Collection[Name], moved: Collection[Digest]
) -> list[Place]:
    """The places that may have a part in the touched names, in their order."""
    near = {id(place) for name in touched if (one := before.repositories.get(name)) for place in one.places}
    was = {id(place) for place in before.places}
    return [
        place
        for place in places
        if id(place) in near
        or id(place) not in was
        or (moved and any(not entry.namings and entry.descriptor.digest in moved for entry in place.entries))
    ]


def _grouped(places: Sequence[Place], homes: Homes, only: Collection[Name] | None) -> dict[Name, LocalRepository]:
    """Every repository of the places, or those of `only`."""
    repositories: dict[Name, LocalRepository] = {}
    for place in places:
        for entry in place.entries:
            candidate = Candidate(entry.descriptor, place)
            for naming in entry.namings:
                if only is None or naming.name in only:
                    repository = _add(repositories, naming.name, candidate)
                    repository.plain |= naming.plain
                    if naming.tag is not None:
                        repository.tags.setdefault(naming.tag, []).append(candidate)
            if not entry.namings:
                for name in homes.get(entry.descriptor.digest, ()):
                    if only is None or name in only:
                        repository = _add(repositories, name, candidate)
                        # An own name that no host gave is plain; adopting an entry names nothing anew.
                        repository.plain |= name == place.name and place.plain
    for repository in repositories.values():
        for tag, candidates in repository.tags.items():
            if len(candidates) > 1:
                repository.tags[tag] = _newest_first(candidates)
    return repositories


def _add(repositories: dict[Name, LocalRepository], name: Name, candidate: Candidate) -> LocalRepository:
    found = repositories.get(name)
    if found is None:
        found = repositories[name] = LocalRepository(name)
    found.roots.setdefault(candidate.descriptor.digest, candidate)
    if not found.places or found.places[-1] is not candidate.place:
        found.places.append(candidate.place)
    return found


def _archives(places: Sequence[Place]) -> list[Place]:
    return [place for place in places if place.members is not None]


def _newest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The newer file wins, ties by path; one digest found twice is one candidate."""
    ordered = sorted(candidates, key=lambda c: (-c.place.modified_ns, c.place.path, c.place.inside))
    distinct: dict[Digest, Candidate] = {}
    for candidate in ordered:
        distinct.setdefault(candidate.descriptor.digest, candidate)
    return list(distinct.values())
