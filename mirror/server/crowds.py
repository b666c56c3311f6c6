"""Requests for one blob that come together: what is opened for the first answers the others.

A rollout asks for a layer that nobody has yet a hundred times at once. To find its fill a hundred times would take
longer than the upstream does; who comes while it is being opened, or while its bytes arrive, gets the same body.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from mirror.oci.errors import Unavailable
from mirror.server.answer import Answer, origin_headers
from mirror.sources.source import Origin
from mirror.store.body import ByteStream

# Finds a blob, kept open by the stack given.
Find = Callable[[AsyncExitStack], Awaitable[tuple[Answer, Origin]]]


class Crowds:
    """Those that are there now, by what they ask for."""

    def __init__(self) -> None:
        self._crowds: dict[Hashable, _Crowd] = {}

    @asynccontextmanager
    async def member(self, key: Hashable, generation: int, find: Find) -> AsyncIterator[Answer]:
        """The answer that `find` gives, or gave whoever asked for the same `key` within the same generation.

        What it reads from stays open as long as anybody is within. Raises what `find` does.
        """
        crowd = self._crowds.get(key)
        leads = crowd is None or not crowd.takes_in(generation)
        if crowd is None or leads:
            crowd = self._crowds[key] = _Crowd(generation)
        crowd.members += 1
        try:
            if leads:
                yield await crowd.open(find)
            else:
                yield await crowd.join()
        finally:
            crowd.members -= 1
            if not crowd.members:
                if self._crowds.get(key) is crowd:
                    del self._crowds[key]
                crowd.forget_error()
                await crowd.stack.aclose()


class _Crowd:
    """The last one who leaves closes `stack`."""

    def __init__(self, generation: int) -> None:
        self.members = 0
        self.stack = AsyncExitStack()
        self._generation = generation
        self._opened = asyncio.Event()
        self._collapsed: Answer | None = None
        self._error: Exception
        self.forget_error()

    def takes_in(self, generation: int) -> bool:
        """Whether whoever comes now may have the same. A blob that is whole has quicker ways to its readers."""
        if generation != self._generation:
            return False
        if not self._opened.is_set():
            return True
        body = self._collapsed.body if self._collapsed is not None else None
        return isinstance(body, ByteStream) and body.is_arriving()

    async def open(self, find: Find) -> Answer:
        """The first one's."""
        try:
            found, origin = await find(self.stack)
            self._collapsed = _collapsed(found, origin)
        except Exception as error:
            self._error = error
            raise
        finally:
            self._opened.set()
        return found

    async def join(self) -> Answer:
        """Everybody else's."""
        await self._opened.wait()
        if self._collapsed is None:
            # Each begins a traceback of its own: one for all would grow with everybody who raises it.
            raise self._error.with_traceback(None)
        return self._collapsed

    def forget_error(self) -> None:
        """It knows the way here, and this would hold it, with all that it came by, until the collector looks."""
        self._error = Unavailable("the mirror is shutting down")


def _collapsed(found: Answer, origin: Origin) -> Answer:
    """As those get it for whom nothing was forwarded: another's request was (RFC 9211, 2.2 and 2.6)."""
    if not origin.status.startswith("fwd="):
        return found
    reason = origin.status.partition(";")[0]
    return found.with_headers(origin_headers(replace(origin, status=f"{reason}; collapsed")))
