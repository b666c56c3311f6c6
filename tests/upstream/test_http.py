"""Every way to fail, for everything that may be asked, has its kind."""

import asyncio

import pytest

from mirror.upstream import Endpoint, UpstreamClient
from mirror.upstream.errors import (
    BadAnswer,
    NotFound,
    Overloaded,
    RateLimited,
    Refused,
    TimedOut,
    Unauthorized,
    UpstreamError,
)
from tests.hub import (
    BlackHole,
    Drip,
    EndlessHeaders,
    Hub,
    Image,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
)
from tests.hub.faults import Fault
from tests.upstream.conftest import Connect, read_all


async def ask(client: UpstreamClient, image: Image, what: str) -> None:
    match what:
        case "head":
            await client.head_manifest("a", "1")
        case "tag":
            await client.get_manifest("a", "1")
        case "digest":
            await client.get_manifest("a", image.digest)
        case "stat":
            await client.stat_blob("a", image.layers[0])
        case "blob":
            content = await read_all(client, "a", image.layers[0])
            # The client passes bytes on; whoever stores them compares the digest.
            if content != image.blobs[image.layers[0]]:
                raise BadAnswer("up.example", "other bytes")
        case "tags":
            await client.tags("a")
        case "referrers":
            await client.referrers("a", image.digest)


WHATS = ["head", "tag", "digest", "stat", "blob", "tags", "referrers"]


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Reset(), BadAnswer),
        (BlackHole(), TimedOut),
        (EndlessHeaders(), BadAnswer),
        (Status(200, {"X-Long": "x" * 9000}), BadAnswer),
        (Status(401), Unauthorized),
        (Status(403), Unauthorized),
        (Status(404), NotFound),
        (Status(408), TimedOut),
        (Status(429), RateLimited),
        (Status(500), BadAnswer),
        (Status(503), BadAnswer),
        (Status(503, {"Retry-After": "1"}), Overloaded),
        (Status(504), BadAnswer),
        (Status(304), BadAnswer),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)[:20]),
)
async def test_every_failure_has_its_kind(
    hub: Hub, connect: Connect, fault: Fault, kind: type[UpstreamError], what: str
) -> None:
    image = hub.image("a", "1")
    # Short only where it must run out.
    seconds = 0.1 if isinstance(fault, BlackHole) else 5
    client = await connect(hub, first_byte_timeout_seconds=seconds, connect_timeout_seconds=seconds)
    hub.fault(fault)
    with pytest.raises(kind) as error:
        await ask(client, image, what)
    assert error.value.host == "up.example"
    assert str(error.value).startswith("up.example: ")


@pytest.mark.parametrize("what", ["tag", "digest", "blob", "tags", "referrers"])
@pytest.mark.parametrize("fault", [Truncate(5), WrongLength(5)])
async def test_a_cut_body_is_a_bad_answer(hub: Hub, connect: Connect, fault: Fault, what: str) -> None:
    image = hub.image("a", "1")
    client = await connect(hub)
    hub.fault(fault)
    with pytest.raises(BadAnswer):
        await ask(client, image, what)


@pytest.mark.parametrize("what", ["tag", "blob", "tags", "referrers"])
async def test_a_body_that_stands_still_times_out(hub: Hub, connect: Connect, what: str) -> None:
    image = hub.image("a", "1")
    client = await connect(hub, idle_timeout_seconds=0.1)
    hub.fault(Stall(asyncio.Event(), 3))
    with pytest.raises(TimedOut):
        await ask(client, image, what)


async def test_a_manifest_that_drips_times_out_and_a_blob_does_not(hub: Hub, connect: Connect) -> None:
    hub.image("a", "1")
    digest = hub.blob("a", bytes(30))
    client = await connect(hub, idle_timeout_seconds=0.5)
    hub.fault(Drip(20))
    with pytest.raises(TimedOut):
        await client.get_manifest("a", "1")
    assert await read_all(client, "a", digest) == bytes(30)


async def test_a_host_name_that_does_not_exist_is_refused(connect: Connect) -> None:
    client = await connect(Endpoint("http://no-such-host.invalid"))
    with pytest.raises((Refused, TimedOut)):
        await client.get_manifest("a", "1")


async def test_a_refused_connection_is_refused(hub: Hub, connect: Connect) -> None:
    client = await connect(hub)
    await hub.refuse()
    with pytest.raises(Refused, match=r"no connection \(connection refused\), asking 127.0.0.1$"):
        await client.get_manifest("a", "1")
    await hub.accept()
    hub.image("a", "1")
    assert (await client.get_manifest("a", "1")).digest


async def test_a_server_that_speaks_something_else_is_a_bad_answer(connect: Connect) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = await connect(Endpoint(f"http://127.0.0.1:{port}"))
        with pytest.raises(BadAnswer):
            await client.get_manifest("a", "1")
