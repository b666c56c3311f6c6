"""Many readers of one blob on one epoll loop: light enough that the server, not they, is what is measured.

`python -m tests.bench.crowd` reads a `Crowd` as JSON from standard input and prints what each reader met.
"""

import dataclasses
import json
import random
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
BLOCK_BYTES = MIB
_RECV_BYTES = MIB
_PATIENCE_SECONDS = 300
_ROOT = Path(__file__).parents[2]


def block() -> bytes:
    """What a blob of the crowd's repeats: its bytes can be checked at any offset without hashing."""
    return random.Random(7).randbytes(BLOCK_BYTES)


def blob(size: int) -> bytes:
    """`size` bytes of it."""
    one = block()
    return (one * (size // BLOCK_BYTES + 1))[:size]


@dataclass
class Reader:
    """One request: from `start` on, hung up after `stop_after` bytes of the body (None: read to the end).

    One that does not `check` lets the kernel throw its bytes away unseen (MSG_TRUNC, tcp(7)), and only counts them.
    """

    start: int = 0
    stop_after: int | None = None
    check: bool = True


@dataclass
class Met:
    """What a reader met. Times in seconds since it sent its request; `right`: every byte was the blob's."""

    start: int
    stop_after: int | None
    status: int = 0
    bytes: int = 0
    right: bool = True
    whole: bool = False
    first_byte_seconds: float = -1.0
    total_seconds: float = -1.0


@dataclass
class Crowd:
    """Readers of `target` at `host`, all at once."""

    host: str
    target: str
    size: int
    readers: list[Reader]

    def run(self) -> list[Met]:
        """Read, all of them; in this process."""
        expected = block() * 3
        with selectors.DefaultSelector() as selector:

            def take(wait_seconds: float) -> None:
                for key, _ in selector.select(wait_seconds):
                    key.data.ready(expected)

            connections = []
            for reader in self.readers:
                connections.append(_Connection(self, reader, selector))
                # Clients are machines of their own: that others are still being opened is no delay of this one's.
                take(0)
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while selector.get_map() and time.monotonic() < deadline:
                take(1)
            for connection in connections:
                connection.socket.close()
        return [connection.met for connection in connections]

    def run_apart(self) -> list[Met]:
        """The same in a process of its own, so that nothing else here slows the readers."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.crowd"],
            input=json.dumps(dataclasses.asdict(self)).encode(),
            capture_output=True,
            check=True,
            cwd=_ROOT,
            timeout=2 * _PATIENCE_SECONDS,
        )
        return [Met(**one) for one in json.loads(done.stdout)]


class _Connection:
    """A reader on its way."""

    _buffer = memoryview(bytearray(_RECV_BYTES))

    def __init__(self, crowd: Crowd, reader: Reader, selector: selectors.BaseSelector) -> None:
        self.met = Met(reader.start, reader.stop_after)
        self._size = crowd.size
        self._selector = selector
        self._head = b""
        self._in_body = False
        self._check = reader.check
        host, _, port = crowd.host.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        ranged = f"Range: bytes={reader.start}-\r\n" if reader.start else ""
        self._began = time.monotonic()
        self.socket.sendall(f"GET {crowd.target} HTTP/1.1\r\nHost: {crowd.host}\r\n{ranged}\r\n".encode())
        self.socket.setblocking(False)
        selector.register(self.socket, selectors.EVENT_READ, self)

    def ready(self, expected: bytes) -> None:
        """Take what came."""
        try:
            skip = self._in_body and not self._check
            count = self.socket.recv_into(self._buffer, 0, socket.MSG_TRUNC if skip else 0)
        except ConnectionError:
            count = 0
        if not count:
            self._end()
            return
        piece = self._buffer[:count]
        if not self._in_body:
            self._head += bytes(piece)
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self.met.status = int(head.split(b" ", 2)[1])
            self._in_body = True
            piece = memoryview(rest)
            if self.met.status not in (200, 206):
                self.met.right = False
                self._end()
                return
        if piece:
            self._take(piece, expected)

    def _take(self, piece: memoryview, expected: bytes) -> None:
        met = self.met
        if met.first_byte_seconds < 0:
            met.first_byte_seconds = time.monotonic() - self._began
        at = (met.start + met.bytes) % BLOCK_BYTES
        # As bytes: comparing views looks at each of their elements, ten times as long.
        if self._check and bytes(piece) != expected[at : at + len(piece)]:
            met.right = False
        met.bytes += len(piece)
        if met.start + met.bytes >= self._size:
            met.whole = met.start + met.bytes == self._size
            self._end()
        elif met.stop_after is not None and met.bytes >= met.stop_after:
            self._end()

    def _end(self) -> None:
        self.met.total_seconds = time.monotonic() - self._began
        self._selector.unregister(self.socket)
        self.socket.close()


def mixed(size: int, count: int = 50, seed: int = 1, check_every: int = 1) -> Iterator[Reader]:
    """`count` clients: one hangs up at a tenth, a third open four ranges each and hang up soon, the rest read all.

    Of these, every `check_every`th looks at its bytes.
    """
    chance = random.Random(seed)
    yield Reader(0, size // 10)
    rangers = count // 3
    for _ in range(rangers):
        for _ in range(4):
            yield Reader(chance.randrange(1, size - 1), chance.randrange(1, 256 * 1024))
    yield from (Reader(check=number % check_every == 0) for number in range(count - 1 - rangers))


def main() -> int:
    given = json.load(sys.stdin)
    crowd = Crowd(**{**given, "readers": [Reader(**one) for one in given["readers"]]})
    print(json.dumps([dataclasses.asdict(met) for met in crowd.run()]))  # noqa: T201 the answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
