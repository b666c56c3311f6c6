"""Scanning again and again, with the slow work on archives beside it: what each scan found is handed over."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext

from mirror.logs import event
from mirror.sources.heap import uncollected
from mirror.sources.scan import Scan, Scanner
from mirror.sources.scan_process import ScanProcess, ScanProcessEnded
from mirror.sources.shelf import Job

log = logging.getLogger(__name__)


class ScanLoop:
    """`start` begins it; each scan is awaited by who takes it before the next one begins."""

    def __init__(self, scanner: Scanner, refresh_seconds: float, scan_process: ScanProcess | None = None) -> None:
        self.scanner = scanner
        self._scan_process = scan_process
        self._refresh_seconds = refresh_seconds
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None
        self._tried: set[Job] = set()
        self._settled = False

    def start(self, take: Callable[[Scan], Awaitable[None]]) -> None:
        """Begin to scan, and go on every `refresh_seconds`. Where `take` raises, it gets the next scan too."""
        self._task = asyncio.create_task(self._keep_scanning(take), name="scan of local content")

    def rescan(self) -> None:
        """Scan now rather than at the next turn."""
        self._wanted.set()

    async def stop(self) -> None:
        """End the scanning."""
        tasks = [task for task in (self._task, self._working) if task is not None]
        for task in tasks:
            task.cancel()
        if self._scan_process is not None:
            # Whoever waits for its answer waits no longer.
            await asyncio.to_thread(self._scan_process.close)
        await asyncio.gather(*tasks, return_exceptions=True)

    def unpacks(self, scan: Scan) -> bool:
        """Whether archives are still to be unpacked for the first time: their names may yet turn up."""
        return any(job.unpacks and job not in self._tried for job in scan.jobs)

    def work_on(self, jobs: Sequence[Job]) -> None:
        """Slow work on archives goes on beside; each piece done makes the next scan find more."""
        if jobs and (self._working is None or self._working.done()):
            self._working = asyncio.create_task(self._work(jobs), name="work on archives")

    async def _keep_scanning(self, take: Callable[[Scan], Awaitable[None]]) -> None:
        while True:
            self._wanted.clear()
            try:
                # A later scan may wait for its disks for long, and must not keep what requests leave behind.
                with nullcontext() if self._settled else uncollected():
                    await take(await asyncio.to_thread(self._scan))
                self._settled = True
            except Exception:
                # A scan that fails in a way not foreseen must not end all scanning; what was found stays.
                log.exception("scan_failed")
            try:
                async with asyncio.timeout(self._refresh_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    def _scan(self) -> Scan:
        """The first scan runs here, since every request waits for it; the others where they disturb nobody."""
        if self._scan_process is not None and self._settled:
            try:
                changes = self._scan_process.look(self.scanner)
                with uncollected():
                    return self.scanner.apply(changes)
            except ScanProcessEnded as error:
                if self._scan_process.closed:
                    raise
                event(log, logging.WARNING, "scan_process_ended", reason=str(error))
        return self.scanner.scan()

    async def _work(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self.scanner.shelf is not None:
                await asyncio.to_thread(self.scanner.shelf.work, job)
            self._tried.add(job)
            self.rescan()
