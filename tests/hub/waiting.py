"""Waiting for what must come."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once `condition()` is true; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 any condition, not only what could set an event
            await asyncio.sleep(0.005)
