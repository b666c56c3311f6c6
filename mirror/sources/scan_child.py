"""What the scan process runs. It loads all that it needs before it is told what to look through."""

import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Never

from mirror import logs
from mirror.sources.scan_process import OWNERS_SIGNALS
from mirror.sources.scan_service import ScanService
from mirror.sources.scan_settings import ScanSettings
from mirror.sources.scanners import scanner_of

# Where both want the same CPU, the port comes before the first scan, and requests before the others.
_NICENESS = 5


def serve(descriptor: int) -> Never:
    """The process itself. Its standard input brings the settings, and ends with its owner."""
    for number in OWNERS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OWNERS_SIGNALS)
    os.nice(_NICENESS)
    try:
        settings: ScanSettings = pickle.load(sys.stdin.buffer)  # noqa: S301 it comes from our owner
    except EOFError:
        os._exit(0)  # it has nothing to look through: its configuration is wrong, and says so itself
    threading.Thread(target=_end_with_owner, daemon=True).start()
    # A server that cannot start says why, in one line: ours are for one that runs.
    begin_logs = logs.prepare(settings.log_format)
    service = ScanService(lambda: scanner_of(settings), settings.refresh_seconds)
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
