"""Places written down as lines of JSON: for another process, and for the next start.

Lines are short, since parsing one holds every thread of a process: entries and members come a few hundred at a time.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import NO_ANNOTATIONS, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository
from mirror.sources.place import Entry, Member, Naming, Place
from mirror.store.archive_file import Stamp
from mirror.store.layer_hashes import Claim

# To be counted up whenever the same file comes to be read as something else, or is written down otherwise.
FORMAT = 3
_ITEMS_A_LINE = 500

Json = Any

# Kept: `json.dumps` makes an encoder each time that it is not asked for its own form.
_text = json.JSONEncoder(separators=(",", ":")).encode


def write_places(places: Iterable[Place]) -> str:
    """A document; the empty one is of no places."""
    return "\n".join([line for place in places for line in _lines(place)])


def read_places(path: str, document: str) -> tuple[Place, ...]:
    """The places that `write_places` wrote. Raises ValueError, TypeError, KeyError or the like for other content."""
    lines = iter(document.split("\n") if document else ())
    return tuple([_place(path, json.loads(line), lines) for line in lines])


def _lines(place: Place) -> Iterator[str]:
    names: dict[Name, int] = {}
    entries = [_entry_document(entry, names) for entry in place.entries]
    pieces = _pieces(entries)
    head: Json = {"root": place.root, "name": place.name, "names": list(names), "entries": len(pieces)}
    head |= {"modified_ns": place.modified_ns} | _unusual(place)
    if place.members is not None:
        members = _pieces([[digest, one.offset, one.size] for digest, one in place.members.items()])
        head["members"] = len(members)
        pieces += members
    yield _text(head)
    yield from map(_text, pieces)


def _unusual(place: Place) -> Json:
    """What is otherwise than in a folder below a root without a host."""
    said: dict[str, Json] = {}
    if not place.plain:
        said["plain"] = False
    if not place.coalesce:
        said["coalesce"] = False
    if place.inside:
        said["inside"] = place.inside
    if place.problems:
        said["problems"] = place.problems
    if place.unpacked is not None:
        said["unpacked"] = place.unpacked
    if place.stamp is not None:
        said["stamp"] = [place.stamp.size, place.stamp.modified_ns, place.stamp.inode]
    if place.claims:
        claims = place.claims.values()
        said["claims"] = [[one.digest, one.member.offset, one.member.size, one.diff_id] for one in claims]
    return said


def _entry_document(entry: Entry, names: dict[Name, int]) -> Json:
    one = entry.descriptor
    namings = [[names.setdefault(each.name, len(names)), each.tag, each.plain] for each in entry.namings]
    content = entry.content.decode() if entry.content is not None else None
    return [one.media_type, one.digest, one.size, one.artifact_type, one.platform, namings, content]


def _place(path: str, head: Json, lines: Iterator[str]) -> Place:
    names = [_name(name) for name in head["names"]]
    own = head["name"]
    name = next((one for one in names if own is not None and list(one) == own), None) or (own and _name(own))
    entries = tuple([_entry(one, names) for one in _items(head["entries"], lines)])
    members: Mapping[Digest, Member] | None = None
    if "members" in head:
        members = {Digest(one): Member(offset, size) for one, offset, size in _items(head["members"], lines)}
    claims = {
        Digest(digest): Claim(Digest(digest), Member(offset, size), Digest(diff_id))
        for digest, offset, size, diff_id in head.get("claims", ())
    }
    return Place(
        path=path,
        root=head["root"],
        name=name,
        entries=entries,
        modified_ns=head["modified_ns"],
        inside=head.get("inside", ""),
        plain=head.get("plain", True),
        coalesce=head.get("coalesce", True),
        members=members,
        problems=tuple(head.get("problems", ())),
        unpacked=head.get("unpacked"),
        stamp=Stamp(*head["stamp"]) if "stamp" in head else None,
        claims=claims or None,
    )


def _entry(document: Json, names: Sequence[Name]) -> Entry:
    media_type, digest, size, artifact_type, platform, namings, content = document
    media_type = media_types.SHARED.get(media_type, media_type)
    descriptor = Descriptor(media_type, Digest(digest), size, artifact_type, platform, NO_ANNOTATIONS)
    namings = tuple([Naming(names[number], tag, plain) for number, tag, plain in namings])
    return Entry(descriptor, namings, content.encode() if content is not None else None)


def _name(document: Json) -> Name:
    host, repository = document
    return Name(Host(host) if host is not None else None, Repository(repository))


def _pieces(items: Sequence[Json]) -> list[Sequence[Json]]:
    return [items[start : start + _ITEMS_A_LINE] for start in range(0, len(items), _ITEMS_A_LINE)]


def _items(lines_wanted: int, lines: Iterator[str]) -> Iterator[Json]:
    for _ in range(lines_wanted):
        yield from json.loads(next(lines))
