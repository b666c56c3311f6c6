"""One process that looks for changes, for all workers: a look at 5,000 layouts takes a tenth of a second of Python,
which no request should share, and which N workers need not do N times.

It is started again when it dies, and ends when its owner does, however that ends.
"""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Never, Self

from mirror import logs
from mirror.logs import event
from mirror.sources.archive_reader import ArchiveReader
from mirror.sources.pauses import failures_now, pause_seconds
from mirror.sources.place_memory import RememberedPlaces
from mirror.sources.scan import Scanner
from mirror.sources.scan_service import ScanService
from mirror.sources.shelf import Shelf
from mirror.sources.walk import Root
from mirror.store.archive_state import ArchiveState
from mirror.store.place_state import PlaceState

log = logging.getLogger(__name__)

_PACKAGES = str(Path(__file__).parents[2])
_STOP_SECONDS = 5.0
# Stopping and reloading is for the owner, who ends this process, whomever else the signal was sent to.
_OWNERS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Where both want the same CPU, the port comes before the first scan, and requests before the others.
_NICENESS = 5


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What a scanner is made of, as plain values.

    `state_file` remembers what slow reading of archives found, `places_file` what was read of everything.
    """

    roots: Sequence[Root]
    own_hosts: frozenset[str]
    state_file: str
    places_file: str
    unpacked_folder: str
    max_unpacked_bytes: int
    refresh_seconds: float = 5.0
    log_format: logs.Format = "auto"

    def scanner(self, tidies: bool = True) -> Scanner:
        """Blocks: opens what is remembered of archives.

        `tidies`: whether what no archive needs any more is dropped from the cache.
        """
        return Scanner(self.roots, self.own_hosts, self.shelf(tidies), RememberedPlaces(PlaceState(self.places_file)))

    def shelf(self, tidies: bool = True) -> Shelf:
        """Blocks, as `scanner`."""
        reader = ArchiveReader(ArchiveState(self.state_file), self.unpacked_folder, self.max_unpacked_bytes)
        return Shelf(reader, tidies)


class ScanProcess:
    """Runs inside its context, or from `start` to `close`, again and again.

    `address` is for each worker's `ScanFeed`; it stays the same while processes come and go.
    """

    def __init__(self, settings: ScanSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        # The kernel gives a free abstract address: no file that a full disk refuses, none to be cleared away.
        self._listener.bind("")
        self._listener.listen()
        self.address: bytes = self._listener.getsockname()
        self._keeper = threading.Thread(target=self._keep, name="scan process", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it. Blocks for a moment."""
        self._start()
        self._keeper.start()

    def close(self) -> None:
        """End it. Blocks until it has ended."""
        with self._lock:
            self._closing.set()
            if self._process is not None:
                self._process.kill()
        if self._keeper.ident is not None:
            self._keeper.join(_STOP_SECONDS)  # a disk that hangs holds even who was killed
        self._listener.close()

    def _keep(self) -> None:
        """Start it again when it dies."""
        failures = 0
        while True:
            begun = time.monotonic()
            status = self._wait()
            if self._closing.is_set():
                return
            failures = failures_now(failures, begun)
            pause = pause_seconds(failures)
            event(log, logging.ERROR, "scan_process_died", exit_status=status, again_in_seconds=pause)
            if self._closing.wait(pause):
                return
            try:
                self._start()
            except OSError as error:
                event(log, logging.ERROR, "scan_process_not_started", reason=error)

    def _wait(self) -> int | None:
        """The exit status of the process, once it has ended; None where it could not be started."""
        if self._process is None:
            return None
        with self._process:  # its pipe is closed behind it
            return self._process.wait()

    def _start(self) -> None:
        code = (
            f"import sys; sys.path.append({_PACKAGES!r}); "
            f"from mirror.sources.scan_process import serve; serve({self._listener.fileno()})"
        )
        with self._lock:
            if self._closing.is_set():
                return
            self._process = None
            # Signals to the whole group must not reach it before it ignores them.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OWNERS_SIGNALS)
            try:
                # -P: what lies in the working directory is no module of ours.
                self._process = subprocess.Popen(  # noqa: S603 the command is ours
                    [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, pass_fds=[self._listener.fileno()]
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        assert self._process.stdin is not None  # noqa: S101 it is a pipe
        with suppress(BrokenPipeError):  # it died at once, as `_keep` will see
            pickle.dump(self._settings, self._process.stdin)
            self._process.stdin.flush()


def serve(descriptor: int) -> Never:
    """The process itself. Its standard input brings the settings, and ends with its owner."""
    for number in _OWNERS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OWNERS_SIGNALS)
    os.nice(_NICENESS)
    settings: ScanSettings = pickle.load(sys.stdin.buffer)  # noqa: S301 it comes from our owner
    threading.Thread(target=_end_with_owner, daemon=True).start()
    # A server that cannot start says why, in one line: ours are for one that runs.
    begin_logs = logs.prepare(settings.log_format)
    service = ScanService(settings.scanner, settings.refresh_seconds)
    listener = socket.socket(fileno=descriptor)
    threading.Thread(target=_attend, args=(service, listener, begin_logs), daemon=True).start()
    service.run()


def _attend(service: ScanService, listener: socket.socket, begin_logs: Callable[[], None]) -> Never:
    """A process that can take no worker (no thread or descriptor is left for it) makes room for another."""
    try:
        service.attend(listener, begin_logs)
    finally:
        os._exit(1)


def _end_with_owner() -> Never:
    sys.stdin.buffer.read()
    os._exit(0)
