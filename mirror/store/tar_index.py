"""Where the members of a plain tar lie, from its headers alone: nothing is unpacked, data is passed over.

Formats: v7, ustar, pax (POSIX.1-2017, "pax Interchange Format"), GNU (long names, base-256 numbers). Headers are
decoded by `tarfile`; walking them is done here, because `tarfile` takes an archive cut short for a whole one,
recurses once per extended header, and reads headers of any length into memory.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mirror.store.archive_file import (
    BLOCK_BYTES,
    ArchiveError,
    ArchiveFile,
    ArchiveInvalid,
    Stamp,
    open_archive,
)
from mirror.store.tar_headers import Header, headers, is_sparse

# Bounds of what one archive may make us remember: each is far beyond any archive of images.
MAX_MEMBERS = 1_000_000
MAX_NAME_BYTES = 4096
MAX_ALL_NAMES_BYTES = 256 * 1024 * 1024
MAX_PROBLEMS = 20
# Symbolic links followed, and path components walked, to find one member.
_MAX_HOPS = 8
_MAX_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of a blob lie inside an archive: `size` bytes from `offset`."""

    offset: int
    size: int


@dataclass(slots=True)
class TarIndex:
    """The members of one tar by their names: relative, without `.`, `..`, empty components or a `/` at the end.

    `links` are symbolic links with their targets as written; hard links stand among `files`. `problems` has a
    line for each member that is not served.
    """

    stamp: Stamp
    files: dict[str, Member] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def find(self, name: str) -> Member | None:
        """The file of that name, through symbolic links inside the archive; None where there is none.

        Links that lead out of the archive, in a circle or through too many others lead nowhere.
        """
        if (member := self.files.get(name)) is not None:
            return member
        ahead = name.split("/")[::-1]
        at: list[str] = []
        hops = 0
        for _ in range(_MAX_STEPS):
            if not ahead:
                return self.files.get("/".join(at))
            part = ahead.pop()
            if part == "..":
                if not at:
                    return None
                at.pop()
            elif part not in ("", "."):
                at.append(part)
                if (target := self.links.get("/".join(at))) is not None:
                    hops += 1
                    if hops > _MAX_HOPS:
                        return None
                    at.pop()
                    ahead.extend(reversed(target.split("/")))
        return None

    def names(self) -> Iterator[str]:
        """Of files and symbolic links; whether a link leads to a file, `find` tells."""
        yield from self.files
        yield from self.links


@dataclass(frozen=True, slots=True)
class OpenTar:
    """An indexed tar that is open: what its members hold."""

    archive: ArchiveFile
    index: TarIndex

    def find(self, name: str) -> Member | None:
        """The file of that name, as some document in the archive writes it."""
        cleaned = clean_name(name)
        return self.index.find(cleaned) if cleaned else None

    def start(self, member: Member) -> bytes:
        """Its first 512 bytes, enough to tell what it is."""
        return self.archive.read(member.offset, min(member.size, BLOCK_BYTES))

    def content(self, name: str, max_bytes: int) -> tuple[Member, bytes]:
        """A whole file. Raises MemberUnusable beyond `max_bytes` or where there is no such file."""
        member = self.find(name)
        if member is None:
            raise MemberUnusable(f"{name[:200]!r} is not in the archive")
        if member.size > max_bytes:
            raise MemberUnusable(f"{name[:200]!r} has {member.size} bytes, at most {max_bytes} are read")
        return member, b"".join(self.archive.chunks(member.offset, member.size))


class MemberUnusable(ArchiveError):
    """A file in the archive is missing or out of bounds; the rest of the archive may be right."""


def read_tar(path: str | Path) -> TarIndex:
    """Index the tar at `path`. Raises ArchiveInvalid, ArchiveUnreadable or ArchiveChanging."""
    with open_archive(path) as archive:
        return index_tar(archive)


def index_tar(archive: ArchiveFile, max_members: int = MAX_MEMBERS) -> TarIndex:
    """Index an open tar, reading its headers only.

    Whole means: every member lies inside the file, and behind the last there are two zero blocks (POSIX), or one
    and the end of the file, which GNU tar takes as well. Every producer of image archives writes at least two;
    what stands behind them is padding. Where a name comes twice the last one counts, as it does when unpacking.
    Raises ArchiveInvalid.
    """
    builder = _Builder(TarIndex(archive.stamp), max_members)
    for header in headers(archive):
        builder.add(header)
    return builder.finish()


class _Builder:
    def __init__(self, index: TarIndex, max_members: int) -> None:
        self._index = index
        self._max_members = max_members
        self._members = 0
        self._names_bytes = 0
        self._unsaid = 0

    def add(self, header: Header) -> None:
        """Take in the next member. Raises ArchiveInvalid beyond the bounds of an index."""
        self._members += 1
        self._names_bytes += len(header.name) + len(header.link_name)
        if self._members > self._max_members or self._names_bytes > MAX_ALL_NAMES_BYTES:
            raise ArchiveInvalid(f"more than {self._max_members} members, or {MAX_ALL_NAMES_BYTES} bytes of names")
        if len(header.name) > MAX_NAME_BYTES or len(header.link_name) > MAX_NAME_BYTES:
            self._problem(header, f"its name or target is longer than {MAX_NAME_BYTES}")
            return
        name = clean_name(header.name)
        if name is None:
            self._problem(header, "its name leads out of the archive")
        elif name:
            self._add_named(name, header)

    def _add_named(self, name: str, header: Header) -> None:
        index, kind = self._index, header.kind
        previous = index.files.pop(name, None)
        index.links.pop(name, None)
        if is_sparse(header):
            self._problem(header, "it is sparse: pack without --sparse")
        elif kind in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            index.files[name] = Member(header.offset, header.size)
        elif kind == tarfile.DIRTYPE:
            index.directories.add(name)
        elif kind == tarfile.SYMTYPE:
            if header.link_name.startswith("/") or not _stays_inside(name, header.link_name):
                self._problem(header, f"its target {header.link_name[:200]!r} leads out of the archive")
            else:
                index.links[name] = header.link_name
        elif kind == tarfile.LNKTYPE:
            target = clean_name(header.link_name)
            # A hard link means what its target was at that point of the archive, never a later one.
            found = previous if target == name else index.find(target) if target else None
            if found is None:
                self._problem(header, f"its target {header.link_name[:200]!r} is no file before it in the archive")
            else:
                index.files[name] = found

    def _problem(self, header: Header, reason: str) -> None:
        if len(self._index.problems) < MAX_PROBLEMS:
            self._index.problems.append(f"member {header.name[:200]!r} is not served: {reason}")
        else:
            self._unsaid += 1

    def finish(self) -> TarIndex:
        if self._unsaid:
            self._index.problems.append(f"{self._unsaid} more members are not served")
        return self._index


def clean_name(name: str) -> str | None:
    """`./blobs//sha256/` → `blobs/sha256`; None for absolute names and those with `..` or NUL."""
    if name.startswith("/") or "\0" in name:
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/".join(parts)


def _stays_inside(name: str, target: str) -> bool:
    depth = name.count("/")
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return False
    return "\0" not in target
