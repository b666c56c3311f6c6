"""Many at once on one blob that nobody has yet: one body for all, and each is asked whether they may have it."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.names import Name
from mirror.server.access import Identity
from tests.hub import Hub, Stall, Status, eventually
from tests.pull_through.asking import APP, HOST, blob_files, path, pulling, upstream
from tests.running import open_below
from tests.serving import serving

MIB = 1 << 20
COUNT = 40


async def test_a_crowd_gets_one_body_by_one_request_whoever_leaves(tmp_path: Path, hub: Hub) -> None:
    content = random.Random(1).randbytes(4 * MIB)
    digest = hub.blob(APP, content)
    release = asyncio.Event()
    hub.fault(Stall(release, MIB), kind="blob", method="GET")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        target = path("blobs", digest)
        async with AsyncExitStack() as stack:
            # The first is the one that all others come to; it leaves with the fill before the middle.
            leaving = await stack.enter_async_context(mirror.session.get(mirror.url + target))
            assert await leaving.content.readexactly(100) == content[:100]
            asking = [asyncio.create_task(mirror.get(target)) for _ in range(COUNT)]
            ranged = [
                asyncio.create_task(mirror.get(target, {"Range": f"bytes={number}-"})) for number in range(1, COUNT)
            ]
            held = asyncio.create_task(mirror.get(target, {"If-None-Match": f'"{digest}"'}))
            assert (await held).status == 304
        release.set()
        for answer in await asyncio.gather(*asking):
            assert (answer.status, answer.body) == (200, content)
            assert answer.headers["Cache-Status"].startswith("mirror; fwd=uri-miss; collapsed")
        for number, answer in enumerate(await asyncio.gather(*ranged), 1):
            assert (answer.status, answer.body) == (206, content[number:])
        assert hub.count("GET", kind="blob") == 1
        await eventually(lambda: not open_below(mirror.cache / "blobs") and not open_below(mirror.cache / "parts"))


async def test_who_comes_behind_the_last_byte_gets_the_file_however_slow_others_are(tmp_path: Path, hub: Hub) -> None:
    content = random.Random(1).randbytes(16 * MIB)
    digest = hub.blob(APP, content)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        target = path("blobs", digest)
        async with mirror.session.get(mirror.url + target) as slow:
            async with asyncio.timeout(20):
                await eventually(lambda: blob_files(mirror.cache))
                # The fill is over a moment after its file is there: until then it is joined as ever.
                while b"\nmirror_fills_running 0.0\n" not in (await mirror.get("/metrics")).body:  # noqa: ASYNC110 asked over HTTP
                    await asyncio.sleep(0.01)
            late = await mirror.get(target)
            assert late.headers["Cache-Status"].startswith("mirror; hit")
            assert late.body == content == await slow.read()


async def test_a_crowd_is_refused_by_one_request(tmp_path: Path, hub: Hub) -> None:
    digest = hub.blob(APP, b"x")
    hub.fault(Status(404), kind="blob")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answers = await asyncio.gather(*(mirror.get(path("blobs", digest)) for _ in range(COUNT)))
        assert {(answer.status, answer.code) for answer in answers} == {(404, "BLOB_UNKNOWN")}
        assert hub.count(kind="blob") == 1


@dataclass
class Closing:
    """Everybody may read until it is closed."""

    is_closed: bool = False

    def may_read(self, identity: Identity, name: Name) -> bool:
        return not self.is_closed

    def may_read_all(self, identity: Identity) -> bool:
        return not self.is_closed


async def test_each_of_a_crowd_is_asked_whether_it_may_read(tmp_path: Path, hub: Hub) -> None:
    digest = hub.blob(APP, random.Random(1).randbytes(4 * MIB))
    release = asyncio.Event()
    hub.fault(Stall(release, MIB), kind="blob", method="GET")
    rule = Closing()
    async with serving(tmp_path, {"upstreams": {HOST: upstream(hub)}}, access=rule) as mirror:
        target = path("blobs", digest)
        async with mirror.session.get(mirror.url + target) as first:
            await first.content.readexactly(100)
            assert (await mirror.get(target, {"Range": "bytes=0-9"})).status == 206
            rule.is_closed = True
            assert (await mirror.get(target, {"Range": "bytes=0-9"})).status == 404
            release.set()
