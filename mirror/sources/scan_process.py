"""One process that looks for changes, for all workers: a look at 5,000 layouts takes a tenth of a second of Python,
which no request should share, and which N workers need not do N times.

It is started again when it dies, and ends when its owner does, however that ends.
"""

import logging
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from mirror.logs import event
from mirror.sources.pauses import failures_now, pause_seconds
from mirror.sources.scan_settings import ScanSettings

log = logging.getLogger(__name__)

_PACKAGES = str(Path(__file__).parents[2])
_STOP_SECONDS = 5.0
# Stopping and reloading is for the owner, who ends this process, whomever else the signal was sent to.
OWNERS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ScanProcess:
    """Runs from `start` to `close`, again and again; a context closes it at its end.

    `address` is for each worker's `ScanFeed`; from `start` on it is the same while processes come and go.
    """

    def __init__(self) -> None:
        self._settings: ScanSettings | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: socket.socket | None = None
        self.address = b""
        self._keeper = threading.Thread(target=self._keep, name="scan process", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self) -> None:
        """Have it load what it needs, while its settings are not known yet. Blocks for a moment; never raises."""
        with suppress(OSError):  # `start` says so
            self._spawn()

    def start(self, settings: ScanSettings) -> None:
        """Start it. Blocks for a moment; raises OSError where there can be no other process."""
        self._settings = settings
        if self._process is None:
            self._spawn()
        self._tell()
        self._keeper.start()

    def close(self) -> None:
        """End it. Blocks until it has ended."""
        with self._lock:
            self._closing.set()
            if self._process is not None:
                self._process.kill()
        # A disk that hangs holds even who was killed.
        if self._keeper.ident is not None:
            self._keeper.join(_STOP_SECONDS)
        elif self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            self._let_go(self._process)
        if self._listener is not None:
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
                self._spawn()
                self._tell()
            except OSError as error:
                event(log, logging.ERROR, "scan_process_not_started", reason=error)

    def _wait(self) -> int | None:
        """The exit status of the process, once it has ended; None where it could not be started."""
        if self._process is None:
            return None
        status = self._process.wait()
        self._let_go(self._process)
        return status

    @staticmethod
    def _let_go(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None  # noqa: S101 it is a pipe
        with suppress(BrokenPipeError):  # settings that it did not live to read are still to be sent
            process.stdin.close()

    @staticmethod
    def _listen() -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            # The kernel gives a free abstract address: no file that a full disk refuses, none to be cleared away.
            listener.bind("")
            listener.listen()
        except BaseException:
            listener.close()
            raise
        return listener

    def _spawn(self) -> None:
        listener = self._listener = self._listener or self._listen()
        self.address = listener.getsockname()
        code = (
            f"import sys; sys.path.append({_PACKAGES!r}); "
            f"from mirror.sources.scan_child import serve; serve({listener.fileno()})"
        )
        with self._lock:
            self._process = None
            if self._closing.is_set():
                return
            # Signals to the whole group must not reach it before it ignores them.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, OWNERS_SIGNALS)
            try:
                # -P: what lies in the working directory is no module of ours.
                self._process = subprocess.Popen(  # noqa: S603 the command is ours
                    [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _tell(self) -> None:
        """Have it begin. Its standard input stays open as long as this process lives."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101 it is a pipe
        with suppress(BrokenPipeError):  # it has died, as `_keep` will see
            pickle.dump(self._settings, process.stdin)
            process.stdin.flush()
