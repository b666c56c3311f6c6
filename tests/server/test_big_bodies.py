"""Bodies of files, over http and https: the bytes, whatever the disk, the client and time do."""

import os
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.server.file_body import REST_BYTES
from mirror.store.threads import PIECE_BYTES, read_cached
from tests.content import LayoutWriter
from tests.hub.tls import Authority
from tests.running import get, open_below, wait_until
from tests.server_process import MirrorProcess

MIB = 1 << 20
SIZE = 5 * MIB + 4321
PATIENCE_SECONDS = 30


class Big:
    """A mirror of one image with a big layer, in a process of its own."""

    def __init__(self, folder: Path, scheme: str) -> None:
        self.content = random.Random(3).randbytes(SIZE)
        self.layouts = folder / "layouts"
        writer = LayoutWriter(self.layouts / "team/app")
        layer = writer.blob(self.content)
        writer.tag(writer.image([self.content]), "1").save()
        self.path = writer.blob_path(layer)
        self.target = f"/v2/team/app/blobs/{layer.digest}"
        self.context: ssl.SSLContext | None = None
        config = [f"layouts: [{self.layouts}]"]
        if scheme == "https":
            authority = Authority(folder)
            certificate, key = authority.issue("localhost", "127.0.0.1")
            self.context = ssl.create_default_context(cafile=authority.ca)
            config.append(f"tls: {{cert: {certificate}, key: {key}}}")
        (folder / "config.yaml").write_text("\n".join(config))
        self.mirror = MirrorProcess(folder / "mirror.log", "--config", str(folder / "config.yaml"))

    def connect(self, receive_buffer_bytes: int | None = None) -> socket.socket:
        host, _, port = self.mirror.host.rpartition(":")
        plain = socket.socket()
        if receive_buffer_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        plain.settimeout(PATIENCE_SECONDS)
        plain.connect((host, int(port)))
        return self.context.wrap_socket(plain, server_hostname="localhost") if self.context else plain

    def forget_pages(self) -> bool:
        """Have the kernel drop the file from its page cache; whether it did."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return read_cached(fd, bytearray(PIECE_BYTES), 0) is None
        finally:
            os.close(fd)


@pytest.fixture(scope="module", params=["http", "https"])
def big(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Big]:
    found = Big(tmp_path_factory.mktemp("big"), request.param)
    with found.mirror:
        # The last line of a start, which may come after the first answer.
        wait_until(lambda: bool(found.mirror.events("serving")), "all is found")
        yield found


def request(target: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def answers(connection: socket.socket, count: int, piece_bytes: int = MIB) -> list[bytes]:
    """The bodies of the next answers, read in pieces of so many bytes."""
    stream = connection.makefile("rb", buffering=0)
    bodies = []
    for _ in range(count):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = stream.read(1)
            assert byte, head
            head += byte
        size = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
        body = bytearray()
        while len(body) < size:
            piece = stream.read(min(piece_bytes, size - len(body)))
            assert piece, f"cut after {len(body)} of {size} bytes"
            body += piece
        bodies.append(bytes(body))
    return bodies


def test_what_the_page_cache_does_not_hold_is_read_from_the_disk(big: Big) -> None:
    with big.connect() as connection:
        for _ in range(3):
            if not big.forget_pages():
                pytest.skip("this file system keeps every page")
            connection.sendall(request(big.target))
            assert answers(connection, 1) == [big.content]


@pytest.mark.parametrize("start", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, SIZE - REST_BYTES - 1, SIZE - 1])
def test_a_range_that_begins_anywhere_has_its_bytes(big: Big, start: int) -> None:
    with big.connect() as connection:
        connection.sendall(request(big.target, f"Range: bytes={start}-"))
        assert answers(connection, 1) == [big.content[start:]]


def test_answers_to_requests_sent_together_come_whole_and_in_order(big: Big) -> None:
    """Also when the client takes them late: nothing of a later answer overtakes what waits of an earlier one."""
    ends = [SIZE, PIECE_BYTES + 1, REST_BYTES, 3, SIZE]
    with big.connect(receive_buffer_bytes=4096) as connection:
        connection.sendall(b"".join(request(big.target, f"Range: bytes=0-{end - 1}") for end in ends))
        connection.sendall(request("/v2/team/app/tags/list"))
        *bodies, tags = answers(connection, len(ends) + 1, piece_bytes=50_000)
    assert bodies == [big.content[:end] for end in ends]
    assert tags == b'{"name":"team/app","tags":["1"]}'


def test_many_who_read_at_once_each_get_their_own_bytes(big: Big) -> None:
    """All answers are read into one buffer: what one waits with must not be what another has read since."""
    starts = [number * 7919 for number in range(40)]
    connections = [big.connect(receive_buffer_bytes=8192) for _ in starts]
    for connection, start in zip(connections, starts, strict=True):
        connection.sendall(request(big.target, f"Range: bytes={start}-"))
    for connection, start in zip(connections, starts, strict=True):
        with connection:
            assert answers(connection, 1) == [big.content[start:]]


def test_a_client_that_goes_away_costs_nothing_and_is_no_event(big: Big) -> None:
    said = len(big.mirror.events())
    for _ in range(20):
        with big.connect(receive_buffer_bytes=4096) as connection:
            connection.sendall(request(big.target))
            connection.recv(1000)
    wait_until(lambda: not open_below(big.layouts, big.mirror.pid), "every blob is closed")
    assert big.mirror.events()[said:] == []


def test_a_file_that_is_cut_short_while_it_is_sent_cuts_the_answer(tmp_path: Path) -> None:
    big = Big(tmp_path, "http")
    with big.mirror, big.connect(receive_buffer_bytes=4096) as connection:
        connection.sendall(request(big.target))
        connection.recv(1000)
        os.truncate(big.path, SIZE // 2)
        received = 0
        try:
            while piece := connection.recv(MIB):
                received += len(piece)
        except ConnectionResetError:
            pass
        assert received < SIZE
        wait_until(lambda: len(big.mirror.events("answer_cut")) == 1, "the cut is told")
        assert get(big.mirror.host, "/v2/").status == 200
