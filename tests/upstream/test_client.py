"""What may be asked of an upstream, and what is sent for it."""

import asyncio
from time import monotonic

import pytest

from mirror.oci.digest import Digest
from mirror.oci.media_types import ACCEPT, OCI_INDEX, OCI_MANIFEST
from mirror.upstream import UpstreamClient
from mirror.upstream.errors import BadAnswer, NotFound, RangeRefused, TimedOut, TooLarge
from mirror.upstream.events import BytesReceived, RateLimitSeen, RequestDone, UpstreamEvent
from tests.hub import BlackHole, Cdn, Corrupt, Hub, NoDigest, Oversized, Stall, Status, Truncate
from tests.hub.fixtures import Hubs, Start
from tests.upstream.conftest import Connect, read_all

ABSENT = Digest.of(b"nothing has these bytes")


@pytest.fixture
async def client(hub: Hub, connect: Connect) -> UpstreamClient:
    return await connect(hub)


async def test_a_manifest_comes_byte_for_byte(hub: Hub, client: UpstreamClient) -> None:
    image = hub.image("team/app", "1")
    by_tag = await client.get_manifest("team/app", "1")
    by_digest = await client.get_manifest("team/app", image.digest)
    assert by_tag == by_digest
    assert (by_tag.content, by_tag.media_type, by_tag.digest) == (image.content, OCI_MANIFEST, image.digest)
    assert by_tag.etag == f'"{image.digest}"'


async def test_a_head_tells_digest_and_size(hub: Hub, client: UpstreamClient) -> None:
    image = hub.multi_platform("team/app", "1")
    head = await client.head_manifest("team/app", "1")
    assert (head.digest, head.media_type, head.size) == (image.digest, OCI_INDEX, len(image.content))
    assert hub.count("GET") == 0


async def test_requests_ask_for_every_kind_of_manifest_and_no_compression(hub: Hub, client: UpstreamClient) -> None:
    image = hub.image("a", "1")
    await client.get_manifest("a", "1")
    await read_all(client, "a", image.layers[0])
    manifest, blob = hub.requests
    assert manifest.headers["Accept"] == ACCEPT
    for request in (manifest, blob):
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.headers["User-Agent"].startswith("mirror/")
        assert not {"Authorization", "Cookie", "Range"} & set(request.headers)


async def test_where_head_is_refused_get_answers(hub: Hub, client: UpstreamClient) -> None:
    image = hub.image("a", "1")
    hub.fault(Status(405), method="HEAD")
    head = await client.head_manifest("a", "1")
    assert (head.digest, head.size) == (image.digest, len(image.content))
    layer = image.layers[0]
    assert await client.stat_blob("a", layer) == len(image.blobs[layer])
    assert hub.select("GET", kind="blob")[0].bytes_sent == 1


async def test_an_empty_blob_has_a_size_where_head_is_refused(hub: Hub, client: UpstreamClient) -> None:
    digest = hub.blob("a", b"")
    hub.fault(Status(405), method="HEAD")
    assert await client.stat_blob("a", digest) == 0


async def test_a_head_without_a_digest_says_so(hub: Hub, client: UpstreamClient) -> None:
    image = hub.image("a", "1")
    hub.fault(NoDigest())
    assert (await client.head_manifest("a", "1")).digest is None
    assert (await client.get_manifest("a", "1")).digest == image.digest


@pytest.mark.parametrize("by_digest", [True, False])
async def test_a_manifest_with_wrong_bytes_is_no_answer(hub: Hub, client: UpstreamClient, by_digest: bool) -> None:
    image = hub.image("a", "1")
    hub.fault(Corrupt(5))
    with pytest.raises(BadAnswer, match="wrong bytes"):
        await client.get_manifest("a", image.digest if by_digest else "1")


async def test_a_digest_is_checked_though_the_upstream_names_none(hub: Hub, client: UpstreamClient) -> None:
    image, other = hub.image("a", "1"), hub.image("a", "2")
    hub.fault(Status(200, {"Content-Type": OCI_MANIFEST}, other.content))
    with pytest.raises(BadAnswer, match="wrong bytes"):
        await client.get_manifest("a", image.digest)


async def test_a_blob_comes_whole_and_from_an_offset(
    hub: Hub, client: UpstreamClient, events: list[UpstreamEvent]
) -> None:
    content = bytes(range(256)) * 4000
    digest = hub.blob("a", content)
    async with client.open_blob("a", digest) as body:
        assert (body.total_size, body.start, body.etag) == (len(content), 0, f'"{digest}"')
        assert b"".join([chunk async for chunk in body.chunks]) == content
    async with client.open_blob("a", digest, 1000, body.etag) as body:
        assert (body.total_size, body.start) == (len(content), 1000)
        assert b"".join([chunk async for chunk in body.chunks]) == content[1000:]
    assert hub.requests[1].headers["Range"] == "bytes=1000-"
    assert hub.requests[1].headers["If-Range"] == f'"{digest}"'
    received = sum(event.amount_bytes for event in events if isinstance(event, BytesReceived))
    assert received == 2 * len(content) - 1000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 10), (3, 7), (9, 10)])
async def test_a_part_of_a_blob_is_asked_for_by_its_bounds(
    hub: Hub, client: UpstreamClient, low: int, high: int
) -> None:
    digest = hub.blob("a", b"0123456789")
    async with client.open_blob("a", digest, low, stop=high) as body:
        assert (body.total_size, body.start) == (10, low)
        assert b"".join([chunk async for chunk in body.chunks]) == b"0123456789"[low:high]
    assert hub.requests[0].headers["Range"] == f"bytes={low}-{high - 1}"


async def test_a_blob_that_changed_is_sent_from_its_start(hub: Hub, client: UpstreamClient) -> None:
    digest = hub.blob("a", b"0123456789")
    async with client.open_blob("a", digest, 4, '"another"') as body:
        assert body.start == 0
        assert b"".join([chunk async for chunk in body.chunks]) == b"0123456789"


async def test_an_offset_beyond_the_end_is_told_with_the_size(hub: Hub, client: UpstreamClient) -> None:
    with pytest.raises(RangeRefused) as refused:
        await read_all(client, "a", hub.blob("a", b"0123456789"), start=10)
    assert refused.value.total_bytes == 10


async def test_a_range_that_was_not_asked_for_is_no_answer(hub: Hub, client: UpstreamClient) -> None:
    digest = hub.blob("a", b"0123456789")
    hub.fault(Status(206, {"Content-Range": "bytes 3-9/10"}, b"3456789"))
    with pytest.raises(BadAnswer, match="not asked for"):
        await read_all(client, "a", digest, start=5)


async def test_a_cut_blob_fails_after_the_bytes_that_came(hub: Hub, client: UpstreamClient) -> None:
    digest, got = hub.blob("a", b"0123456789"), bytearray()
    hub.fault(Truncate(4), times=1)

    async def read() -> None:
        async with client.open_blob("a", digest) as body:
            async for chunk in body.chunks:
                got.extend(chunk)

    with pytest.raises(BadAnswer, match="cut"):
        await read()
    assert got == b"0123"
    assert await read_all(client, "a", digest, start=4) == b"456789"


async def test_a_connection_serves_many_requests(hub: Hub, client: UpstreamClient) -> None:
    image = hub.image("a", "1")
    for _ in range(3):
        await client.head_manifest("a", "1")
        await read_all(client, "a", image.layers[0])
        with pytest.raises(NotFound):
            await client.get_manifest("a", "absent")
    assert hub.connections == 1


async def test_what_no_registry_can_have_is_not_asked_for(hub: Hub, client: UpstreamClient) -> None:
    for repository, reference in [
        ("Upper", "1"),
        ("a/../b", "1"),
        ("a", "1+2"),
        ("a", "../x"),
        ("a", "sha256:../x"),
        ("a", "md5:00"),
    ]:
        with pytest.raises(NotFound):
            await client.get_manifest(repository, reference)
    with pytest.raises(NotFound):
        await client.tags("a?b=c")
    assert hub.requests == []


async def test_unknown_things_are_told_apart(hub: Hub, client: UpstreamClient) -> None:
    hub.image("a", "1")
    with pytest.raises(NotFound) as tag:
        await client.get_manifest("a", "absent")
    with pytest.raises(NotFound) as repository:
        await client.get_manifest("absent", "1")
    with pytest.raises(NotFound) as blob:
        await client.stat_blob("a", ABSENT)
    # The answer to HEAD has no body, so no code either.
    assert (tag.value.code, repository.value.code, blob.value.code) == ("MANIFEST_UNKNOWN", "NAME_UNKNOWN", None)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_manifest_of_10_gib_is_not_read(hub: Hub, client: UpstreamClient, chunked: bool) -> None:
    hub.fault(Oversized(10 * 2**30, chunked))
    with pytest.raises(TooLarge):
        await client.get_manifest("a", "1")
    assert hub.requests[0].bytes_sent < 64 * 2**20


async def test_a_deadline_bounds_the_wait(hub: Hub, client: UpstreamClient) -> None:
    hub.fault(BlackHole())
    started = monotonic()
    with pytest.raises(TimedOut):
        await client.head_manifest("a", "1", deadline_seconds=0.1)
    assert monotonic() - started < 3


async def test_manifests_do_not_wait_behind_blobs(hub: Hub, connect: Connect) -> None:
    client = await connect(hub, max_connections=1)
    image = hub.image("a", "1")
    release = asyncio.Event()
    hub.fault(Stall(release), kind="blob", times=1)
    layer, config = image.layers[0], image.config
    async with client.open_blob("a", layer) as body:
        assert (await client.get_manifest("a", "1")).digest == image.digest
        assert await client.stat_blob("a", layer) == body.total_size
        with pytest.raises(TimedOut, match="free connection"):
            await read_all(client, "a", config, deadline_seconds=0.05)
    assert await read_all(client, "a", config) == image.blobs[config]
    release.set()


async def test_a_reader_who_leaves_early_gives_its_place_back(hub: Hub, connect: Connect) -> None:
    client = await connect(hub, max_connections=1)
    digest = hub.blob("a", bytes(8 * 2**20))
    for _ in range(3):
        async with client.open_blob("a", digest) as body:
            assert await anext(body.chunks)
    assert await read_all(client, "a", digest) == bytes(8 * 2**20)


async def test_what_is_counted(hubs: Hubs, connect: Connect, events: list[UpstreamEvent]) -> None:
    hub = await hubs(ratelimit_remaining=76)
    hub.image("a", "1")
    client = await connect(hub)
    await client.head_manifest("a", "1")
    assert RateLimitSeen("up.example", 76) in events
    done = [event for event in events if isinstance(event, RequestDone)]
    assert [(event.host, event.method, event.status) for event in done] == [("up.example", "HEAD", 200)]


async def test_cdn_urls_are_followed_as_they_are(start: Start, hubs: Hubs, connect: Connect) -> None:
    cdn = await start(Cdn())
    hub = await hubs(cdn=cdn)
    digest = hub.blob("a", b"0123456789")
    client = await connect(hub)
    assert await read_all(client, "a", digest) == b"0123456789"
    assert await read_all(client, "a", digest, start=7) == b"789"
    assert await client.stat_blob("a", digest) == 10
    assert cdn.count() == 3
