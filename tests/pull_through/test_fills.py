"""Blobs on their way from an upstream to clients, over HTTP on both sides."""

import asyncio
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.content import encode
from tests.hub import (
    Corrupt,
    Hub,
    Image,
    Logged,
    NoLength,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
    eventually,
)
from tests.hub.content import build_image
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, blob_files, check_cache, forget_run, path, pulling, upstream
from tests.running import Client
from tests.serving import Mirror

MIB = 1 << 20


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def gets(hub: Hub, digest: Digest) -> list[Logged]:
    return hub.select("GET", f"*/{digest}")


async def test_a_blob_cut_five_times_arrives_whole_in_one_answer(tmp_path: Path, hub: Hub) -> None:
    content = await asyncio.to_thread(random_bytes, 64 * MIB)
    digest = await asyncio.to_thread(hub.blob, APP, content)
    chance = random.Random(7)
    for _ in range(5):
        hub.fault(Truncate(chance.randrange(1, 12 * MIB)), kind="blob", times=1)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(path("blobs", digest))
        assert answer.status == 200
        assert await asyncio.to_thread(digest.matches, answer.body)
        asked = gets(hub, digest)
        assert len(asked) == 6
        assert sum(entry.bytes_sent for entry in asked) <= 1.01 * len(content)
        assert all("If-Range" in entry.headers for entry in asked[1:])


@pytest.mark.parametrize("fault", [Corrupt(5), WrongLength(3), Truncate(10), Reset(), Status(500)])
async def test_a_small_blob_that_came_wrong_once_reaches_the_client_right(
    tmp_path: Path, hub: Hub, fault: Corrupt
) -> None:
    content = random_bytes(100_000)
    digest = hub.blob(APP, content)
    hub.fault(fault, kind="blob", times=1)
    async with pulling(tmp_path, {HOST: upstream(hub, retries=1)}) as mirror:
        answer = await mirror.get(path("blobs", digest))
        assert (answer.status, answer.body) == (200, content)
        await check_cache(mirror.cache)


async def test_a_small_blob_that_stays_wrong_is_an_error_and_nothing_is_kept(tmp_path: Path, hub: Hub) -> None:
    digest = hub.blob(APP, random_bytes(100_000))
    hub.fault(Corrupt(5), kind="blob")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(path("blobs", digest))
        assert (answer.status, answer.code) == (502, "UNAVAILABLE")
        assert blob_files(mirror.cache) == []
        hub.heal()
        assert (await mirror.get(path("blobs", digest))).status == 200


def read_raw(mirror: Mirror, target: str) -> tuple[int, int, int]:
    """Status, announced length and bytes that came before the end, of a blocking connection."""
    with Client(mirror.host) as client:
        client.ask(target)
        head = client.head()
        return head.status, int(head.headers["content-length"]), len(client.rest())


async def test_wrong_bytes_in_a_large_blob_cut_the_client_and_leave_nothing(tmp_path: Path, hub: Hub) -> None:
    content = random_bytes(3 * MIB)
    digest = hub.blob(APP, content)
    hub.fault(Corrupt(2 * MIB), kind="blob", times=1)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        target = path("blobs", digest)
        status, announced, came = await asyncio.to_thread(read_raw, mirror, target)
        assert (status, announced) == (200, len(content))
        assert came < announced
        assert blob_files(mirror.cache) == []
        assert list((mirror.cache / "parts").iterdir()) == []
        answer = await mirror.get(target)
        assert answer.body == content
        assert "Range" not in gets(hub, digest)[-1].headers


async def test_ranges_join_the_running_fill(tmp_path: Path, hub: Hub) -> None:
    content = random_bytes(4 * MIB)
    digest = hub.blob(APP, content)
    release = asyncio.Event()
    hub.fault(Stall(release, MIB), kind="blob", method="GET")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        target = path("blobs", digest)
        asking = [asyncio.create_task(mirror.get(target))]
        await eventually(lambda: gets(hub, digest))
        for start, stop in [(0, 10), (MIB // 2, MIB), (2 * MIB, 3 * MIB), (4 * MIB - 5, 4 * MIB)]:
            asking.append(asyncio.create_task(mirror.get(target, {"Range": f"bytes={start}-{stop - 1}"})))
        await eventually(asking[1].done)
        release.set()
        whole, *parts = await asyncio.gather(*asking)
        assert whole.body == content
        for answer in parts:
            assert answer.status == 206
            first, last = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")[0].split("-")
            assert answer.body == content[int(first) : int(last) + 1]
            assert "collapsed" in answer.headers["Cache-Status"]
        assert len(gets(hub, digest)) == 1


async def test_the_fill_outlives_its_client(tmp_path: Path, hub: Hub) -> None:
    content = random_bytes(4 * MIB)
    digest = hub.blob(APP, content)
    release = asyncio.Event()
    hub.fault(Stall(release, MIB), kind="blob", method="GET")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        async with mirror.session.get(mirror.url + path("blobs", digest)) as answer:
            await answer.content.readexactly(100)
        release.set()
        await eventually(lambda: blob_files(mirror.cache))
        await hub.refuse()
        assert (await mirror.get(path("blobs", digest))).body == content


async def test_head_of_a_cold_blob_is_one_head(tmp_path: Path, hub: Hub) -> None:
    digest = hub.blob(APP, b"blob" * 1000)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.head(path("blobs", digest))
        assert (answer.status, answer.headers["Content-Length"]) == (200, "4000")
        assert [entry.method for entry in hub.requests] == ["HEAD"]


async def test_stopping_cuts_what_hangs_on_a_fill_at_once_and_the_next_start_resumes(
    tmp_path: Path, hub: Hub
) -> None:
    content = random_bytes(6 * MIB)
    digest = hub.blob(APP, content)
    hub.fault(Stall(asyncio.Event(), 4 * MIB), kind="blob", times=1)
    target = path("blobs", digest)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        asking = asyncio.create_task(asyncio.to_thread(read_raw, mirror, target))
        part = mirror.cache / "parts" / digest.fallback_tag
        await eventually(lambda: part.exists() and part.stat().st_size >= 3 * MIB)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    status, announced, came = await asking
    assert (status, came < announced) == (200, True)
    held = part.stat().st_size
    assert held >= 3 * MIB
    forget_run(tmp_path)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(target)).body == content
        assert gets(hub, digest)[-1].headers["Range"] == f"bytes={held}-"
        assert gets(hub, digest)[-1].bytes_sent == len(content) - held


async def test_a_fill_goes_on_from_the_other_host_that_has_it(tmp_path: Path, hubs: Hubs) -> None:
    one, two = await hubs(), await hubs()
    content = random_bytes(8 * MIB)
    digest = one.blob(APP, content)
    two.blob(APP, content)
    release = asyncio.Event()
    stalled = one.fault(Stall(release, 2 * MIB), kind="blob", method="GET")
    hosts = {"one.test": upstream(one), "two.test": upstream(two)}
    async with pulling(tmp_path, hosts) as mirror:
        first = asyncio.create_task(mirror.get(path("blobs", digest, host="one.test")))
        await eventually(lambda: stalled.hits == 1)
        second = asyncio.create_task(mirror.get(path("blobs", digest, host="two.test")))
        await eventually(lambda: two.count("HEAD") == 1)
        await one.refuse()
        answers = await asyncio.gather(first, second)
        assert {answer.body == content for answer in answers} == {True}
        assert "Range" in gets(two, digest)[0].headers


async def test_what_another_repository_was_told_is_not_what_this_one_is_told(tmp_path: Path, hubs: Hubs) -> None:
    """Two ask for one digest: whom the upstream does not answer must not hear that it is unknown."""
    gone, knows_not = await hubs(), await hubs()
    knows_not.image(APP, "1")
    digest = gone.blob(APP, random_bytes(MIB // 2))
    release = asyncio.Event()
    gone.fault(Stall(release, None), kind="blob", method="GET", times=1)
    hosts = {"gone.test": upstream(gone, unknown_ttl="1h"), "not.test": upstream(knows_not, unknown_ttl="1h")}
    target = path("blobs", digest, host="gone.test")
    async with pulling(tmp_path, hosts) as mirror:
        first = asyncio.create_task(mirror.get(target))
        await eventually(lambda: gone.count() == 1)
        assert (await mirror.get(path("blobs", digest, host="not.test"))).status == 404
        await gone.refuse()
        assert (await first).status == 502
        await gone.accept()
        assert (await mirror.get(target)).status == 200


async def test_blobs_larger_than_the_cache_are_passed_through(tmp_path: Path, hub: Hub) -> None:
    content = random_bytes(4 * MIB)
    digest = hub.blob(APP, content)
    config = {"cache": {"path": str(tmp_path / "cache"), "max_size": "2MiB"}}
    async with pulling(tmp_path, {HOST: upstream(hub)}, **config) as mirror:
        for _ in range(2):
            answer = await mirror.get(path("blobs", digest))
            assert answer.body == content
            assert answer.headers["Cache-Status"] == f'mirror; fwd=uri-miss; detail="{HOST}"', "it was not stored"
        ranged = await mirror.get(path("blobs", digest), {"Range": f"bytes={MIB}-{2 * MIB - 1}"})
        assert (ranged.status, ranged.body) == (206, content[MIB : 2 * MIB])
        assert blob_files(mirror.cache) == []


SET = asyncio.Event()
SET.set()


def untold(hub: Hub, release: asyncio.Event | None = None) -> None:
    """Blobs come without a length; where there is something to wait for, behind 2 MiB."""
    hub.heal()
    hub.fault(NoLength(release or SET, 2 * MIB), method="GET", kind="blob")


def image_with(hub: Hub, content: bytes, listed_bytes: int) -> Image:
    """An image whose manifest says that its last layer has so many bytes."""
    image = build_image({}, layers=[content])
    document = json.loads(image.content)
    document["layers"][-1]["size"] = listed_bytes
    return hub.keep(APP, replace(image, content=encode(document)), "1")


async def test_a_body_of_untold_length_begins_before_it_is_whole(tmp_path: Path, hub: Hub) -> None:
    """In every process, once the manifest that lists it came."""
    content = random_bytes(4 * MIB)
    target = path("blobs", image_with(hub, content, len(content)).layers[-1])
    release = asyncio.Event()
    untold(hub, release)
    keys, shared = {HOST: upstream(hub)}, {"cache": {"path": str(tmp_path / "shared")}}
    async with pulling(tmp_path / "a", keys, **shared) as one, pulling(tmp_path / "b", keys, **shared) as two:
        assert (await one.get(path("manifests", "1"))).status == 200
        bodies = []
        for mirror in (one, two):
            answer = await mirror.session.get(mirror.url + target)
            assert answer.headers["Content-Length"] == str(len(content))
            assert await answer.content.readexactly(MIB) == content[:MIB]
            bodies.append(answer)
        release.set()
        for answer in bodies:
            assert await answer.read() == content[MIB:]
        assert [entry.method for entry in hub.select(kind="blob")] == ["GET"]
        await check_cache(tmp_path / "shared")


@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_a_body_of_untold_length_that_no_manifest_lists_comes_when_it_is_whole(
    tmp_path: Path, hub: Hub, size: int
) -> None:
    content = random_bytes(size)
    target = path("blobs", hub.blob(APP, content))
    untold(hub)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(target)
        assert (answer.status, answer.body) == (200, content)
        assert [entry.method for entry in hub.select(kind="blob")] == ["GET"]
        await hub.refuse()
        assert (await mirror.get(target)).body == content


@pytest.mark.parametrize("said", [NoLength(SET, 0), Status(200), Status(405)], ids=["nothing", "0", "refused"])
async def test_head_of_a_cold_blob_says_what_its_manifest_lists_where_its_upstream_does_not(
    tmp_path: Path, hub: Hub, said: NoLength | Status
) -> None:
    image = image_with(hub, random_bytes(5000), 5000)
    target = path("blobs", image.layers[-1])
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(path("manifests", "1"))).status == 200
        hub.fault(said, method="HEAD", kind="blob")
        if said != Status(200):
            hub.fault(NoLength(SET, 0), method="GET", kind="blob")
        answer = await mirror.head(target)
        assert (answer.status, answer.headers["Content-Length"]) == (200, "5000")


@pytest.mark.parametrize("listed_bytes", [2 * MIB + 1, 3 * MIB - 1, 3 * MIB + 1, 300 * MIB])
async def test_a_manifest_that_lies_about_a_size_costs_one_cut_and_nobody_else_anything(
    tmp_path: Path, hubs: Hubs, listed_bytes: int
) -> None:
    hub, other = await hubs(), await hubs()
    content = random_bytes(3 * MIB)
    image_with(hub, content, listed_bytes)
    digest = other.blob(APP, content)
    target, beside = path("blobs", digest), path("blobs", digest, host="other.test")
    release = asyncio.Event()
    untold(hub, release)
    keys = {HOST: upstream(hub), "other.test": upstream(other)}
    config = {"cache": {"path": str(tmp_path / "cache"), "max_size": "100MiB"}}
    async with pulling(tmp_path, keys, **config) as mirror:
        assert (await mirror.get(path("manifests", "1"))).status == 200
        with Client(mirror.host) as client:
            client.ask(target)
            head = await asyncio.to_thread(client.head)
            assert (head.status, head.headers["content-length"]) == (200, str(listed_bytes))
            assert (await mirror.head(beside)).headers["Content-Length"] == str(len(content))
            release.set()
            assert len(await asyncio.to_thread(client.rest)) < listed_bytes
        await eventually(lambda: [file for file in blob_files(mirror.cache) if file.name == digest.hex])
        await hub.refuse()
        await other.refuse()
        for again in (target, beside):
            assert (await mirror.get(again)).body == content


async def test_many_clients_of_one_cold_blob_are_one_download(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs(bytes_per_second=20e6)
    content = random_bytes(4 * MIB)
    digest = hub.blob(APP, content)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answers = await asyncio.gather(*(mirror.get(path("blobs", digest)) for _ in range(20)))
        assert {answer.body == content for answer in answers} == {True}
        assert len(gets(hub, digest)) == 1
