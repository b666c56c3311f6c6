"""What the layers stored in an archive are, by their bytes: slow work, done once and remembered by its caller."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from mirror.oci.digest import Digest
from mirror.store.archive_file import BLOCK_BYTES, ArchiveFile, ArchiveInvalid, Kind, Stamp, open_archive, sniff
from mirror.store.decompress import MemberReader, decompressed
from mirror.store.tar_index import Member


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """`digest` of the bytes as stored, `diff_id` of them unpacked; None where they cannot be, as `problem` says."""

    digest: Digest
    diff_id: Digest | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What an archive says of a member, not yet compared with its bytes."""

    digest: Digest
    member: Member
    diff_id: Digest

    def holds(self, layer: StoredLayer) -> bool:
        """Whether the bytes, once hashed, are what was claimed."""
        return (layer.digest, layer.diff_id) == (self.digest, self.diff_id)


def hash_layers(
    path: str, stamp: Stamp, members: Iterable[Member], max_unpacked_bytes: int
) -> dict[Member, StoredLayer]:
    """Hash members of the archive at `path`, compressed ones also unpacked, at most `max_unpacked_bytes` of each.

    Reads all their bytes: for a thread or process of its own. Raises ArchiveChanging where the file is no longer
    the one that had `stamp`, ArchiveUnreadable.
    """
    with open_archive(path, stamp) as archive:
        return {member: _hash_layer(archive, member, max_unpacked_bytes) for member in dict.fromkeys(members)}


def _hash_layer(archive: ArchiveFile, member: Member, max_unpacked_bytes: int) -> StoredLayer:
    digest = _sha256(archive.chunks(member.offset, member.size))
    kind = compression(archive.read(member.offset, min(member.size, BLOCK_BYTES)))
    if kind is None:
        return StoredLayer(digest, digest)
    try:
        reader = MemberReader(archive, member.offset, member.size)
        return StoredLayer(digest, _sha256(decompressed(kind, reader, max_unpacked_bytes)))
    except ArchiveInvalid as error:
        return StoredLayer(digest, None, str(error))


def compression(start: bytes) -> Kind | None:
    """How a layer that begins so is compressed; None: not at all."""
    kind = sniff(start)
    return None if kind == "tar" else kind


def _sha256(chunks: Iterable[bytes]) -> Digest:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
    return Digest(f"sha256:{hasher.hexdigest()}")
