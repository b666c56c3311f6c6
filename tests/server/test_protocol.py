"""What is no HTTP, too long, or too slow: an answer of this registry's kind or a closed connection, never a hang."""

import asyncio
import gc
import json
import logging
import types
from pathlib import Path

import pytest

from mirror.server.file_body import Direct
from mirror.server.http import Listener
from tests.content import LayoutWriter, describe
from tests.running import PATIENCE_SECONDS, Client, eventually, get, open_below, open_files, raw, running_mirror

LONG = "a" * 100 * 1024


def layout(folder: Path) -> None:
    writer = LayoutWriter(folder / "layouts" / "app")
    writer.tag(writer.image(), "1.0").save()


def host_of(listener: Listener) -> str:
    return listener.url.partition("://")[2]


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # a TLS hello on a plain port
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nNo colon here\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /v2/app/manifests/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_with_the_registrys_error_body(
    tmp_path: Path, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running_mirror(tmp_path) as mirror:
        host = host_of(mirror.listener)
        answer = await asyncio.to_thread(raw, host, sent)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
        assert [error["code"] for error in json.loads(body)["errors"]] == ["UNSUPPORTED"]
        for telling in (b"Traceback", b"aiohttp", b"Python"):
            assert telling not in answer
        assert (await asyncio.to_thread(get, host, "/v2/")).status == 200
    assert "Traceback" not in caplog.text
    assert "malformed" not in caplog.text, "anybody can send garbage: it must not fill the log"


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        (f"GET /v2/{LONG}/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n", {431}),
        (f"GET /v2/?n={LONG} HTTP/1.1\r\nHost: x\r\n\r\n", {431}),
        (f"GET /v2/ HTTP/1.1\r\nHost: {LONG}\r\n\r\n", {431}),
        (f"GET /v2/ HTTP/1.1\r\nHost: x\r\nOCI-REF-NAME: {LONG}\r\n\r\n", {431}),
        (f"GET /v2/ HTTP/1.1\r\nHost: x\r\n{LONG}: y\r\n\r\n", {431}),
        ("GET /v2/ HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 5_000 + "\r\n", {400, 431}),
        (f"GET /v2/{'a/' * 3_900}manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
        (f"GET /v2/app/manifests/{'a' * 7_000} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", {404}),
        (f"GET /v2/app/blobs/sha256:{'a' * 7_000} HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
        (f"GET /v2/app/tags/list?n={'9' * 7_000} HTTP/1.1\r\nHost: x\r\n\r\n", {200}),
        (f"GET /v2/app/manifests/1.0 HTTP/1.1\r\nHost: x\r\nRange: bytes={'1-2,' * 1_900}\r\n\r\n", {200}),
        (f"GET /v2/app/manifests/1.0 HTTP/1.1\r\nHost: x\r\nIf-None-Match: {chr(34) * 8_000}\r\n\r\n", {200}),
    ],
)
async def test_what_is_too_long_is_a_clear_4xx(tmp_path: Path, head: str, statuses: set[int]) -> None:
    layout(tmp_path)
    async with running_mirror(tmp_path) as mirror:
        host = host_of(mirror.listener)

        def ask() -> int:
            with Client(host) as client:
                client.send(head.encode())
                reply = client.reply()
                if reply.status >= 400:
                    assert json.loads(reply.body)["errors"][0]["code"]
                return reply.status

        assert await asyncio.to_thread(ask) in statuses
        assert (await asyncio.to_thread(get, host, "/v2/app/manifests/1.0")).status == 200


async def test_a_head_that_never_ends_is_cut_and_others_are_served_meanwhile(tmp_path: Path) -> None:
    layout(tmp_path)
    async with running_mirror(tmp_path) as mirror:
        listener = Listener(mirror.listener.registry, "127.0.0.1", 0, idle_timeout_seconds=1)
        async with listener:
            host = host_of(listener)
            silent = await asyncio.to_thread(Client, host)
            slow = await asyncio.to_thread(Client, host)
            with silent, slow:
                await asyncio.to_thread(slow.send, b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ")
                assert (await asyncio.to_thread(get, host, "/v2/app/manifests/1.0")).status == 200
                assert await asyncio.to_thread(silent.rest) == b""
                assert await asyncio.to_thread(slow.rest) == b""


async def test_a_body_that_is_announced_and_never_sent_holds_up_nobody(tmp_path: Path) -> None:
    async with running_mirror(tmp_path) as mirror:
        host = host_of(mirror.listener)
        client = await asyncio.to_thread(Client, host)
        with client:
            await asyncio.to_thread(
                client.send, b"PUT /v2/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\nab"
            )
            assert (await asyncio.to_thread(client.reply)).status == 405
            assert (await asyncio.to_thread(get, host, "/v2/")).status == 200
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await asyncio.to_thread(client.rest) == b""


async def test_connections_that_go_without_a_word_leave_nothing_open(tmp_path: Path) -> None:
    async with running_mirror(tmp_path) as mirror:
        host = host_of(mirror.listener)
        before = len(open_files())

        def come_and_go() -> None:
            for sent in (b"", b"GET", b"GET /v2/ HTTP/1.1\r\n", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n") * 50:
                with Client(host) as client:
                    client.send(sent)

        await asyncio.to_thread(come_and_go)
        await eventually(lambda: len(open_files()) <= before, "every connection is closed")


async def test_of_a_client_that_went_nothing_is_kept_that_was_to_be_sent(tmp_path: Path) -> None:
    """The collector looks seldom at what has lived for a while, and a piece of a body weighs much."""
    content = bytes(32 * 1024 * 1024)
    writer = LayoutWriter(tmp_path / "layouts" / "app")
    await asyncio.to_thread(lambda: writer.tag(writer.image([content]), "1.0").save())
    async with running_mirror(tmp_path) as mirror:
        host = host_of(mirror.listener)

        def begin_and_go() -> None:
            with Client(host, receive_buffer_bytes=4096) as client:
                client.ask(f"/v2/app/blobs/{describe(content).digest}")
                assert client.head().status == 200

        gc.disable()
        try:
            await asyncio.to_thread(begin_and_go)
            await eventually(lambda: not open_below(tmp_path / "layouts"), "the blob is closed")
            frames = [one for one in gc.get_objects() if isinstance(one, types.FrameType)]
            kept = [frame.f_locals.keys() for frame in frames if frame.f_code is Direct.send.__code__]
        finally:
            gc.enable()
        assert not any(kept)
