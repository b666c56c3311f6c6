"""The watch over the event loop sees what it is there for, and lets pass what may be."""

import asyncio
from pathlib import Path

import pytest
from blockbuster import BlockingError

from mirror.store.files import read_regular
from tests.content import LayoutWriter
from tests.running import eventually, get, running_mirror


async def test_a_read_in_the_event_loop_is_seen(
    tmp_path: Path, no_blocking_call_in_the_event_loop: list[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    raised = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.set_exception(context["exception"]))
    # From the loop itself: what a test calls is its own business.
    loop.call_soon(read_regular, str(path), 100)
    with pytest.raises(BlockingError):
        await raised
    assert no_blocking_call_in_the_event_loop
    no_blocking_call_in_the_event_loop.clear()
    assert await asyncio.to_thread(read_regular, str(path), 100) == b"content"


async def test_serving_scanning_and_rescanning_leave_the_event_loop_free(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    image = writer.image([b"layer" * 100_000])
    writer.tag(image, "1.0").save()
    (layer,) = [path for path in (writer.path / "blobs" / "sha256").iterdir() if path.stat().st_size == 500_000]
    async with running_mirror(tmp_path) as mirror:
        host = mirror.listener.url.removeprefix("http://")
        for target in ("manifests/1.0", f"blobs/sha256:{layer.name}", "tags/list", f"referrers/{image.digest}"):
            for method in ("HEAD", "GET"):
                reply = await asyncio.to_thread(get, host, f"/v2/team/app/{target}", method=method)
                assert reply.status == 200
        generation = mirror.local.generation
        writer.tag(image, "2.0").save()
        await eventually(lambda: mirror.local.generation > generation, "the rewritten index is seen")
