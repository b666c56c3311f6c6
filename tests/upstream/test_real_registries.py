"""The same questions to real registries: Debian's docker-registry (distribution 2) and distribution 3."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from mirror.oci.digest import Digest
from mirror.oci.media_types import OCI_MANIFEST
from mirror.upstream import Endpoint, UpstreamClient
from mirror.upstream.errors import NoReferrersApi, NotFound, RangeRefused
from tests.hub.content import Image, build_image
from tests.upstream.conftest import Connect, read_all

LAYER = bytes(range(256)) * 1000


async def push(url: str, image: Image, tag: str) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        for digest, content in image.blobs.items():
            async with http.post(f"{url}/v2/team/app/blobs/uploads/") as started:
                location = URL(url).join(URL(started.headers["Location"]))
            await http.put(location.update_query(digest=str(digest)), data=content)
        headers = {"Content-Type": OCI_MANIFEST}
        await http.put(f"{url}/v2/team/app/manifests/{tag}", data=image.content, headers=headers)


async def answers(url: str, seconds: float = 30) -> None:
    until = asyncio.get_running_loop().time() + seconds
    async with aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{url}/v2/"):
                    return
            except aiohttp.ClientError:
                assert asyncio.get_running_loop().time() < until, "the registry did not start"
                await asyncio.sleep(0.05)


@pytest.fixture(
    params=[
        pytest.param("docker-registry", marks=pytest.mark.client("docker-registry")),
        pytest.param("registry", marks=pytest.mark.client("registry")),
    ]
)
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a registry that keeps its content below `tmp_path`."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'data'}}}}}\n"
    )
    null = asyncio.subprocess.DEVNULL
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    process = await asyncio.create_subprocess_exec(
        request.param, "serve", str(config), stdout=null, stderr=null, env=environment
    )
    try:
        await answers(f"http://{address}")
        yield f"http://{address}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def image() -> Image:
    return build_image({"hello": b"hello"}, layers=[LAYER])


@pytest.fixture
async def client(registry: str, image: Image, connect: Connect) -> UpstreamClient:
    for tag in ("1", "2"):
        await push(registry, image, tag)
    return await connect(Endpoint(registry))


async def test_a_real_registry_is_understood(client: UpstreamClient, image: Image) -> None:
    head = await client.head_manifest("team/app", "1")
    assert (head.digest, head.size, head.media_type) == (image.digest, len(image.content), OCI_MANIFEST)
    assert (await client.get_manifest("team/app", image.digest)).content == image.content
    assert sorted(await client.tags("team/app")) == ["1", "2"]
    layer = image.layers[1]
    assert await client.stat_blob("team/app", layer) == len(LAYER)
    assert await read_all(client, "team/app", layer) == LAYER
    assert await read_all(client, "team/app", layer, start=1000) == LAYER[1000:]


async def test_what_a_real_registry_does_not_have_is_told(client: UpstreamClient, image: Image) -> None:
    with pytest.raises(RangeRefused) as beyond:
        await read_all(client, "team/app", image.layers[1], start=len(LAYER))
    assert beyond.value.total_bytes == len(LAYER)
    with pytest.raises(NotFound) as unknown:
        await client.get_manifest("team/app", "absent")
    assert unknown.value.code == "MANIFEST_UNKNOWN"
    with pytest.raises(NotFound):
        await client.stat_blob("team/app", Digest.of(b"absent"))
    with pytest.raises(NoReferrersApi):
        await client.referrers("team/app", image.digest)
