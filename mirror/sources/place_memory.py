"""What scans read, for the next start: places as JSON, by path, valid as long as file and configuration are the same.

Only what is final is kept: nothing that waits for a job, and nothing whose bytes lie in the cache.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import NO_ANNOTATIONS, Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository
from mirror.sources.place import Entry, Member, Naming, Place
from mirror.sources.scan import Seen, Signature
from mirror.sources.walk import Problem, Root
from mirror.store.archive_file import Stamp
from mirror.store.layer_hashes import Claim
from mirror.store.place_state import PlaceState, Row

# To be counted up whenever the same file comes to be read as something else, or is written down otherwise.
_FORMAT = 1

Json = Any


class RememberedPlaces:
    """A `PlaceMemory` in a file."""

    def __init__(self, state: PlaceState) -> None:
        self._state = state
        self._own_hosts: frozenset[str] = frozenset()
        self._rows: Mapping[str, Row] = {}

    def load(self, roots: Sequence[Root], own_hosts: frozenset[str]) -> None:
        """Have at hand what is remembered of these roots. Blocks."""
        self._own_hosts = own_hosts
        self._rows = self._state.load({_rules(root, own_hosts) for root in roots})

    def recall(self, path: str, root: Root, signature: Signature) -> Seen | None:
        """What was read at `path` when it had this signature; None where that is not known."""
        row = self._rows.get(path)
        if row is None or row.signature != _text(signature) or row.rules != _rules(root, self._own_hosts):
            return None
        try:
            return _seen_of(path, signature, json.loads(row.content))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            return None  # not what this version writes: it is read from the files

    def unload(self) -> None:
        """Let go of what `load` brought."""
        self._rows = {}

    def save(self, seen: Mapping[str, tuple[Root, Seen]], all_paths: Iterable[str]) -> None:
        """Remember what is final of `seen`; forget every path that is not among `all_paths`. Blocks."""
        rows: list[tuple[str, Row]] = []
        forgotten = set(self._state.paths()) - set(all_paths)
        rules = {root: _rules(root, self._own_hosts) for root, _ in seen.values()}
        for path, (root, one) in seen.items():
            if one.signature and not one.jobs and not one.unpacked:
                content = json.dumps(_document_of(one), separators=(",", ":"))
                rows.append((path, Row(rules[root], _text(one.signature), content)))
            else:
                forgotten.add(path)
        self._state.save(rows, forgotten)


_known_rules: dict[tuple[Root, frozenset[str]], str] = {}


def _rules(root: Root, own_hosts: frozenset[str]) -> str:
    """What, besides a file itself, decides how it is read."""
    key = (root, own_hosts)
    if key not in _known_rules:
        said = (_FORMAT, version("oci-mirror"), root, sorted(own_hosts), os.path.realpath(root.path))
        _known_rules[key] = hashlib.sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()
    return _known_rules[key]


def _text(signature: Signature) -> str:
    return " ".join(map(str, signature))


def _document_of(seen: Seen) -> Json:
    problems = [[problem.path, problem.reason] for problem in seen.problems]
    return [problems, [_place_document(place) for place in seen.places or ()]]


def _seen_of(path: str, signature: Signature, document: Json) -> Seen:
    problems, places = document
    return Seen(
        signature,
        tuple(_place_of(path, place) for place in places),
        tuple(Problem(where, reason) for where, reason in problems),
    )


def _place_document(place: Place) -> Json:
    names: dict[Name, int] = {}
    entries = []
    for entry in place.entries:
        one = entry.descriptor
        namings = [[names.setdefault(each.name, len(names)), each.tag, each.plain] for each in entry.namings]
        content = entry.content.decode() if entry.content is not None else None
        entries.append([one.media_type, one.digest, one.size, one.artifact_type, one.platform, namings, content])
    members = place.members
    claims = (place.claims or {}).values()
    return {
        "root": place.root,
        "name": place.name,
        "entries": entries,
        "names": list(names),
        "modified_ns": place.modified_ns,
        "inside": place.inside,
        "plain": place.plain,
        "coalesce": place.coalesce,
        "members": None if members is None else [[digest, one.offset, one.size] for digest, one in members.items()],
        "problems": place.problems,
        "stamp": [place.stamp.size, place.stamp.modified_ns, place.stamp.inode] if place.stamp else None,
        "claims": [[claim.digest, claim.member.offset, claim.member.size, claim.diff_id] for claim in claims],
    }


def _place_of(path: str, document: Json) -> Place:
    names = [_name(name) for name in document["names"]]
    own = document["name"]
    name = next((one for one in names if own is not None and list(one) == own), None) or (own and _name(own))
    members, stamp = document["members"], document["stamp"]
    claims = {
        Digest(digest): Claim(Digest(digest), Member(offset, size), Digest(diff_id))
        for digest, offset, size, diff_id in document["claims"]
    }
    return Place(
        path=path,
        root=document["root"],
        name=name,
        entries=tuple(_entry(one, names) for one in document["entries"]),
        modified_ns=document["modified_ns"],
        inside=document["inside"],
        plain=document["plain"],
        coalesce=document["coalesce"],
        members=None if members is None else {Digest(d): Member(offset, size) for d, offset, size in members},
        problems=tuple(document["problems"]),
        stamp=Stamp(*stamp) if stamp else None,
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
