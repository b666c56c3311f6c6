"""Following the scans: what each look found is handed over, one after the other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mirror.sources.heap import uncollected
from mirror.sources.scan_feed import Heard, ScansEnded

log = logging.getLogger(__name__)

# How long after the scan process ended it is tried again; its owner starts it again meanwhile.
AGAIN_SECONDS = 0.2
# The same where what it says is not understood: another version may have been installed below this one.
FAILED_SECONDS = 5.0


class Scans(Protocol):
    """Where scans are heard: `ScanFeed`. `next` blocks, and raises ScansEnded, or anything for what makes no sense.

    The others may come meanwhile.
    """

    def next(self) -> Heard: ...
    def ask(self) -> None: ...
    def doubt(self, path: str) -> None: ...
    def close(self) -> None: ...


class ScanLoop:
    """`start` begins it; each scan is awaited by who takes it before the next one counts."""

    def __init__(self, scans: Scans) -> None:
        self._scans = scans
        # A thread of its own: it waits nearly always, and the others are few.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scans")
        self._task: asyncio.Task[None] | None = None

    def start(self, take: Callable[[Heard], Awaitable[None]]) -> None:
        """Begin to follow. Where `take` raises, it gets the next scan all the same."""
        self._task = asyncio.create_task(self._follow(take), name="scans of local content")

    def rescan(self) -> None:
        """Have a look now rather than at the next turn."""
        self._scans.ask()

    def doubt(self, path: str) -> None:
        """Have what lies at this path read again, though its file is the same."""
        self._scans.doubt(path)

    async def stop(self) -> None:
        """End the following."""
        if self._task is not None:
            self._task.cancel()
        await asyncio.to_thread(self._scans.close)
        await asyncio.to_thread(self._thread.shutdown)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, take: Callable[[Heard], Awaitable[None]]) -> None:
        with uncollected():
            # Nothing that the first scan makes is garbage, from its first line until it is served.
            while not await self._follow_one(take):
                pass
        while True:
            await self._follow_one(take)

    async def _follow_one(self, take: Callable[[Heard], Awaitable[None]]) -> bool:
        """Whether a scan was heard and taken."""
        try:
            heard = await asyncio.get_running_loop().run_in_executor(self._thread, self._scans.next)
        except ScansEnded:
            await asyncio.sleep(AGAIN_SECONDS)
            return False
        except Exception:
            log.exception("scan_failed")
            await asyncio.sleep(FAILED_SECONDS)
            return False
        try:
            await take(heard)
        except Exception:
            # What cannot be served now is tried again at the next scan; what is served stays.
            log.exception("scan_failed")
            return False
        return True
