"""Bodies of blobs: bytes in memory, bytes that lie in a file, or bytes that are still arriving."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`size` bytes from `offset` of the open file `fd`, which whoever opened it closes.

    The descriptor keeps the bytes that a pull began with, when the file is replaced meanwhile. A file cut short
    in place shows as a short read; one written to, where `modified_ns` is set, by another time of modification:
    after reading, before sending, it is to be compared. For both the answer is to be cut.
    """

    fd: int
    offset: int
    size: int
    modified_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ByteStream:
    """A body of `size` bytes that is still arriving.

    `read(start, stop)` yields the bytes of that half-open range as they come; it raises an `OciError` (or an
    `OSError`) where they cannot be had after all: the reader's answer is then to be cut, never completed. Any number
    may read, as long as whoever opened it holds it.
    """

    size: int
    read: Callable[[int, int], AsyncIterator[bytes | bytearray]]
    # Whether who comes now may read it as well: not once it is whole, or will not come.
    is_arriving: Callable[[], bool]


BlobBody = bytes | FileSlice | ByteStream


def body_size(body: BlobBody) -> int:
    """Size of the whole body, in bytes."""
    return len(body) if isinstance(body, bytes) else body.size
