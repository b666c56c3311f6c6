"""Looking for changes in a process of its own: a look at 5,000 layouts takes a tenth of a second of Python, which no
request should share.

The process knows of each place what `stat` said of it, no more; it is asked through a socket and answers with what
changed. It ends when that socket does, however its owner ended. Where it dies, the next look starts another.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mirror.sources.archive_reader import ArchiveReader
from mirror.sources.heap import uncollected
from mirror.sources.place_memory import RememberedPlaces
from mirror.sources.scan import Changes, Scanner
from mirror.sources.shelf import Failures, Shelf
from mirror.sources.walk import Root
from mirror.store.archive_state import ArchiveState
from mirror.store.place_state import PlaceState

_PACKAGES = str(Path(__file__).parents[2])
# Requests come first where both want the same CPU.
_NICENESS = 5
_STOP_SECONDS = 5.0


class ScanProcessEnded(Exception):
    """The process died, or could not be started; what it knew is known here as well."""


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

    def scanner(self, tidies: bool = True) -> Scanner:
        """Blocks: opens what is remembered of archives.

        `tidies`: whether what no archive needs any more is dropped from the cache.
        """
        reader = ArchiveReader(ArchiveState(self.state_file), self.unpacked_folder, self.max_unpacked_bytes)
        memory = RememberedPlaces(PlaceState(self.places_file))
        return Scanner(self.roots, self.own_hosts, Shelf(reader, tidies), memory)


@dataclass(slots=True)
class ScanProcess:
    """Asks the process, and starts it when there is none. One look at a time; `close` from any thread."""

    settings: ScanSettings
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _process: "subprocess.Popen[bytes] | None" = None
    _connection: "Connection[Any, Any] | None" = None
    _closed: bool = False

    @property
    def pid(self) -> int | None:
        """Of the process that was started last; None before the first."""
        return self._process.pid if self._process else None

    @property
    def closed(self) -> bool:
        """Whether `close` was called: no look will succeed any more."""
        return self._closed

    def look(self, scanner: Scanner) -> Changes:
        """What is new to `scanner`, found in the other process. Blocks. Raises ScanProcessEnded, or as `look`."""
        try:
            connection = self._connection
            if connection is None:
                connection = self._start()
                connection.send((self.settings, scanner.known()))
            connection.send(scanner.shelf.failures() if scanner.shelf else {})
            answer = connection.recv_bytes()
        except (OSError, EOFError) as error:
            self._end()
            raise ScanProcessEnded(str(error) or "it ended") from None
        with uncollected():
            found = pickle.loads(answer)  # noqa: S301 it comes from our own process
        if isinstance(found, Changes):
            return found
        # What went wrong there is the scan's own failure; what that process knows now is unsure.
        self._end()
        raise found

    def close(self) -> None:
        """End the process, also while it is being asked."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        self._end()

    def _start(self) -> "Connection[Any, Any]":
        ours, theirs = Pipe()
        code = (
            f"import sys; sys.path.append({_PACKAGES!r}); "
            f"from mirror.sources.scan_process import serve; serve({theirs.fileno()})"
        )
        with self._lock, theirs:
            if self._closed:
                ours.close()
                raise OSError("it was closed")
            # -P: what lies in the working directory is no module of ours.
            command = [sys.executable, "-P", "-c", code]
            self._process = subprocess.Popen(  # noqa: S603 the command is ours
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._connection = ours
        return ours

    def _end(self) -> None:
        with self._lock:
            process, connection = self._process, self._connection
            self._connection = None
            if connection is not None and process is not None:
                process.kill()
                # A disk that hangs holds even who was killed.
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
        if connection is not None:
            connection.close()


def serve(descriptor: int) -> None:
    """The other process: answers until the socket ends."""
    # The terminal's Ctrl-C is for the owner, who ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    connection: Connection[Any, Any] = Connection(descriptor)
    try:
        settings, known = connection.recv()
        scanner: Scanner = settings.scanner()
        scanner.know(known)
        scanner.memory = None  # the owner's to read and write
        while True:
            failures: Failures = connection.recv()
            if scanner.shelf is not None:
                scanner.shelf.know_failures(failures)
            connection.send(_answer(scanner))
    except (EOFError, ConnectionError):
        return


def _answer(scanner: Scanner) -> Changes | Exception:
    try:
        changes = scanner.look()
    except Exception as error:  # whatever it is, the owner is told and logs it
        return error
    scanner.note(changes)
    return changes
