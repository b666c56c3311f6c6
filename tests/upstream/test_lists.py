"""Tags and referrers, page by page, with bounds."""

import pytest

from mirror.oci.digest import Digest
from mirror.upstream import UpstreamClient
from mirror.upstream.errors import BadAnswer, NoReferrersApi, NotFound, TooLarge
from tests.hub import EndlessPages, Hub, Oversized, Status
from tests.hub.fixtures import Hubs
from tests.upstream.conftest import Connect

ABSENT = Digest.of(b"nothing has these bytes")


@pytest.fixture
async def client(hub: Hub, connect: Connect) -> UpstreamClient:
    return await connect(hub)


async def test_tags_are_joined_over_all_pages(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(page_size=3, prefix="/registry")
    for number in range(10):
        hub.image("a", f"v{number}")
    client = await connect(hub)
    assert await client.tags("a") == [f"v{number}" for number in range(10)]
    assert hub.count(kind="tags") == 4


@pytest.mark.parametrize(
    "link",
    [
        "</registry/v2/a/tags/list?last=1>",
        "</v2/a/tags/list?last=1>",
        "<list?last=1>",
        "<?last=1>",
        "<https://127.0.0.1/v2/a/tags/list?last=1>",
    ],
)
async def test_links_of_registries_that_do_not_see_their_proxy_are_put_right(
    hubs: Hubs, connect: Connect, link: str
) -> None:
    hub = await hubs(prefix="/registry")
    hub.image("a", "2")
    hub.fault(Status(200, {"Link": f'{link}; rel="next"'}, b'{"name": "a", "tags": ["1"]}'), times=1)
    assert await (await connect(hub)).tags("a") == ["1", "2"]
    assert (hub.requests[1].path, hub.requests[1].query) == ("/registry/v2/a/tags/list", {"last": "1"})


async def test_what_is_no_tag_is_left_out_of_a_list(hub: Hub, client: UpstreamClient) -> None:
    hub.fault(Status(200, {}, b'{"name": "a", "tags": ["1", "1", null, 7, "not a tag", "../x", "2"]}'), times=1)
    assert await client.tags("a") == ["1", "2"]
    hub.fault(Status(200, {}, b'{"name": "a", "tags": null}'), times=1)
    assert await client.tags("a") == []
    hub.fault(Status(200, {}, b'["1"]'), times=1)
    with pytest.raises(BadAnswer):
        await client.tags("a")


async def test_a_registry_that_refuses_the_page_size_is_asked_without(hub: Hub, client: UpstreamClient) -> None:
    hub.image("a", "1")
    hub.fault(Status(400), kind="tags", times=1)
    assert await client.tags("a") == ["1"]
    assert [request.query for request in hub.requests] == [{"n": "1000"}, {}]


async def test_referrers_are_joined_over_all_pages(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(page_size=2)
    subject = hub.image("a", "1")
    kept = {
        hub.reference("a", subject, "application/sig", content=str(number).encode()).digest for number in range(5)
    }
    found = await (await connect(hub)).referrers("a", subject.digest)
    assert {descriptor.digest for descriptor in found} == kept
    assert {descriptor.artifact_type for descriptor in found} == {"application/sig"}


@pytest.mark.parametrize(
    "answer",
    [
        Status(404, {}, b"404 page not found"),
        Status(405),
        Status(501),
        Status(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>"),
    ],
)
async def test_a_registry_without_the_referrers_api_is_told(hub: Hub, client: UpstreamClient, answer: Status) -> None:
    hub.fault(answer, kind="referrers")
    with pytest.raises(NoReferrersApi):
        await client.referrers("a", ABSENT)


async def test_referrers_of_an_unknown_repository_are_not_a_missing_api(hub: Hub, client: UpstreamClient) -> None:
    with pytest.raises(NotFound) as error:
        await client.referrers("absent", ABSENT)
    assert not isinstance(error.value, NoReferrersApi)


@pytest.mark.parametrize("kind", ["tags", "referrers"])
async def test_endless_pages_end(hub: Hub, client: UpstreamClient, kind: str) -> None:
    hub.image("a", "1")
    rule = hub.fault(EndlessPages())
    with pytest.raises(TooLarge, match="pages"):
        await (client.tags("a") if kind == "tags" else client.referrers("a", ABSENT))
    assert rule.hits == 1000


async def test_pages_on_another_host_are_not_fetched(hub: Hub, hubs: Hubs, client: UpstreamClient) -> None:
    other = await hubs(address="127.0.0.2")
    hub.image("a", "1")
    hub.fault(EndlessPages(elsewhere=f"{other.url}/v2/a/tags/list"))
    with pytest.raises(BadAnswer, match="another host"):
        await client.tags("a")
    assert other.requests == []


@pytest.mark.parametrize("kind", ["tags", "referrers"])
async def test_an_endless_list_is_not_read(hub: Hub, client: UpstreamClient, kind: str) -> None:
    hub.fault(Oversized(10 * 2**30))
    with pytest.raises(TooLarge):
        await (client.tags("a") if kind == "tags" else client.referrers("a", ABSENT))
