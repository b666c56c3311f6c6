"""A worker's end of the scan process: hears what its looks found, as places (the lines are described there)."""

import io
import json
import os
import socket
import struct
import threading
from dataclasses import dataclass

from mirror.sources.heap import uncollected
from mirror.sources.place import Place
from mirror.sources.places import Places

_CREDENTIALS = struct.Struct("3i")


class ScansEnded(Exception):
    """The scan process has ended, or the feed was closed; another `next` waits for the process to be there again."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What lies in the roots; `changed` tells whether that is new.

    `unpacking`: archives are still to be unpacked for the first time, so that more names may yet turn up.
    """

    places: tuple[Place, ...]
    changed: bool
    unpacking: bool


class ScanFeed:
    """One thread asks for what is `next`; all else may come from any other."""

    def __init__(self, address: bytes) -> None:
        self._address = address
        self._places = Places()
        self._hearing = threading.Lock()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._lines: io.BufferedReader | None = None
        self._asked = False
        self._closed = False

    def next(self) -> Heard:
        """What the next look found; waits for it. Raises ScansEnded, or ValueError, KeyError or else for nonsense;
        after any of them the next call begins anew.
        """
        with self._hearing:
            try:
                return self._hear(self._lines or self._connect())
            except BaseException as error:
                self._places.unhear()
                self._disconnect()
                if isinstance(error, (OSError, EOFError)):
                    raise ScansEnded(str(error)) from None
                raise

    def ask(self) -> None:
        """Look now rather than at the next turn. Does not block."""
        self._asked = not self._send(b"\n")

    def doubt(self, path: str) -> None:
        """Read what lies at this path again, though its file is the same: its bytes were found to be others."""
        # Whoever asks for those bytes while nobody listens brings it up again.
        self._send(json.dumps(path).encode() + b"\n")

    def close(self) -> None:
        """Whoever waits for what is next waits no longer; blocks until that one has gone."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        with self._hearing:
            self._disconnect()

    def _send(self, line: bytes) -> bool:
        """Whether it was sent, or need not be: where so much waits to be read, a look is asked for already."""
        with self._lock:
            if self._socket is None:
                return False
            try:
                self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return True
            except OSError:
                return False
            return True

    def _connect(self) -> io.BufferedReader:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._address)
            if not is_same_user(connection):
                raise PermissionError("another user listens there")
            with self._lock:
                if self._closed:
                    raise EOFError("closed")
                self._socket = connection
        except BaseException:
            connection.close()
            raise
        lines = self._lines = connection.makefile("rb")
        if self._asked:
            self.ask()
        return lines

    def _disconnect(self) -> None:
        with self._lock:
            lines, connection, self._lines, self._socket = self._lines, self._socket, None, None
        for one in (lines, connection):
            if one is not None:
                one.close()

    def _hear(self, lines: io.BufferedReader) -> Heard:
        head = json.loads(_line(lines))
        # What comes now comes to stay.
        with uncollected():
            while "path" in head:
                amount = head["lines"]
                document = None if amount is None else "\n".join([_line(lines) for _ in range(amount)])
                self._places.hear(head["path"], document)
                head = json.loads(_line(lines))
            changed = self._places.take(head["order"])
        return Heard(self._places.all, changed, head["unpacking"])


def is_same_user(connection: socket.socket) -> bool:
    """Whether the other end is this user's: abstract addresses have no permissions."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())


def _line(lines: io.BufferedReader) -> str:
    line = lines.readline()
    if not line.endswith(b"\n"):
        raise EOFError("it ended")
    return line[:-1].decode()
