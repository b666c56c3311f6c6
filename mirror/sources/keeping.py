"""Keeping what came: a disk that is full or refuses must not keep a client from what its upstream gave."""

import asyncio
import logging
from collections.abc import Callable

from mirror.logs import event
from mirror.oci.names import Name

log = logging.getLogger(__name__)


async def keep(what: str, name: Name, write: Callable[[], object]) -> bool:
    """Write in a thread; whether it was. A failure costs the copy, and a line in the log."""
    try:
        await asyncio.to_thread(write)
    except OSError as error:
        event(log, logging.ERROR, f"{what}_not_cached", name=str(name), reason=str(error))
        return False
    return True
