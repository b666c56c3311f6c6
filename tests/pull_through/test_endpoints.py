"""Several endpoints of one upstream, of which the first answers and then gives something else than it should."""

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mirror.oci.digest import Digest
from tests.hub import Corrupt, Hub, Stall, Status, Truncate
from tests.hub.faults import Fault
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, check_cache, path, pull, pulling, upstream

MIB = 1 << 20
SMALL, LARGE = 100_000, 4 * MIB
PAGE = Status(200, {"Content-Type": "text/html"}, b"<html>Please log in to the network.</html>")


def two(first: Hub, second: Hub, **keys: Any) -> dict[str, Any]:
    return {HOST: {**upstream(first, **keys), "endpoints": [first.url, second.url]}}


def keep(hubs: tuple[Hub, ...], size: int, seed: int = 1) -> tuple[Digest, bytes]:
    content = random.Random(seed).randbytes(size)
    for hub in hubs:
        digest = hub.blob(APP, content)
    return digest, content


@pytest.mark.parametrize(
    ("fault", "size"),
    [
        (Corrupt(5), SMALL),
        (Truncate(SMALL // 2), SMALL),
        (PAGE, SMALL),
        (Truncate(LARGE // 2), LARGE),
        (Stall(asyncio.Event(), LARGE // 2), LARGE),
    ],
)
async def test_a_body_that_the_first_does_not_give_is_had_from_the_second(
    tmp_path: Path, hubs: Hubs, fault: Fault, size: int
) -> None:
    first, second = await hubs(), await hubs()
    digest, content = keep((first, second), size)
    first.fault(fault, kind="blob")
    async with pulling(tmp_path, two(first, second, idle_timeout="300ms")) as mirror:
        answer = await mirror.get(path("blobs", digest))
        assert (answer.status, answer.body) == (200, content)
        assert (first.count(kind="blob"), second.count(kind="blob")) == (1, 1)
        await check_cache(mirror.cache)


async def test_wrong_bytes_of_a_large_blob_are_had_from_the_second_by_who_asks_again(
    tmp_path: Path, hubs: Hubs
) -> None:
    first, second = await hubs(), await hubs()
    digest, content = keep((first, second), LARGE)
    first.fault(Corrupt(3 * MIB), kind="blob")
    async with pulling(tmp_path, two(first, second)) as mirror:
        with pytest.raises(aiohttp.ClientPayloadError):
            await mirror.get(path("blobs", digest))
        assert (await mirror.get(path("blobs", digest))).body == content
        assert (first.count(kind="blob"), second.count(kind="blob")) == (1, 1)


async def test_what_the_first_did_to_one_blob_is_not_held_against_the_others(tmp_path: Path, hubs: Hubs) -> None:
    first, second = await hubs(), await hubs()
    wrong, _ = keep((first, second), SMALL)
    other, content = keep((first, second), SMALL, seed=2)
    first.fault(Corrupt(5), path=f"*/{wrong}")
    async with pulling(tmp_path, two(first, second)) as mirror:
        assert (await mirror.get(path("blobs", wrong))).status == 200
        asked = second.count(kind="blob")
        assert (await mirror.get(path("blobs", other))).body == content
        assert second.count(kind="blob") == asked


async def test_both_in_turn_make_one_body(tmp_path: Path, hubs: Hubs) -> None:
    """Where each breaks off, it goes on from the other one's next byte: their ETags are not each other's."""
    first, second = await hubs(), await hubs()
    digest, content = keep((first, second), LARGE)
    first.fault(Truncate(MIB), kind="blob")
    second.fault(Truncate(MIB), kind="blob")
    async with pulling(tmp_path, two(first, second)) as mirror:
        assert (await mirror.get(path("blobs", digest))).body == content
        assert min(first.count(kind="blob"), second.count(kind="blob")) >= 1
        assert sum(entry.bytes_sent for hub in (first, second) for entry in hub.requests) < 1.5 * LARGE


async def test_a_page_in_place_of_a_manifest_is_no_answer(tmp_path: Path, hubs: Hubs) -> None:
    first, second = await hubs(), await hubs()
    for hub in (first, second):
        image = hub.image(APP, "1")
    first.fault(PAGE)
    async with pulling(tmp_path, two(first, second)) as mirror:
        await pull(mirror, image, "1")
        assert (await mirror.get(path("tags", ""))).json()["tags"] == ["1"]
