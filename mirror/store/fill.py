"""A fill: one blob on its way from an upstream to the disk, once for all who ask, in one process or many."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from mirror.oci.errors import OciError, Unavailable
from mirror.store.apart import Apart
from mirror.store.feed import Fetch
from mirror.store.follow import follow
from mirror.store.job import Job
from mirror.store.lead import lead, pass_through
from mirror.store.parts import Part, Role
from mirror.store.threads import acquire

log = logging.getLogger(__name__)

# Repositories that one fill may draw from.
_MAX_SUPPLIERS = 8


class Fill:
    """Runs as its own task, whether or not anybody still reads, until the blob is whole or cannot be had.

    `join` and `leave` count its readers, who look at `job.progress`. The part stays open until the task has ended
    and the last of them is gone.
    """

    def __init__(self, job: Job, keep: bool) -> None:
        self.job = job
        self.apart = Apart()
        self._keep = keep
        self._readers = 0
        # What the bytes go to, while there is a task or a reader; None also where nothing is stored.
        self.part: Part | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, on_over: Callable[["Fill"], None]) -> None:
        """Begin; `on_over` is called when nobody new may join."""
        self._task = asyncio.create_task(self._run(on_over), name=f"fill {self.job.digest}")

    def join(self, supplier: str, fetch: Fetch) -> None:
        """One reader more, who brings another place that the bytes can be had from, for when the first fails."""
        self._readers += 1
        if len(self.job.suppliers) < _MAX_SUPPLIERS:
            self.job.suppliers.setdefault(supplier, fetch)

    def leave(self) -> None:
        """One reader less."""
        self._readers -= 1
        self._release()

    async def stop(self) -> None:
        """End it at once; the part stays. Readers are told that it is over."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, on_over: Callable[["Fill"], None]) -> None:
        self.job.counters.started += 1
        try:
            await self._until_settled()
            self.job.counters.finished += 1
        except asyncio.CancelledError:
            self._fail(Unavailable("the mirror is shutting down"))
        except (OciError, OSError) as error:
            log.warning("blob %s cannot be had: %s", self.job.digest, error)
            self._fail(error)
        except Exception:
            log.exception("filling blob %s failed", self.job.digest)
            self._fail(Unavailable())
        finally:
            on_over(self)
            self._task = None
            self._release()

    def _fail(self, error: Exception) -> None:
        self.job.counters.failed += 1
        self.job.progress.fail(error)

    def _release(self) -> None:
        if self._task is None and not self._readers and self.part is not None:
            asyncio.get_running_loop().run_in_executor(None, self.part.close)
            self.part = None

    async def _until_settled(self) -> None:
        while True:
            part = await self._claim() if self._keep else None
            if part is None:
                await pass_through(self.job)
                return
            if self.part is not None:  # claimed anew: nobody has had a byte of it
                self.part.close()
            self.part = part
            self.job.progress.begin(part.fd)
            if await self._settle(part):
                return

    async def _claim(self) -> Part | None:
        """None where the disk does not take a part."""
        try:
            return await acquire(partial(self.job.files.claim, self.job.digest), Part.close)
        except OSError as error:
            log.warning("blob %s cannot be stored: %s; it is passed through", self.job.digest, error)
            return None

    async def _settle(self, part: Part) -> bool:
        """Play one's role with the part; False where everything has to begin again."""
        role = part.role
        if role is Role.FOLLOWING:
            # What this process took of the share that may be fetched apart stays taken as long as the fill runs.
            role = await follow(self.job, part, lambda: self._readers > 0 or self.apart.has_taken)
        match role:
            case Role.PUBLISHED:
                self.job.progress.complete(part.size())
            case Role.LEADING:
                return await lead(self.job, part)
            case Role.DROPPED if not self.job.progress.is_begun:
                return False
            case Role.DROPPED:
                await self.job.give_up_storing(part)
            case Role.FOLLOWING:
                pass  # nobody reads here any more: the other process goes on alone
        return True
