"""Which endpoint is asked, and how often."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from time import monotonic

import pytest

from mirror.upstream import Endpoint
from mirror.upstream.breaker import THRESHOLD, FileBreakerState
from mirror.upstream.errors import (
    BadAnswer,
    BreakerOpen,
    NotFound,
    RateLimited,
    Refused,
    TimedOut,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from tests.hub import (
    BlackHole,
    Hub,
    Reset,
    Status,
    Truncate,
    WrongLength,
    eventually,
)
from tests.hub.faults import Fault
from tests.hub.fixtures import Hubs
from tests.upstream.conftest import Connect, read_all


@pytest.mark.parametrize("fault", [*map(Status, (408, 500, 502, 503, 504)), Truncate(3), WrongLength(9)])
async def test_a_passing_failure_is_tried_again(hub: Hub, connect: Connect, fault: Fault) -> None:
    image = hub.image("a", "1")
    hub.fault(fault, times=2)
    client = await connect(hub, retries=2)
    assert (await client.get_manifest("a", "1")).content == image.content
    assert hub.count() == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 418, 429])
async def test_an_answer_is_not_tried_again(hub: Hub, connect: Connect, status: int) -> None:
    hub.fault(Status(status))
    with pytest.raises(UpstreamError):
        await (await connect(hub, retries=3)).get_manifest("a", "1")
    assert hub.count() == 1


async def test_tries_are_bounded(hub: Hub, connect: Connect) -> None:
    hub.fault(Status(500))
    with pytest.raises(BadAnswer) as error:
        await (await connect(hub, retries=2)).get_manifest("a", "1")
    assert error.value.status == 500
    assert hub.count() == 3


async def test_a_black_hole_is_not_asked_over_and_over(hub: Hub, connect: Connect) -> None:
    hub.fault(BlackHole())
    client = await connect(hub, retries=5, first_byte_timeout_seconds=0.2, connect_timeout_seconds=0.1)
    with pytest.raises(TimedOut):
        await client.get_manifest("a", "1")
    assert hub.count() == 1


async def test_a_closed_client_asks_nothing(hub: Hub, connect: Connect) -> None:
    client = await connect(hub)
    await client.close()
    with pytest.raises(Refused):
        await client.get_manifest("a", "1")
    assert hub.requests == []


async def test_no_try_begins_beyond_the_deadline(hub: Hub, connect: Connect) -> None:
    hub.fault(Status(500))
    client = await connect(hub, retries=50, backoff_seconds=0.05)
    started = monotonic()
    # What happened is told, not that time is over.
    with pytest.raises(BadAnswer):
        await client.get_manifest("a", "1", deadline_seconds=0.3)
    assert monotonic() - started < 3
    assert hub.count() < 10


@pytest.mark.parametrize("fault", [Status(500), Status(404), Status(403), Status(429), Reset(), BlackHole()])
async def test_the_next_endpoint_answers_for_a_failing_one(hubs: Hubs, connect: Connect, fault: Fault) -> None:
    first, second = await hubs(), await hubs()
    image = second.image("a", "1")
    first.fault(fault)
    seconds = 0.4 if isinstance(fault, BlackHole) else 5
    client = await connect(first, second, first_byte_timeout_seconds=seconds, connect_timeout_seconds=seconds)
    assert (await client.get_manifest("a", "1")).digest == image.digest
    assert await read_all(client, "a", image.layers[0]) == image.blobs[image.layers[0]]


async def test_the_next_endpoint_answers_for_one_that_refuses(hubs: Hubs, connect: Connect) -> None:
    first, second = await hubs(), await hubs()
    image = second.image("a", "1")
    await first.refuse()
    assert (await (await connect(first, second)).get_manifest("a", "1")).digest == image.digest


async def test_the_first_endpoint_answers_where_it_can(hubs: Hubs, connect: Connect) -> None:
    first, second = await hubs(), await hubs()
    first.image("a", "1")
    await (await connect(first, second)).get_manifest("a", "1")
    assert second.requests == []


async def test_unknown_is_said_only_when_every_endpoint_said_so(hubs: Hubs, connect: Connect) -> None:
    first, second = await hubs(), await hubs()
    client = await connect(first, second)
    with pytest.raises(NotFound):
        await client.get_manifest("a", "1")
    for fault, kind in [(Status(403), Unauthorized), (Status(500), BadAnswer), (Status(429), RateLimited)]:
        second.fault(fault, times=1)
        with pytest.raises(kind):
            await client.get_manifest("a", "1")


async def test_capabilities_say_what_an_endpoint_is_asked(hubs: Hubs, connect: Connect) -> None:
    resolving, pulling = await hubs(), await hubs()
    image = resolving.image("a", "1")
    pulling.keep("a", image, "1")
    client = await connect(
        Endpoint(pulling.url, frozenset({"pull"})),
        Endpoint(resolving.url, frozenset({"resolve"})),
    )
    await client.head_manifest("a", "1")
    await client.tags("a")
    await client.referrers("a", image.digest)
    assert (len(resolving.requests), len(pulling.requests)) == (3, 0)
    await client.get_manifest("a", image.digest)
    await client.stat_blob("a", image.config)
    await read_all(client, "a", image.config)
    assert (len(resolving.requests), len(pulling.requests)) == (3, 3)
    only_pulling = await connect(Endpoint(pulling.url, frozenset({"pull"})))
    with pytest.raises(Refused, match="resolve"):
        await only_pulling.tags("a")


async def test_an_endpoint_may_have_a_path(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(prefix="/some/where")
    image = hub.image("a", "1")
    client = await connect(hub)
    assert (await client.get_manifest("a", "1")).digest == image.digest
    assert hub.requests[0].path == "/some/where/v2/a/manifests/1"


@pytest.mark.parametrize("seconds", [7, None])
async def test_429_keeps_us_away_for_as_long_as_it_says(hub: Hub, connect: Connect, seconds: int | None) -> None:
    hub.image("a", "1")
    hub.fault(Status(429, {"Retry-After": str(seconds)} if seconds else {}), times=1)
    client = await connect(hub, retries=3)
    with pytest.raises(RateLimited) as first:
        await client.get_manifest("a", "1")
    with pytest.raises(RateLimited) as second:
        await client.tags("a")
    assert first.value.retry_after_seconds == (seconds or 5)
    assert 0 < second.value.retry_after_seconds <= first.value.retry_after_seconds
    assert client.open_seconds[hub.url] > 0
    assert hub.count() == 1


async def test_retry_after_may_be_a_date_and_far_too_late(hub: Hub, connect: Connect) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True)
    hub.fault(Status(503, {"Retry-After": later}))
    with pytest.raises(Unavailable) as error:
        await (await connect(hub)).get_manifest("a", "1")
    assert error.value.retry_after_seconds == 3600


async def test_the_breaker_opens_and_lets_a_probe_through(hub: Hub, connect: Connect) -> None:
    image = hub.image("a", "1")
    client = await connect(hub)
    hub.fault(Status(500), times=THRESHOLD)
    for _ in range(THRESHOLD):
        with pytest.raises(BadAnswer):
            await client.get_manifest("a", "1")
    with pytest.raises(BreakerOpen) as error:
        await client.get_manifest("a", "1")
    assert 0 < error.value.retry_after_seconds <= 1
    assert hub.count() == THRESHOLD
    await eventually(lambda: client.open_seconds[hub.url] == 0)
    assert (await client.get_manifest("a", "1")).digest == image.digest


async def test_clients_of_one_folder_share_the_breaker(hub: Hub, connect: Connect, tmp_path: Path) -> None:
    hub.fault(Status(429, {"Retry-After": "60"}), times=1)
    one = await connect(hub, breaker_state=lambda url: FileBreakerState(tmp_path, url))
    two = await connect(hub, breaker_state=lambda url: FileBreakerState(tmp_path, url))
    for client in (one, two):
        with pytest.raises(RateLimited):
            await client.get_manifest("a", "1")
    assert hub.count() == 1


async def test_giving_up_on_an_answer_counts_for_nothing(hub: Hub, connect: Connect) -> None:
    image = hub.image("a", "1")
    client = await connect(hub)
    hub.fault(BlackHole(), times=2 * THRESHOLD)
    for _ in range(2 * THRESHOLD):
        with pytest.raises(TimedOut):
            await client.get_manifest("a", "1", deadline_seconds=0.02)
    hub.heal()
    assert (await client.get_manifest("a", "1")).digest == image.digest
