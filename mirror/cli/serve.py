"""`mirror serve`."""

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from mirror import logs
from mirror.app import Slot, prepare, running
from mirror.cli.supervise import SIGNALS, Supervisor
from mirror.config import Config
from mirror.logs import event

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP looks at folders and certificate again. Returns the exit status."""
    _raise_file_limit()
    prepare(config)
    try:
        if config.worker_count > 1:
            return Supervisor(config, run_worker).run()
        _run(_serve(config, None))
    except OSError as error:
        return _cannot_serve(config, error)
    return 0


def run_worker(config: Config, slot: Slot) -> int:
    """One of several workers, in a process of its own."""
    logs.set_up(config.log_format)
    try:
        _run(_serve(config, slot))
    except OSError as error:
        return _cannot_serve(config, error)
    return 0


def _run(serving: Coroutine[Any, Any, None]) -> None:
    """On uvloop where that extra is installed: an answer from memory costs a sixth less."""
    try:
        import uvloop
    except ImportError:
        factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serving)


def _cannot_serve(config: Config, error: OSError) -> int:
    # Mostly the address: in use, or not ours.
    event(log, logging.ERROR, "cannot_serve", listen=str(config.listen), reason=error)
    return 2


async def _serve(config: Config, slot: Slot | None) -> None:
    _share_quickly()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Before there is anything to read again, SIGHUP must not end the process, as it does by default.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    # A worker begins with them held back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if slot is not None:
        # The pipe says nothing; it ends when the parent does, however that ends.
        loop.add_reader(slot.parent.fileno(), stop.set)
    async with running(config, slot) as mirror:

        def reload() -> None:
            task = asyncio.create_task(mirror.reload(), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        await stop.wait()
        event(log, logging.INFO, "stopping")


def _share_quickly() -> None:
    """A thread that works on a new snapshot gives way to requests after a millisecond rather than five."""
    sys.setswitchinterval(0.001)


def _raise_file_limit() -> None:
    """Every blob being sent holds a descriptor, and the usual soft limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
