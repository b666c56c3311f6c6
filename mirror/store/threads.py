"""Getting things from a thread without losing them, and reading files without stopping the event loop."""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# What one read of a big blob takes: smaller pieces cost wake-ups, larger ones memory per reader.
PIECE_BYTES = 256 * 1024

# Linux only; elsewhere every read goes through a thread.
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
# Not in the page cache; or a file system (or kernel) that cannot tell.
_WOULD_WAIT = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


async def acquire(make: Callable[[], T], dispose: Callable[[T], object]) -> T:
    """What `make`, run in a thread, returns; disposed of when the waiting task is cancelled meanwhile.

    `asyncio.to_thread` would drop the result on the floor: an open descriptor, for one.
    """
    made = asyncio.get_running_loop().run_in_executor(None, make)

    def discard(done: "asyncio.Future[T]") -> None:
        if not done.cancelled() and done.exception() is None:
            dispose(done.result())

    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:
        made.add_done_callback(discard)
        raise


async def to_the_end(function: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but never left behind: a cancelled task waits until the thread is done.

    For writing to a descriptor, which must not be closed, and its number reused, under the thread's hands.
    """
    work = asyncio.get_running_loop().run_in_executor(None, function)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # seen; the cancelling comes first
        raise cancelled
    return work.result()


def close_later(fd: int) -> None:
    """Close a descriptor in a thread: the last close of a removed file frees its space, which takes time."""
    asyncio.get_running_loop().run_in_executor(None, os.close, fd)


def read_cached(fd: int, buffer: bytearray | memoryview, offset: int) -> int | None:
    """Fill `buffer` as far as that needs no waiting for the disk; how many bytes that were, 0 at the end of the file.

    None where there are none to be had without waiting.
    """
    if _NOWAIT is None:
        return None
    try:
        return os.preadv(fd, [buffer], offset, _NOWAIT)
    except OSError as error:
        if error.errno in _WOULD_WAIT:
            return None
        raise


async def read_piece(fd: int, size: int, offset: int) -> bytes | bytearray:
    """Up to `size` bytes at `offset`: inline from the page cache, else in a thread. b"" at the end of the file."""
    buffer = bytearray(size)
    count = read_cached(fd, buffer, offset)
    if count is None:
        return await asyncio.to_thread(os.pread, fd, size, offset)
    del buffer[count:]
    return buffer
