"""The event loop that everything of a server runs on."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

# Threads in which uvloop (libuv) looks up names, half of them at once. Of its four, two names that hang, as they do
# where the internet is gone, take all, and no other upstream's name is found.
_LOOKUP_THREADS = 64


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, by uvloop where that is installed: a hit costs a sixth less."""
    with asyncio.Runner(loop_factory=_factory()) as runner:
        runner.run(main)


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 a parent of several workers needs none of it
    except ImportError:  # not made for this system; asyncio's own does the same, only slower
        return None
    os.environ.setdefault("UV_THREADPOOL_SIZE", str(_LOOKUP_THREADS))  # read when the first name is looked up
    return uvloop.new_event_loop
