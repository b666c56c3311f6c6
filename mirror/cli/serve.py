"""`mirror serve`."""

import asyncio
import logging
import resource
import signal

from mirror.app import running
from mirror.config import Config
from mirror.logs import event

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP looks at folders and certificate again. Returns the exit status."""
    _raise_file_limit()
    try:
        asyncio.run(_serve(config))
    except OSError as error:
        # Mostly the address: in use, or not ours.
        event(log, logging.ERROR, "cannot_serve", listen=f"{config.listen.host}:{config.listen.port}", reason=error)
        return 2
    return 0


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    async with running(config) as mirror:

        def reload() -> None:
            task = asyncio.create_task(mirror.reload(), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, reload)
        await stop.wait()
        event(log, logging.INFO, "stopping")


def _raise_file_limit() -> None:
    """Every blob being sent holds a descriptor, and the usual soft limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
