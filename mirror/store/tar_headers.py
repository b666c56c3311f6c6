"""The headers of a tar, one after the other, with what extended headers say of them already applied."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from mirror.store.archive_file import BLOCK_BYTES, ArchiveFile, ArchiveInvalid

# One extended header (pax records, a GNU long name): as much as Go's archive/tar takes.
MAX_EXTENDED_BYTES = 1024 * 1024
# Small members lie close together: one read brings in several of their headers.
_WINDOW_BYTES = 16 * BLOCK_BYTES
_ZEROS = bytes(BLOCK_BYTES)
_POSIX_MAGIC = b"ustar\0"
_SPARSE_KEY = "GNU.sparse."
_PAX_KINDS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_LONG_KINDS = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
# They have no data, whatever their size field says (POSIX; Go, GNU tar and tarfile agree).
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)


@dataclass(frozen=True, slots=True)
class Header:
    """A member: `size` bytes of data from `offset`, inside the file. `kind` is the type flag, one byte."""

    name: str
    kind: bytes
    link_name: str
    offset: int
    size: int
    sparse: bool


def is_sparse(header: Header) -> bool:
    """Whether the member's bytes are not the file's: holes are left out (GNU's three sparse formats)."""
    return header.sparse or header.kind == tarfile.GNUTYPE_SPARSE


def headers(archive: ArchiveFile) -> Iterator[Header]:
    """Every member of a tar, in the archive's order, up to its end.

    Raises ArchiveInvalid where a header is wrong, a member reaches beyond the file, or the end is missing.
    """
    window = _Window(archive)
    position = 0
    for_all: dict[str, str] = {}
    for_next: dict[str, str] = {}
    while not _at_end(window, position):
        info = _decode(window.read(position), position)
        data = position + BLOCK_BYTES
        if info.type in _PAX_KINDS or info.type in _LONG_KINDS:
            content = _extended(archive, info, data)
            if info.type in _LONG_KINDS:
                for_next[_LONG_KINDS[info.type]] = _text(content.partition(b"\0")[0])
            else:
                (for_all if info.type == tarfile.XGLTYPE else for_next).update(_pax_records(content, position))
            position = data + _padded(info.size)
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            data = _behind_sparse_map(window, position)
        header = _apply(info, data, for_all | for_next)
        if header.offset + header.size > archive.size:
            raise ArchiveInvalid(
                f"member {header.name[:200]!r} of {header.size} bytes reaches beyond the end of the file"
            )
        yield header
        position = data + _padded(header.size)
        for_next = {}
    if for_next:
        raise ArchiveInvalid("the archive ends behind an extended header, where its member should follow")


class _Window:
    def __init__(self, archive: ArchiveFile) -> None:
        self._archive = archive
        self._start = 0
        self._content = b""

    def read(self, position: int) -> bytes:
        """The block at `position`; shorter only at the end of the file."""
        start = position - self._start
        if start < 0 or start + BLOCK_BYTES > len(self._content):
            self._start, start = position, 0
            self._content = self._archive.read(position, _WINDOW_BYTES)
        return self._content[start : start + BLOCK_BYTES]


def _at_end(window: _Window, position: int) -> bool:
    block = window.read(position)
    if len(block) < BLOCK_BYTES:
        what = "cut short: no end of archive" if position else "not a tar archive: nothing, or less than a block,"
        raise ArchiveInvalid(f"{what} at byte {position}")
    if block != _ZEROS:
        return False
    if any(window.read(position + BLOCK_BYTES)):
        raise ArchiveInvalid(f"a lone zero block at byte {position}, with something behind it")
    return True


def _decode(block: bytes, position: int) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    # frombuf lets a ValueError of odd number fields through.
    except (tarfile.HeaderError, ValueError) as error:
        what = "not a tar archive" if position == 0 else f"no header at byte {position}"
        raise ArchiveInvalid(f"{what}: {error}") from None
    if info.size < 0:
        raise ArchiveInvalid(f"the header at byte {position} has a negative size")
    if block[257:263] != _POSIX_MAGIC and any(block[345:500]):
        # What POSIX calls the prefix is something else in v7 and GNU headers; tarfile joins it all the same.
        info.name = _text(block[:100].partition(b"\0")[0])
    return info


def _apply(info: tarfile.TarInfo, data: int, extended: dict[str, str]) -> Header:
    size = info.size
    if said := extended.get("size"):
        if not said.isascii() or not said.isdigit() or len(said) > 20:
            raise ArchiveInvalid(f"the size of member {info.name[:200]!r} is {said[:40]!r}")
        size = int(said)
    name = extended.get("path") or info.name
    kind = info.type
    if kind == tarfile.AREGTYPE and name.endswith("/"):
        kind = tarfile.DIRTYPE
    return Header(
        name,
        kind,
        extended.get("linkpath") or info.linkname,
        data,
        0 if kind in _WITHOUT_DATA else size,
        any(key.startswith(_SPARSE_KEY) for key in extended),
    )


def _extended(archive: ArchiveFile, info: tarfile.TarInfo, data: int) -> bytes:
    if info.size > MAX_EXTENDED_BYTES:
        raise ArchiveInvalid(f"an extended header of {info.size} bytes; at most {MAX_EXTENDED_BYTES} are read")
    content = archive.read(data, info.size)
    if len(content) < info.size:
        raise ArchiveInvalid("cut short inside an extended header")
    return content


def _pax_records(content: bytes, position: int) -> dict[str, str]:
    """The records that matter here, of lines `<length> <key>=<value>\\n`; the length counts the whole line."""
    records: dict[str, str] = {}
    start, stop = 0, len(content.rstrip(b"\0"))
    while start < stop:
        digits, space, _ = content[start : start + 24].partition(b" ")
        end = start + int(digits) if space and digits.isdigit() else start
        key, equals, value = content[start + len(digits) + 1 : end].partition(b"=")
        if not equals or end > stop or not value.endswith(b"\n"):
            raise ArchiveInvalid(f"the extended header at byte {position} is malformed")
        name = _text(key)
        if name in ("path", "linkpath", "size"):
            records[name] = _text(value[:-1])
        elif name.startswith(_SPARSE_KEY):
            records[_SPARSE_KEY] = "1"
        start = end
    return records


def _behind_sparse_map(window: _Window, position: int) -> int:
    """Old GNU sparse headers go on in blocks of their own, as long as a flag says so (GNU tar manual, D.2.1)."""
    block, flag = window.read(position), 482
    position += BLOCK_BYTES
    while block[flag]:
        block, flag = window.read(position), 504
        if len(block) < BLOCK_BYTES:
            raise ArchiveInvalid("cut short inside a sparse member's map")
        position += BLOCK_BYTES
    return position


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
