"""A mirror to be mistreated: in this process or as one of its own, and sockets without an HTTP client's manners."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.app.serving import Running, running
from mirror.config.document import Document
from mirror.config.validate import validate

# Far above what anything here takes; only what hangs reaches it.
PATIENCE_SECONDS = 30
_POLL_SECONDS = 0.02


@asynccontextmanager
async def running_mirror(folder: Path, **keys: Any) -> AsyncIterator[Running]:
    """A mirror of `folder`/layouts in this process, on a free port; `keys` as in config.yaml.

    Its first scan has ended. It looks at its folders every 50 ms unless told otherwise.
    """
    values = {"listen": "127.0.0.1:0", "layouts": ["layouts"], "refresh": "50ms", **keys}
    config = await asyncio.to_thread(validate, Document("the test", values), folder)
    async with running(config) as mirror:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await mirror.local.wait_complete()
        yield mirror


@dataclass(frozen=True)
class Reply:
    """A whole HTTP/1.1 answer as it came; `headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_whole(self) -> bool:
        """Whether the body has the length that was announced."""
        return len(self.body) == int(self.headers.get("content-length", "0"))


class Client:
    """One blocking connection, byte by byte. Use it in a thread where a mirror runs in the same process."""

    def __init__(self, host: str, *, receive_buffer_bytes: int | None = None) -> None:
        name, _, port = host.rpartition(":")
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        self.socket = socket.socket(family)
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(PATIENCE_SECONDS)
        try:
            self.socket.connect((name.strip("[]"), int(port)))
        except BaseException:
            self.socket.close()
            raise
        # What was received and not yet read.
        self.pending = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def ask(self, target: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> None:
        """Send the head of a request and read nothing yet."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def head(self) -> Reply:
        """The head of the next answer; its body is left to `body`."""
        while b"\r\n\r\n" not in self.pending:
            piece = self.socket.recv(65536)
            assert piece, f"closed instead of an answer, after {self.pending!r}"
            self.pending += piece
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Reply(int(first.split(" ")[1]), headers, b"")

    def body(self, size: int) -> bytes:
        """`size` bytes, or fewer where the connection was closed or cut."""
        found = bytearray(self.pending)
        while len(found) < size:
            try:
                piece = self.socket.recv(1 << 20)
            except ConnectionResetError:
                break
            if not piece:
                break
            found += piece
        self.pending = bytes(found[size:])
        return bytes(found[:size])

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        return self.body(1 << 62)

    def reply(self, method: str = "GET") -> Reply:
        """The next answer with its body."""
        found = self.head()
        bodiless = method == "HEAD" or found.status == 304
        size = 0 if bodiless else int(found.headers.get("content-length", "0"))
        return Reply(found.status, found.headers, self.body(size))


def get(host: str, target: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
    """One request on a connection of its own."""
    with Client(host) as client:
        client.ask(target, method=method, headers=headers)
        return client.reply(method)


def raw(host: str, content: bytes) -> bytes:
    """Send bytes that may be anything, and read until the server closes. A reset counts as closed."""
    with Client(host) as client:
        # It may answer before it has everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(content)
        return client.rest()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until it holds. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(_POLL_SECONDS)


async def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """The same beside a running event loop; the condition is asked in a thread and may block."""
    await asyncio.to_thread(wait_until, condition, what, seconds)


def open_files(pid: int | str = "self") -> list[str]:
    """What the descriptors of a process lead to, sockets included."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue  # closed meanwhile, or the listing's own
    return found


def open_below(folder: Path, pid: int | str = "self") -> list[str]:
    """The open files that lie below `folder`."""
    return [path for path in open_files(pid) if path.startswith(f"{folder}/")]


def resident_bytes(pid: int) -> int:
    """Memory that the process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def file_of(path: Path, size: int) -> Iterator[Path]:
    """A sparse file of `size` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    yield path
