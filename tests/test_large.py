"""Large content in constant memory, and clients that go, dawdle or come by the hundred."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.server.file_body import REST_BYTES
from tests.content import LayoutWriter, bare
from tests.running import Client, get, open_below, open_files, resident_bytes, wait_until
from tests.server_process import MirrorProcess

MIB = 1024 * 1024
GIB = 1024 * MIB
# Buffers, caches and threads of a server under load; a part of any large blob would be far more.
GROWTH_BYTES = 48 * MIB
END = b"the end"


class Large:
    """A mirror with one layer of 5 GiB: zeros, then END. Its digest is made up: nothing hashes local blobs."""

    size = 5 * GIB

    def __init__(self, folder: Path) -> None:
        writer = LayoutWriter(folder / "layouts" / "app")
        self.layer = Descriptor(media_types.OCI_LAYER_TAR, Digest.of(b"a name"), self.size)
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": bare(writer.blob(b"{}", media_types.OCI_EMPTY)),
            "layers": [bare(self.layer)],
        }
        writer.tag(writer.manifest(document), "1.0").save()
        path = writer.blob_path(self.layer)
        with path.open("wb") as file:
            file.truncate(self.size - len(END))
            file.seek(0, os.SEEK_END)
            file.write(END)
        self.target = f"/v2/app/blobs/{self.layer.digest}"
        self.layouts = folder / "layouts"
        self.mirror = MirrorProcess(folder / "mirror.log", "--layouts", str(self.layouts))

    @property
    def host(self) -> str:
        return self.mirror.host


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    found = Large(tmp_path_factory.mktemp("large"))
    with found.mirror:
        yield found


def drain(client: Client, size: int) -> int:
    """Read `size` bytes into nothing; how many came."""
    buffer = memoryview(bytearray(4 * MIB))
    received = len(client.body(0))
    while received < size:
        count = client.socket.recv_into(buffer[: min(len(buffer), size - received)])
        if not count:
            break
        received += count
    return received


@pytest.mark.xdist_group("large")
def test_a_blob_of_5_gib_streams_in_constant_memory(large: Large) -> None:
    get(large.host, "/v2/app/manifests/1.0")
    before = resident_bytes(large.mirror.pid)
    with Client(large.host) as client:
        client.ask(large.target)
        head = client.head()
        assert int(head.headers["content-length"]) == large.size
        # What came along with the head counts too.
        early = len(client.pending)
        peak = 0
        received = early
        client.pending = b""
        while received < large.size - len(END):
            received += drain(client, min(GIB, large.size - len(END) - received))
            peak = max(peak, resident_bytes(large.mirror.pid))
        assert client.body(len(END)) == END
    assert peak - before < GROWTH_BYTES


@pytest.mark.xdist_group("large")
@pytest.mark.parametrize(
    ("asked", "positions"),
    [
        ("-7", (Large.size - 7, Large.size)),
        (f"{4 * GIB}-{4 * GIB + 9}", (4 * GIB, 4 * GIB + 10)),
        (f"{Large.size - 1}-", (Large.size - 1, Large.size)),
        (f"{Large.size - 10}-{Large.size * 2}", (Large.size - 10, Large.size)),
    ],
)
def test_ranges_near_the_end_of_5_gib(large: Large, asked: str, positions: tuple[int, int]) -> None:
    start, stop = positions
    reply = get(large.host, large.target, headers={"Range": f"bytes={asked}"})
    assert reply.status == 206
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{large.size}"
    assert reply.body == (bytes(100) + END)[-(stop - start) :] if stop == large.size else bytes(stop - start)


@pytest.mark.xdist_group("large")
def test_a_range_beyond_5_gib_is_416(large: Large) -> None:
    reply = get(large.host, large.target, headers={"Range": f"bytes={large.size}-"})
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{large.size}")


@pytest.mark.xdist_group("large")
def test_ten_thousand_clients_that_go_in_the_middle_leave_nothing_behind(large: Large) -> None:
    get(large.host, large.target, method="HEAD")
    before, memory = len(open_files(large.mirror.pid)), resident_bytes(large.mirror.pid)
    said = len(large.mirror.events())
    for number in range(10_000):
        with Client(large.host, receive_buffer_bytes=4096) as client:
            client.ask(large.target)
            if number % 2:
                client.head()
    wait_until(lambda: not open_below(large.layouts, large.mirror.pid), "every blob is closed")
    wait_until(lambda: len(open_files(large.mirror.pid)) <= before, "every connection is closed")
    assert resident_bytes(large.mirror.pid) - memory < GROWTH_BYTES
    assert large.mirror.events()[said:] == [], "that clients go is no event"


@pytest.mark.xdist_group("large")
def test_clients_that_do_not_read_hold_little_memory_and_hold_up_nobody(large: Large) -> None:
    before, memory = len(open_files(large.mirror.pid)), resident_bytes(large.mirror.pid)
    slow = [Client(large.host, receive_buffer_bytes=4096) for _ in range(200)]
    for client in slow:
        client.ask(large.target)
    assert {client.head().status for client in slow} == {200}, "every answer has begun"
    assert get(large.host, "/v2/app/manifests/1.0").status == 200
    assert get(large.host, large.target, headers={"Range": "bytes=-7"}).body == END
    assert resident_bytes(large.mirror.pid) - memory < len(slow) * REST_BYTES + GROWTH_BYTES
    assert resident_bytes(large.mirror.pid) < 150 * MIB
    for client in slow:
        client.socket.close()
    wait_until(lambda: len(open_files(large.mirror.pid)) <= before, "every connection is closed")


@pytest.mark.xdist_group("large")
def test_reading_slowly_gets_every_byte(large: Large) -> None:
    with Client(large.host, receive_buffer_bytes=4096) as client:
        client.ask(large.target, headers={"Range": f"bytes={large.size - 200_000}-"})
        size = int(client.head().headers["content-length"])
        pieces = [client.body(min(997, size - at)) for at in range(0, size, 997)]
    assert b"".join(pieces) == bytes(200_000 - len(END)) + END


@pytest.mark.xdist_group("large")
def test_pulls_go_on_while_the_folders_are_looked_at(large: Large) -> None:
    with Client(large.host) as client:
        client.ask(large.target, headers={"Range": f"bytes=0-{GIB - 1}"})
        assert client.head().status == 206
        early, client.pending = len(client.pending), b""
        os.kill(large.mirror.pid, signal.SIGHUP)
        assert drain(client, GIB - early) == GIB - early
