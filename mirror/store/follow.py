"""Following a fill that another process runs: one poller for all its readers here."""

import asyncio
from collections.abc import Callable

from mirror.store.job import Job
from mirror.store.parts import Part, Role

# An fstat and an flock each time, about two microseconds; readers are that much late.
_POLL_SECONDS = 0.005


async def follow(job: Job, part: Part, has_readers: Callable[[], bool]) -> Role:
    """Tell the readers how far the other process is, until the blob is whole or nobody reads here (FOLLOWING).

    LEADING: the other process is gone, or gave up, and this one has the lock now. DROPPED: it took the part away.
    """
    believed = False
    while has_readers():
        # Before the mode: a part may be published and at once be evicted.
        linked = part.is_linked()
        if not part.is_verified():
            believed = True
        elif believed or await asyncio.to_thread(part.is_published):
            job.progress.complete(part.size())
            await _share(part, has_readers)
            return Role.PUBLISHED
        if not linked:
            return Role.DROPPED
        if job.progress.size is None:
            job.progress.is_coming = await asyncio.to_thread(part.is_answered)
            job.announce((await asyncio.to_thread(part.known)).size)
        job.grow(part.size())
        if part.try_lock():
            role = await asyncio.to_thread(part.take_over)
            if role is Role.PUBLISHED:
                job.progress.complete(part.size())
            return role
        await asyncio.sleep(_POLL_SECONDS)
    return Role.FOLLOWING


async def _share(part: Part, has_readers: Callable[[], bool]) -> None:
    """Hold the blob as its readers do, as soon as the other process has renamed it and lets go of its own lock."""
    while has_readers() and not part.share():  # noqa: ASYNC110 what is waited for happens in another process
        await asyncio.sleep(_POLL_SECONDS)
