"""What is cached is files: the index over them may go, and every number that operators watch moves."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.hub import Basic, Bearer, BlackHole, Corrupt, Hub, Status, TokenIssuer, Truncate, eventually
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, forget_run, listed, path, pull, pulling, upstream
from tests.running import open_below
from tests.serving import Mirror


def _spoil(cache: Path, how: str) -> None:
    for file in cache.glob("index.db*"):
        if how == "deleted":
            file.unlink()
        elif how == "garbage":
            file.write_bytes(b"garbage" * 1000)
        elif how == "emptied":
            file.write_bytes(b"")
        elif how == "torn" and file.name == "index.db":
            content = file.read_bytes()
            file.write_bytes(content[:4096] + b"\xff" * 8192 + content[12288:])


@pytest.mark.parametrize("how", ["deleted", "garbage", "emptied", "torn"])
async def test_without_its_index_everything_cached_is_served(tmp_path: Path, hub: Hub, how: str) -> None:
    index = hub.multi_platform(APP, "multi")
    images = {str(image): hub.image(APP, str(image)) for image in range(5)}
    reference = hub.reference(APP, index, "application/vnd.test")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for tag, image in {**images, "multi": index}.items():
            await pull(mirror, image, tag)
        referrers = await mirror.get(path("referrers", index.digest))
        tags = await mirror.get(path("tags", ""))
    await asyncio.to_thread(_spoil, mirror.cache, how)
    await hub.refuse()
    forget_run(tmp_path)
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", referrers_ttl="0s")}) as mirror:
        for tag, image in {**images, "multi": index}.items():
            await pull(mirror, image, tag)
        assert (await mirror.get(path("referrers", index.digest))).body == referrers.body
        assert reference.digest in referrers.body.decode()
        assert (await mirror.get(path("tags", ""))).json() == tags.json()


async def test_without_its_index_each_tag_costs_one_head(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
    await asyncio.to_thread(_spoil, mirror.cache, "deleted")
    asked = hub.count()
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
    assert [entry.method for entry in hub.requests[asked:]] == ["HEAD"]


async def test_clients_are_served_where_no_name_can_be_kept(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1", layers=[b"layer" * 500_000])
    reference = hub.reference(APP, image, "application/vnd.test")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", referrers_ttl="0s")}) as mirror:
        # A file stands where folders should be made: so writing fails for root, too.
        (mirror.cache / "names").write_bytes(b"")
        for _ in range(2):
            await pull(mirror, image, "1")
            assert (await mirror.get(path("manifests", image.digest))).body == image.content
            assert (await mirror.head(path("blobs", image.config))).status == 200
            assert (await mirror.get(path("tags", ""))).json()["tags"] == ["1"]
            assert listed((await mirror.get(path("referrers", image.digest))).body) == [reference.digest]


async def test_a_mirror_that_ended_holds_nothing_open(tmp_path: Path, hub: Hub) -> None:
    before = asyncio.all_tasks()
    image = hub.image(APP, "1", layers=[b"layer" * 500_000])
    hub.fault(Truncate(1000), kind="blob", times=2)
    hub.fault(Corrupt(), kind="blob", times=1)
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        for _ in range(3):
            await asyncio.gather(
                *(mirror.get(path("blobs", digest)) for digest in image.blobs), return_exceptions=True
            )
        await pull(mirror, image, "1")
        hub.fault(BlackHole())
        assert "Age" in (await mirror.get(path("manifests", "1"))).headers
    hub.hang_up()
    # Files are closed by threads. What is known of local archives is not pull-through's.
    await eventually(lambda: not [file for file in open_below(tmp_path) if "archives.db" not in file])
    await eventually(lambda: asyncio.all_tasks() <= before)


@pytest.mark.parametrize("how", ["flipped", "cut", "emptied"])
async def test_a_manifest_that_rotted_on_the_disk_is_fetched_again_and_never_served(
    tmp_path: Path, hub: Hub, how: str
) -> None:
    image, other = hub.image(APP, "1"), hub.image(APP, "2")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}) as mirror:
        await pull(mirror, image, "1")
        await pull(mirror, other, "2")
    content = {
        "flipped": bytes([image.content[0] ^ 1]) + image.content[1:],
        "cut": image.content[:-1],
        "emptied": b"",
    }
    for rotten in (image, other):
        file = mirror.cache / "blobs" / "sha256" / rotten.digest.hex[:2] / rotten.digest.hex
        file.chmod(0o644)
        file.write_bytes(content[how])
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}) as mirror:
        for reference in ("1", image.digest, "1"):
            assert (await mirror.get(path("manifests", reference))).body == image.content
        await hub.refuse()
        for reference in ("1", image.digest):
            assert (await mirror.get(path("manifests", reference))).body == image.content
        assert (await mirror.get(path("manifests", "2"))).status == 502
        await hub.accept()
        assert (await mirror.get(path("manifests", "2"))).body == other.content


Samples = dict[str, dict[tuple[str, ...], float]]


async def _metrics(mirror: Mirror) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families((await mirror.get("/metrics")).body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    return found


def _has(found: Samples, name: str, *labels: str) -> float:
    return found.get(name, {}).get(tuple(sorted(labels)), 0)


async def test_every_number_is_there_and_moves(tmp_path: Path, hubs: Hubs) -> None:
    user = Basic("user", "pass-word")
    hub = await hubs(auth=Bearer(TokenIssuer(user)), ratelimit_remaining=42)
    keys = {"username": "user", "password": "pass-word", "allow_anonymous": True, "insecure": True}
    images = [hub.image(APP, str(number), layers=[bytes([number]) * 2_000_000]) for number in range(3)]
    config = {"cache": {"path": str(tmp_path / "cache"), "max_size": "5MiB"}}
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", **keys)}, **config) as mirror:
        await pull(mirror, images[0], "0")
        found = await _metrics(mirror)
        assert _has(found, "mirror_requests_total", "manifest", "GET", "200") == 1
        assert _has(found, "mirror_requests_total", "blob", "GET", "200") == 3
        assert _has(found, "mirror_sent_bytes_total", "blob") == sum(map(len, images[0].blobs.values()))
        assert _has(found, "mirror_cache_answers_total", "miss") == 4
        assert _has(found, "mirror_upstream_requests_total", HOST, "GET", "200") == 4
        assert _has(found, "mirror_upstream_requests_total", HOST, "GET", "401") == 1
        received = _has(found, "mirror_upstream_received_bytes_total", HOST)
        assert received >= sum(map(len, images[0].blobs.values())) + len(images[0].content)
        assert _has(found, "mirror_upstream_tokens_total", HOST, "ok") == 1
        assert _has(found, "mirror_upstream_ratelimit_remaining", HOST) == 42
        assert _has(found, "mirror_fills_total", "started") == 3
        async with asyncio.timeout(10):
            # A blob is on the disk a moment after its last byte went out.
            while _has(found, "mirror_fills_running") or _has(found, "mirror_cache_size_bytes") < 2_000_000:
                found = await _metrics(mirror)
        assert _has(found, "mirror_fill_written_bytes_total") == sum(map(len, images[0].blobs.values()))
        for number in (1, 2):
            await pull(mirror, images[number], str(number))

        async with asyncio.timeout(10):
            while not _has(await _metrics(mirror), "mirror_evicted_tags_total"):
                pass
        assert _has(await _metrics(mirror), "mirror_evicted_bytes_total") > 0
        hub.fault(Status(429, {"Retry-After": "30"}))
        mirror.running.listener.registry._known.clear()
        await mirror.get(path("manifests", "2"))
        found = await _metrics(mirror)
        assert _has(found, "mirror_cache_answers_total", "stale") == 1
        assert 0 < _has(found, "mirror_upstream_open_seconds", HOST, hub.url) <= 30


async def test_an_endpoint_that_may_be_asked_again_shows_it_before_anybody_asks(tmp_path: Path, hub: Hub) -> None:
    hub.fault(Status(429, {"Retry-After": "1"}))
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert _has(await _metrics(mirror), "mirror_upstream_open_seconds", HOST, hub.url) == 0
        assert (await mirror.get(path("manifests", "1"))).status == 503
        assert 0 < _has(await _metrics(mirror), "mirror_upstream_open_seconds", HOST, hub.url) <= 1
        async with asyncio.timeout(10):
            while _has(await _metrics(mirror), "mirror_upstream_open_seconds", HOST, hub.url):
                pass
    assert len(hub.requests) == 1
