"""Unpacking gzip and Zstandard as streams: memory, and what comes out, are bounded whatever goes in."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import zstandard

from mirror.store.archive_file import ArchiveFile, ArchiveInvalid, Kind

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK_BYTES = 1024 * 1024
# Four bytes of Zstandard can stand for 128 KiB: what one call may give is bounded by what it is fed.
_ZSTD_INPUT_BYTES = 1024
# As `zstd -d` without `--long` takes.
_ZSTD_WINDOW_BYTES = 128 * 1024 * 1024


class MemberReader(io.RawIOBase):
    """A part of an open archive as a file of its own."""

    def __init__(self, archive: ArchiveFile, offset: int, size: int) -> None:
        self._archive = archive
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        content = self._archive.read(self._position, min(len(view), self._end - self._position))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)


def decompressed(kind: Kind, source: io.RawIOBase, max_bytes: int) -> Iterator[bytes]:
    """The unpacked bytes of `source`, in pieces.

    Raises ArchiveInvalid beyond `max_bytes`, for wrong or missing bytes, and for kinds that are not unpacked here.
    """
    total = 0
    for chunk in _pieces(kind, source):
        total += len(chunk)
        if total > max_bytes:
            raise ArchiveInvalid(f"it unpacks to more than {max_bytes} bytes")
        yield chunk


def _pieces(kind: Kind, source: io.RawIOBase) -> Iterator[bytes]:
    if kind == "gzip":
        return _gunzip(source)
    if kind == "zstd":
        return _unzstd(source)
    raise ArchiveInvalid(f"{kind} is not unpacked: use gzip or zstd")


def _gunzip(source: io.RawIOBase) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(source, _CHUNK_BYTES)) as unpacked:
            while chunk := unpacked.read(_CHUNK_BYTES):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveInvalid(f"gzip: {error}") from None


def _unzstd(source: io.RawIOBase) -> Iterator[bytes]:
    # Not `stream_reader`: that takes a frame cut short for a whole one.
    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    buffered = io.BufferedReader(source, _CHUNK_BYTES)
    frame = context.decompressobj()
    begun = False
    rest = b""
    try:
        while fed := rest or buffered.read(_ZSTD_INPUT_BYTES):
            begun = True
            if chunk := frame.decompress(fed):
                yield chunk
            rest = b""
            if frame.eof:
                rest, frame, begun = frame.unused_data, context.decompressobj(), False
    except zstandard.ZstdError as error:
        raise ArchiveInvalid(f"zstd: {error}") from None
    if begun:
        raise ArchiveInvalid("zstd: cut short inside a frame")
