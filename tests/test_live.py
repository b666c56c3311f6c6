"""Content that changes while it is served: seen soon, whole or not at all, and a pull that has begun stays true."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.oci.descriptor import Descriptor
from tests.content import LayoutWriter, describe
from tests.running import Client, eventually, get, open_below, open_files, running_mirror, wait_until
from tests.server_process import MirrorProcess

MIB = 1024 * 1024


def write(path: Path, *tags: str, layer: bytes = b"layer") -> Descriptor:
    writer = LayoutWriter(path)
    image = writer.image([layer])
    for tag in tags:
        writer.tag(image, tag)
    writer.save()
    return image


async def test_layouts_come_change_and_go_while_they_are_served(tmp_path: Path) -> None:
    layouts = tmp_path / "layouts"
    write(layouts / "stays", "1.0")
    async with running_mirror(tmp_path) as mirror:
        host = mirror.listener.url.removeprefix("http://")

        def status(target: str) -> int:
            assert get(host, "/v2/stays/manifests/1.0").status == 200
            return get(host, target).status

        async def becomes(wanted: int, target: str) -> None:
            await eventually(lambda: status(target) == wanted, f"{target} is {wanted}")

        await becomes(404, "/v2/app/manifests/1.0")
        write(tmp_path / "elsewhere", "1.0")
        (tmp_path / "elsewhere").rename(layouts / "app")
        await becomes(200, "/v2/app/manifests/1.0")
        write(layouts / "app", "1.0", "2.0")
        await becomes(200, "/v2/app/manifests/2.0")
        write(layouts / "app", "3.0", layer=b"other")
        await becomes(200, "/v2/app/manifests/3.0")
        await becomes(404, "/v2/app/manifests/1.0")
        write(tmp_path / "next", "4.0")
        (layouts / "app").rename(tmp_path / "old")
        (tmp_path / "next").rename(layouts / "app")
        await becomes(200, "/v2/app/manifests/4.0")
        await becomes(404, "/v2/app/manifests/3.0")
        shutil.rmtree(layouts / "app")
        await becomes(404, "/v2/app/manifests/4.0")
        layouts.rename(tmp_path / "away")
        await eventually(lambda: get(host, "/v2/stays/manifests/1.0").status == 404, "the root is away")
        (tmp_path / "away").rename(layouts)
        await eventually(lambda: get(host, "/v2/stays/manifests/1.0").status == 200, "the root is back")


@contextmanager
def large_blob(tmp_path: Path, size: int = 24 * MIB) -> Iterator[tuple[MirrorProcess, Path, str]]:
    """A mirror, and the file and the target of a blob that does not fit into a socket's buffers."""
    layer = bytes(1000) * (size // 1000)
    image = write(tmp_path / "layouts" / "app", "1.0", layer=layer)
    found = describe(layer)
    path = tmp_path / "layouts" / "app" / "blobs" / "sha256" / found.digest.hex
    assert image.size
    with MirrorProcess(tmp_path / "mirror.log", "--layouts", str(tmp_path / "layouts")) as mirror:
        yield mirror, path, f"/v2/app/blobs/{found.digest}"


def test_a_file_cut_short_under_a_pull_cuts_the_pull_and_puts_no_error_into_it(tmp_path: Path) -> None:
    with large_blob(tmp_path) as (mirror, path, target):
        with Client(mirror.host, receive_buffer_bytes=65536) as client:
            client.ask(target)
            head = client.head()
            assert head.status == 200
            begun = client.body(MIB)
            os.truncate(path, 8 * MIB)
            rest = client.rest()
        announced = int(head.headers["content-length"])
        # What was on its way is lost with the connection, as the client sees it.
        assert MIB <= len(begun) + len(rest) < announced
        assert not any(begun), "only the blob's own bytes"
        assert not any(rest), "no error text, no second answer, inside the body"
        wait_until(lambda: bool(mirror.events("answer_cut")), "the log says that an answer was cut")
        assert get(mirror.host, target).status == 404
        wait_until(lambda: not open_below(tmp_path / "layouts", mirror.pid), "the file is closed")
        assert get(mirror.host, "/v2/app/manifests/1.0").status == 200


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_pull_ends_with_the_bytes_that_it_began_with(tmp_path: Path, how: str) -> None:
    with large_blob(tmp_path) as (mirror, path, target), Client(mirror.host, receive_buffer_bytes=65536) as client:
        client.ask(target)
        size = int(client.head().headers["content-length"])
        begun = client.body(MIB)
        if how == "replaced":
            other = tmp_path / "other"
            other.write_bytes(b"x" * size)
            other.rename(path)
        else:
            shutil.rmtree(tmp_path / "layouts" / "app")
        os.kill(mirror.pid, signal.SIGHUP)
        rest = client.body(size - len(begun))
        assert len(begun) + len(rest) == size
        assert not any(begun)
        assert not any(rest)


def test_sighup_looks_at_the_folders_now(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("layouts: [layouts]\nrefresh: 1h\n")
    (tmp_path / "layouts").mkdir()
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        write(tmp_path / "layouts" / "app", "1.0")
        assert get(mirror.host, "/v2/app/manifests/1.0").status == 404
        os.kill(mirror.pid, signal.SIGHUP)
        wait_until(lambda: get(mirror.host, "/v2/app/manifests/1.0").status == 200, "the new layout is served")


async def test_many_rescans_under_load_leave_no_descriptor_behind(tmp_path: Path) -> None:
    layouts = tmp_path / "layouts"
    for number in range(20):
        write(layouts / f"app{number}", "1.0", layer=b"x" * number)
    async with running_mirror(tmp_path, refresh="1ms") as mirror:
        host = mirror.listener.url.removeprefix("http://")
        before = len(open_files())

        def pull(number: int) -> None:
            for turn in range(20):
                assert get(host, f"/v2/app{number}/manifests/1.0").status == 200
                assert get(host, f"/v2/app{number}/blobs/{describe(b'x' * number).digest}").status == 200
                write(layouts / f"app{number}", "1.0", f"t{turn}", layer=b"x" * number)

        generation = mirror.local.generation
        await asyncio.gather(*(asyncio.to_thread(pull, number) for number in range(4)))
        await eventually(lambda: mirror.local.generation > generation, "a rescan saw the changes")
        await eventually(lambda: len(open_files()) <= before, "as many descriptors as before")
        await eventually(lambda: not open_below(layouts), "no file of the layouts is open")


def test_running_out_of_descriptors_takes_nothing_off(tmp_path: Path) -> None:
    write(tmp_path / "layouts" / "app", "1.0")
    (tmp_path / "config.yaml").write_text("layouts: [layouts]\nrefresh: 20ms\n")
    mirror = MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path)
    mirror.command = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *mirror.command]
    with mirror:
        crowd = [Client(mirror.host) for _ in range(60)]
        try:
            write(tmp_path / "late", "1.0")
            (tmp_path / "late").rename(tmp_path / "layouts" / "late")
            # Looking for changes goes on in a process of its own.
            wait_until(lambda: len(mirror.events("serving")) > 1, "a scan while nothing can be opened")
        finally:
            for client in crowd:
                client.socket.close()
        wait_until(lambda: mirror.status("/readyz") == 200, "there are descriptors again")
        assert get(mirror.host, "/v2/app/manifests/1.0").status == 200
        wait_until(lambda: get(mirror.host, "/v2/late/manifests/1.0").status == 200, "what came meanwhile is served")
        assert not mirror.events("skipped")
        assert all(found["repositories"] for found in mirror.events("serving")), "nothing was taken off"
