"""All local content at one moment: which names there are, and what each tag may mean."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.place import Entry, Member, Place


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry that a tag may mean, and the place that lists it."""

    descriptor: Descriptor
    place: Place


@dataclass
class LocalRepository:
    """A repository of local content. `tags` holds each tag's candidates, the newest file first, ties by path.

    `roots` are the manifests that its places list for it, tagged or not. `plain`: some of it named no host itself.
    """

    name: Name
    tags: dict[str, list[Candidate]] = field(default_factory=dict)
    roots: dict[Digest, Candidate] = field(default_factory=dict)
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
class Snapshot:
    """Immutable; a rescan makes a new one. `adopted` tells whether entries without names have found their homes."""

    places: Sequence[Place]
    repositories: Mapping[Name, LocalRepository]
    adopted: bool

    @classmethod
    def of(cls, places: Sequence[Place], homes: Mapping[Digest, Sequence[Name]] | None = None) -> "Snapshot":
        """Group the places' entries by name. `homes` says where entries without a name belong, once it is known."""
        repositories: dict[Name, LocalRepository] = {}
        for place in places:
            for entry in place.entries:
                candidate = Candidate(entry.descriptor, place)
                for naming in entry.namings:
                    repository = _repository(repositories, naming.name)
                    repository.plain |= naming.plain
                    _add_root(repository, candidate)
                    if naming.tag is not None:
                        repository.tags.setdefault(naming.tag, []).append(candidate)
                if not entry.namings and homes is not None:
                    for name in homes.get(entry.descriptor.digest, ()):
                        repository = _repository(repositories, name)
                        # An own name that no host gave is plain; adopting an entry names nothing anew.
                        repository.plain |= name == place.name and place.plain
                        _add_root(repository, candidate)
        for repository in repositories.values():
            for tag, candidates in repository.tags.items():
                if len(candidates) > 1:
                    repository.tags[tag] = _newest_first(candidates)
        return cls(places, repositories, homes is not None)

    @cached_property
    def names(self) -> Sequence[Name]:
        """Every canonical name, in ASCII order of how it is written."""
        return sorted(self.repositories, key=str)

    def copies(self, digest: Digest) -> Iterator[tuple[Place, Member]]:
        """Where the bytes lie in archives; each copy counts, since any of them may be broken."""
        first, others = self._members
        if digest in first:
            yield first[digest]
            yield from others.get(digest, ())

    @cached_property
    def _members(self) -> tuple[dict[Digest, tuple[Place, Member]], dict[Digest, list[tuple[Place, Member]]]]:
        """The pool of bytes in archives: the first copy of each, and the others of those few that have any."""
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
            for entry in place.entries
            if entry.content is not None
        }

    @cached_property
    def folders(self) -> Sequence[Place]:
        """The layouts that are folders: their part of the pool is asked by path."""
        return [place for place in self.places if place.members is None]

    def unnamed(self) -> Iterable[tuple[Place, Entry]]:
        """Entries that go by no name of their own."""
        return ((place, entry) for place in self.places for entry in place.entries if not entry.namings)


EMPTY = Snapshot((), {}, adopted=False)


def _repository(repositories: dict[Name, LocalRepository], name: Name) -> LocalRepository:
    found = repositories.get(name)
    if found is None:
        found = repositories[name] = LocalRepository(name)
    return found


def _add_root(repository: LocalRepository, candidate: Candidate) -> None:
    repository.roots.setdefault(candidate.descriptor.digest, candidate)


def _newest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The newer file wins, ties by path; one digest found twice is one candidate."""
    ordered = sorted(candidates, key=lambda c: (-c.place.modified_ns, c.place.path, c.place.inside))
    distinct: dict[Digest, Candidate] = {}
    for candidate in ordered:
        distinct.setdefault(candidate.descriptor.digest, candidate)
    return list(distinct.values())
