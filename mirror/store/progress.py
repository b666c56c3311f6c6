"""What the readers of a fill see of it: how far it is, and how it ended."""

import asyncio
from typing import Any

# Blobs up to this size are checked before their first byte goes out: a wrong one is then asked for again unseen.
VERIFY_FIRST_BYTES = 1024 * 1024


class Progress:
    """Belongs to the event loop; whoever changes it does so by its methods, which wake the readers.

    `size` is None until a body may begin. `held` bytes can be read at `fd`, or the whole blob from `content`.
    """

    def __init__(self) -> None:
        self.size: int | None = None
        # Whether an upstream answers, so that bytes come; and whether any were given out before the size was known.
        self.is_coming = False
        self.is_ahead = False
        self.held = 0
        self.fd = -1
        self.content: bytes | None = None
        # What was read last of the file, and where it begins; nobody changes it.
        self.latest: tuple[int, bytes | bytearray] = (0, b"")
        self.whole = False
        self.error: Exception | None = None
        # Nothing more is stored: readers get the rest for themselves. The hash is over the `held` bytes.
        self.passing = False
        self._hash: Any = None
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def deliverable(self) -> int:
        """Bytes from the start that readers may have now: never the last one before the verdict."""
        if self.size is None:
            return 0
        if self.whole:
            return self.size
        return min(self.held, self.size - 1) if self.size > VERIFY_FIRST_BYTES else 0

    @property
    def is_begun(self) -> bool:
        """Whether anybody may have had a byte of it: what comes next has to be of the same blob."""
        return self.size is not None or self.is_ahead

    @property
    def is_running(self) -> bool:
        """Whether more comes to the file, and the verdict."""
        return not (self.whole or self.passing or self.error)

    def begin(self, fd: int) -> None:
        """The bytes will come to this file, and none is there so far."""
        self.fd, self.held, self.latest = fd, 0, (0, b"")

    def announce(self, size: int) -> None:
        """The size is known, and an upstream answers: bodies may begin."""
        if self.size is None:
            self.size = size
            self.wake()

    def grow(self, held: int) -> None:
        if held > self.held:
            self.held = held
            self.wake()

    def complete(self, size: int, content: bytes | None = None) -> None:
        """The verdict: the blob is right and all of it may go out."""
        self.size = size
        self.held = size
        self.content = content
        self.whole = True
        self.wake()

    def fail(self, error: Exception) -> None:
        if not self.whole and not self.passing and self.error is None:
            self.error = error
            self.wake()

    def pass_on(self, hasher: Any, held: int) -> None:
        """Nothing is stored from byte `held` on; `hasher` has taken in what is before it."""
        self.held = held
        self._hash = hasher
        self.passing = True
        self.wake()

    def hash_at(self, position: int) -> Any:
        """The hash state for a reader who goes on by itself from `position`; None where it cannot check."""
        return self._hash.copy() if self.passing and position == self.held else None

    async def change(self) -> None:
        """Wait for any of the above."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        """Let every reader look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
