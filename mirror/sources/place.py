"""What a scan of local content finds: plain values, so that another process can find them and hand them over.

Of namings, entries and descriptors there are tens of thousands, made while a server starts: tuples, since a frozen
dataclass takes three times as long to make.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.store.archive_file import Stamp
from mirror.store.layer_hashes import Claim
from mirror.store.tar_index import Member as Member  # noqa: PLC0414 part of what is said here


class Naming(NamedTuple):
    """One name that an entry goes by. `tag` is None for a name without a tag: digest only.

    `plain`: it named no host itself (a bare tag below a place without host, a RepoTag `team/app:1`), so that
    requests which name no host mean it, and are never completed from an upstream.
    """

    name: Name
    tag: str | None
    plain: bool


class Entry(NamedTuple):
    """A manifest listed by a place, with every name that it goes by there; none: an unnamed entry.

    `content` carries the bytes of a manifest that was generated (a docker-save image has none of its own).
    """

    descriptor: Descriptor
    namings: tuple[Naming, ...] = ()
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A layout directory, an archive, or a layout inside one.

    `path` is the folder of a layout, or the archive's file; `inside` the folder inside the archive (mostly "").
    `name` is the place's own name (of its bare tags), None where it makes no repository name, as `problems` then
    says. `members` is None for a directory, whose blobs are at `path/blobs/<algorithm>/<hex>`.
    `modified_ns` decides which of two places is the newer.
    `members` lie in `unpacked`, the copy of a compressed archive in the cache, else in `path` itself; that file is
    to be opened with `stamp`, so that another one by its name is never taken for it.
    """

    path: str
    root: str
    name: Name | None
    entries: tuple[Entry, ...]
    modified_ns: int
    inside: str = ""
    plain: bool = True
    coalesce: bool = True
    members: Mapping[Digest, Member] | None = None
    problems: tuple[str, ...] = field(default=())
    unpacked: str | None = None
    stamp: Stamp | None = None
    # Members whose digest is so far only what a saved image claims: no reader gets one before its bytes were hashed.
    claims: Mapping[Digest, Claim] | None = None

    @property
    def bytes_path(self) -> str:
        """The file that the members of an archive lie in."""
        return self.unpacked or self.path
