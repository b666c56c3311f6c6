"""Several worker processes on one port, and the parent that keeps them running.

Each worker is a whole mirror that listens with SO_REUSEPORT; they share the cache on disk, and one scan process. The
parent forwards signals, starts a dead worker again, and stops when all have stopped. Workers end when it is gone.
"""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from mirror.app.slot import Slot
from mirror.cli.signals import held
from mirror.config import Address, Config
from mirror.logs import event
from mirror.sources.pauses import failures_now, pause_seconds

log = logging.getLogger(__name__)

# Beyond the graceful end's own bound.
KILL_AFTER_SECONDS = 5.0
WRONG_USE = 2


WorkerMain = Callable[[Config, Slot], int]


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    started: float
    failures: int = 0


class Supervisor:
    """Runs `worker_main(config, slot)` in `config.worker_count` processes, which hear `scans` (an address)."""

    def __init__(self, config: Config, worker_main: WorkerMain, scans: bytes) -> None:
        self._context = multiprocessing.get_context("spawn")
        # Held until the end: nobody else gets the port before the workers listen, or while all of them are dead.
        self._reserved = _reserve(config.listen)
        listen = Address(config.listen.host, self._reserved.getsockname()[1])
        self._config = config.model_copy(update={"listen": listen})
        self._worker_main = worker_main
        self._scans = scans
        count = config.worker_count
        self._ready = self._context.RawArray("b", count)
        self._parent, self._held_open = self._context.Pipe(duplex=False)
        self._stopping = False
        # Whether any worker ever served: then neither address nor configuration are to blame.
        self._served = False
        self._workers: dict[int, _Worker] = {}
        self._due: dict[int, tuple[float, int]] = dict.fromkeys(range(count), (0.0, 0))

    def run(self) -> int:
        """Serve until a signal says stop. Returns the exit status."""
        with self._reserved:
            return self._run()

    def _run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._forward)
        event(log, logging.INFO, "starting_workers", count=len(self._due), listen=str(self._config.listen))
        with held():
            # At its start it would let signals through again, for the first worker too.
            resource_tracker.ensure_running()
        status = 0
        while self._workers or (self._due and not self._stopping):
            self._start_due()
            wait([worker.process.sentinel for worker in self._workers.values()], timeout=0.2)
            self._served |= any(self._ready)
            for index, worker in list(self._workers.items()):
                if worker.process.exitcode is not None:
                    status = max(status, self._ended(index, worker))
        return status

    def _start_due(self) -> None:
        now = time.monotonic()
        for index, (due, failures) in list(self._due.items()):
            if self._stopping or now < due:
                continue
            slot = Slot(index, self._ready, self._parent, self._scans)
            process = self._context.Process(
                target=_begin, args=(self._worker_main, self._config, slot), name=f"worker {index}"
            )
            with held():
                process.start()
            del self._due[index]
            self._add(index, _Worker(process, now, failures))

    def _add(self, index: int, worker: _Worker) -> None:
        self._workers[index] = worker
        if self._stopping:
            # The stop came while it was being started. The others are told once more, which changes nothing.
            self._signal(signal.SIGTERM)

    def _ended(self, index: int, worker: _Worker) -> int:
        """One worker is gone: start it again later, unless all are to stop."""
        del self._workers[index]
        self._ready[index] = 0
        status = worker.process.exitcode or 0
        if self._stopping:
            return 1 if status < 0 else status
        if status == WRONG_USE and not self._served:
            # The address or the configuration: no other try would end otherwise.
            self._stop(signal.SIGTERM, None)
            return status
        failures = failures_now(worker.failures, worker.started)
        pause = pause_seconds(failures)
        event(log, logging.ERROR, "worker_died", worker=index, exit_status=status, again_in_seconds=pause)
        self._due[index] = (time.monotonic() + pause, failures)
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            self._signal(signal.SIGTERM)
            signal.signal(signal.SIGALRM, self._kill)
            signal.setitimer(signal.ITIMER_REAL, self._config.shutdown_timeout_seconds + KILL_AFTER_SECONDS)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._signal(signal.SIGHUP)

    def _kill(self, number: int, frame: FrameType | None) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            if worker.process.exitcode is None and worker.process.pid is not None:
                os.kill(worker.process.pid, number)


def _begin(worker_main: WorkerMain, config: Config, slot: Slot) -> None:
    raise SystemExit(worker_main(config, slot))


def _reserve(listen: Address) -> socket.socket:
    """A socket that has the address, which must be free: with SO_REUSEPORT a second mirror would share it unseen.

    It never listens. Workers bind the address beside it by SO_REUSEPORT; who has SO_REUSEADDR alone, as most servers
    and the first look of a second mirror, does not (socket(7)). Raises OSError where the address is taken or foreign.
    """
    first = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0]
    with _bound(first, first[4], socket.SO_REUSEADDR) as look:
        address = look.getsockname()
    try:
        return _bound(first, address, socket.SO_REUSEPORT)
    except OSError:
        # Connections to a server without SO_REUSEPORT that was here before (one worker) are still timing out.
        return _bound(first, address, socket.SO_REUSEADDR)


def _bound(first: tuple[Any, ...], address: Any, option: int) -> socket.socket:
    family, kind, protocol, *_ = first
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, option, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found
