"""The cache below its size, while it is in use."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from tests.hub import Hub, Image, Status, Truncate, eventually
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, blob_files, check_cache, path, pull, pulling, upstream
from tests.pull_through.test_fills import MIB, random_bytes
from tests.running import Client
from tests.serving import Mirror

LAYER_BYTES = 400_000
MAX_BYTES = 4 * MIB
# What is written beside parts: how large the blob is, and where it comes from.
NOTES_BYTES = 4096


def used_bytes(cache: Path) -> int:
    total = 0
    for file in [*blob_files(cache), *(cache / "parts").iterdir()]:
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def images(hub: Hub, count: int) -> dict[str, Image]:
    """Images of about a megabyte each, that share nothing."""
    return {
        str(number): hub.image(APP, str(number), layers=[random_bytes(LAYER_BYTES, 3 * number + n) for n in range(3)])
        for number in range(count)
    }


def cache_of(folder: Path, **keys: Any) -> dict[str, Any]:
    return {"cache": {"path": str(folder / "cache"), "max_size": str(MAX_BYTES), **keys}}


async def test_three_times_its_size_in_parallel_keeps_the_cache_below_it(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs(bytes_per_second=6e6)
    wanted = images(hub, 11)
    most = 0

    async def some(mirror: Mirror, tags: list[str]) -> None:
        nonlocal most
        for tag in tags:
            await pull(mirror, wanted[tag], tag)
            most = max(most, await asyncio.to_thread(used_bytes, mirror.cache))

    async with pulling(tmp_path, {HOST: upstream(hub)}, **cache_of(tmp_path)) as mirror:
        tags = list(wanted)
        await asyncio.gather(*(some(mirror, tags[start::3]) for start in range(3)))
        # In flight: three layers at a time, and what comes while an eviction runs.
        assert most <= MAX_BYTES + 3 * LAYER_BYTES + MIB
        await eventually(lambda: used_bytes(mirror.cache) <= MAX_BYTES)
        assert used_bytes(mirror.cache) > MAX_BYTES // 2
        await check_cache(mirror.cache)
        for tag, image in wanted.items():
            await pull(mirror, image, tag)


async def test_what_broken_fills_leave_counts_too(tmp_path: Path, hub: Hub) -> None:
    async with pulling(tmp_path, {HOST: upstream(hub)}, **cache_of(tmp_path)) as mirror:
        parts = mirror.cache / "parts"
        for seed in range(6):
            hub.heal()
            digest = hub.blob(APP, random_bytes(3 * MIB // 2, seed))
            hub.fault(Truncate(MIB), kind="blob", method="GET", times=1)
            hub.fault(Status(404), kind="blob", method="GET")
            with pytest.raises(ClientPayloadError):
                await mirror.get(path("blobs", digest))
        # The newest can be gone on with.
        await eventually(lambda: used_bytes(mirror.cache) <= MAX_BYTES // 2 + NOTES_BYTES)
        assert (parts / digest.fallback_tag).exists()
        hub.heal()
        for number, image in images(hub, 4).items():
            await pull(mirror, image, number)
        await eventually(lambda: used_bytes(mirror.cache) <= MAX_BYTES + NOTES_BYTES)
        assert (parts / digest.fallback_tag).exists()
        await check_cache(mirror.cache)


async def test_what_came_while_everything_was_in_use_is_evicted_afterwards(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1", layers=[random_bytes(3 * MIB, 1)])
    other = hub.image(APP, "2", layers=[random_bytes(3 * MIB, 2)])
    async with pulling(tmp_path, {HOST: upstream(hub)}, **cache_of(tmp_path)) as mirror:
        await pull(mirror, image, "1")
        with (
            Client(mirror.host, receive_buffer_bytes=4096) as one,
            Client(mirror.host, receive_buffer_bytes=4096) as two,
        ):
            for client, digest in ((one, image.layers[1]), (two, other.layers[1])):
                client.ask(path("blobs", digest))
                head = await asyncio.to_thread(client.head)
                assert head.status == 200
            await pull(mirror, other, "2")
            await asyncio.sleep(0.6)
            for client, found in ((one, image), (two, other)):
                content = await asyncio.to_thread(client.body, 3 * MIB)
                assert content == found.blobs[found.layers[1]]
        await eventually(lambda: used_bytes(mirror.cache) <= MAX_BYTES)


async def test_pinned_tags_stay(tmp_path: Path, hub: Hub) -> None:
    wanted = images(hub, 8)
    pins = cache_of(tmp_path, pins=[f"{HOST}/{APP}:0"])
    async with pulling(tmp_path, {HOST: upstream(hub)}, **pins) as mirror:
        for tag, image in wanted.items():
            await pull(mirror, image, tag)
        await eventually(lambda: used_bytes(mirror.cache) <= MAX_BYTES)
        await hub.refuse()
        await pull(mirror, wanted["0"], "0")


async def test_the_least_recently_used_goes_first(tmp_path: Path, hub: Hub) -> None:
    wanted = images(hub, 6)
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}, **cache_of(tmp_path)) as mirror:
        for tag, image in wanted.items():
            await pull(mirror, image, tag)
            await pull(mirror, wanted["0"], "0")
            await eventually(lambda: used_bytes(mirror.cache) <= MAX_BYTES)
        await hub.refuse()
        await pull(mirror, wanted["0"], "0")
        await pull(mirror, wanted["5"], "5")
        # Rendered answers are given again for a second.
        mirror.running.listener.registry._known.clear()
        assert (await mirror.get(path("manifests", "1"))).status == 502
