"""What serves: this process, or several below it."""

import asyncio
import logging
import signal
import sys

from mirror import logs
from mirror.app.prepare import prepare
from mirror.app.slot import Slot
from mirror.cli import signals
from mirror.cli.limits import make_room_for_descriptors
from mirror.cli.loop import run_loop
from mirror.cli.supervise import Supervisor
from mirror.config import Config
from mirror.logs import event

log = logging.getLogger(__name__)


def serve(config: Config, scans: bytes) -> int:
    """Serve what the scan process at this address finds, until a signal says stop. Returns the exit status."""
    prepare(config)
    try:
        if config.worker_count > 1:
            return Supervisor(config, run_worker, scans).run()
        run_loop(_serve(config, scans))
    except OSError as error:
        return _cannot_serve(config, error)
    return 0


def run_worker(config: Config, slot: Slot) -> int:
    """One of several workers, in a process of its own."""
    logs.set_up(config.log_format)
    try:
        run_loop(_serve(config, slot.scans, slot))
    except OSError as error:
        return _cannot_serve(config, error)
    return 0


def _cannot_serve(config: Config, error: OSError) -> int:
    # Mostly the address: in use, or not ours.
    event(log, logging.ERROR, "cannot_serve", listen=str(config.listen), reason=error)
    return 2


async def _serve(config: Config, scans: bytes, slot: Slot | None = None) -> None:
    # Here, since a parent of several workers needs none of it.
    from mirror.app.serving import running

    make_room_for_descriptors()
    _share_quickly()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Before there is anything to read again, SIGHUP must not end the process, as it does by default.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    signals.let_through()
    if slot is not None:
        _stop_with(slot.parent.fileno(), stop)
    async with running(config, slot, scans=scans) as mirror:

        def reload() -> None:
            task = asyncio.create_task(mirror.reload(), name="reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        await stop.wait()
        event(log, logging.INFO, "stopping")


def _stop_with(pipe: int, stop: asyncio.Event) -> None:
    """The parent's pipe says nothing; it ends when the parent does, however that ends."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        # The end can be read again and again: that would keep a processor busy until the last answer is sent.
        loop.remove_reader(pipe)
        stop.set()

    loop.add_reader(pipe, end)


def _share_quickly() -> None:
    """A thread that works on a new snapshot gives way to requests after a millisecond rather than five."""
    sys.setswitchinterval(0.001)
