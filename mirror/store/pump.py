"""Writing and hashing of one blob, in a thread of its own: the event loop and the readers never wait for it."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# Bytes that may wait to be written; then the network has to wait.
QUEUE_BYTES = 8 * 1024 * 1024
# What one write takes at most, so that the first bytes reach readers soon.
_BATCH_BYTES = 1024 * 1024
_BATCH_CHUNKS = 256
_REHASH_BYTES = 1024 * 1024


class StorageFailed(Exception):
    """The disk did not take the bytes: full, read-only, over quota or broken. `__cause__` is the OSError."""


class Pump:
    """Appends to the part `fd`, which stays the caller's, behind the `held` bytes that it has.

    `on_written(count)` is called on the event loop when bytes were added, several writes at once where the loop
    is busy. `hasher` covers the first `hashed` bytes.
    """

    def __init__(self, fd: int, hasher: Any, held: int, on_written: Callable[[int], None]) -> None:
        self.hasher = hasher
        self.hashed = 0
        self.written = held
        self._fd = fd
        self._on_written = on_written
        self._loop = asyncio.get_running_loop()
        self._items: SimpleQueue[bytes | tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # Each counted by one thread only.
        self._given_bytes = 0
        self._taken_bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._waking = False
        self._closing = False
        self._error: OSError | None = None
        self._ended = self._loop.create_future()
        threading.Thread(target=self._run, name="pump", daemon=True).start()

    async def put(self, chunk: bytes) -> None:
        """Hand over bytes; waits while QUEUE_BYTES wait already. Raises StorageFailed."""
        while self._given_bytes != self._taken_bytes and self._waiting_bytes() + len(chunk) > QUEUE_BYTES:
            self._check()
            self._room = self._loop.create_future()
            await self._room
        self._check()
        self._given_bytes += len(chunk)
        self._items.put(bytes(chunk))

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns, run in the thread behind all that was put. Raises StorageFailed."""
        future = self.post(function)
        try:
            return await asyncio.wrap_future(future)
        except OSError as error:
            raise StorageFailed(str(error)) from error

    def post(self, function: Callable[[], T]) -> "Future[T]":
        """As `call`, without waiting."""
        future: Future[T] = Future()
        self._items.put((function, future))
        return future

    def rehash(self) -> None:
        """Take the bytes held into the hash; to be called in the thread, before the first write."""
        try:
            while self.hashed < self.written and not self._closing:
                piece = os.pread(self._fd, min(_REHASH_BYTES, self.written - self.hashed), self.hashed)
                if not piece:
                    raise OSError(f"the part ends at byte {self.hashed}, not {self.written}")
                self.hasher.update(piece)
                self.hashed += len(piece)
        except Exception as error:
            self._fail(error)  # what is written behind a gap of the hash would be found wrong
            raise

    async def close(self) -> None:
        """End the thread; what waits unwritten is dropped. Afterwards, and only then, `fd` may be closed."""
        self._closing = True
        self._items.put(None)
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.done():
            try:
                await asyncio.wait([self._ended])
            except asyncio.CancelledError as error:
                # The thread writes to a descriptor number: it has to be gone before the number is reused.
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _waiting_bytes(self) -> int:
        return self._given_bytes - self._taken_bytes

    def _check(self) -> None:
        if self._error is not None:
            raise StorageFailed(str(self._error)) from self._error

    def _run(self) -> None:
        pending: tuple[Callable[[], Any], Future[Any]] | None = None
        while not self._closing:
            batch: list[bytes] = []
            item = pending or self._items.get()
            pending = None
            size = 0
            while isinstance(item, bytes):
                batch.append(item)
                size += len(item)
                if size >= _BATCH_BYTES or len(batch) >= _BATCH_CHUNKS or self._items.empty():
                    item = None
                else:
                    item = self._items.get()
            if batch:
                self._write(batch)
                self._taken_bytes += size
                self._wake()
                pending = item
            elif item is not None:
                self._answer(*item)
        self._tell(self._end)

    def _write(self, batch: list[bytes]) -> None:
        if self._error is not None:
            return  # what comes after a failed write would leave a gap
        try:
            left: list[memoryview] = [memoryview(chunk) for chunk in batch]
            while left:
                count = os.pwritev(self._fd, left, self.written)
                self.written += count
                self._wake()
                while left and count >= len(left[0]):
                    count -= len(left[0])
                    self.hasher.update(left[0])
                    self.hashed += len(left.pop(0))
                if count:
                    self.hasher.update(left[0][:count])
                    self.hashed += count
                    left[0] = left[0][count:]
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Nothing more is written, and whoever waits hears of it; also of what is not the disk's: no memory, say."""
        if isinstance(error, OSError):
            self._error = error
            return
        log.error("the thread that writes a blob failed", exc_info=error)
        self._error = OSError(f"not the disk: {error!r}")

    def _answer(self, function: Callable[[], Any], future: "Future[Any]") -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            if self._error is not None:
                raise self._error
            future.set_result(function())
        except Exception as error:  # whoever waits for the answer deals with it
            future.set_exception(error)

    def _wake(self) -> None:
        if not self._waking:
            self._waking = True
            try:
                self._tell(self._woken)
            except BaseException:
                self._waking = False  # else nobody would be woken ever again
                raise

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(callback)

    def _woken(self) -> None:
        # First the flag, then the count: a write in between wakes once more rather than never.
        self._waking = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._on_written(self.written)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
