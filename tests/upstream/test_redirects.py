"""Where a redirect may lead, and what goes along."""

import socket

import pytest

from mirror.oci.digest import Digest
from mirror.upstream import TlsSettings
from mirror.upstream.credentials import Credentials, StaticCredentials
from mirror.upstream.errors import BadAnswer, RedirectRefused, Refused, Unauthorized
from tests.hub import Authority, Basic, Bearer, Cdn, Hub, Proxy, Redirect, RedirectLoop, Status, TokenIssuer
from tests.hub.fixtures import Hubs, Start
from tests.upstream.conftest import Connect, read_all

CONTENT = b"0123456789"
USER = Basic("someone", "secret-password")
CREDENTIALS = StaticCredentials(Credentials("someone", "secret-password"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_to_another_host_carry_no_credentials(hubs: Hubs, connect: Connect, status: int) -> None:
    other = await hubs(address="127.0.0.2")
    hub = await hubs(auth=Bearer(TokenIssuer(USER)))
    digest = hub.blob("a", CONTENT)
    other.blob("a", CONTENT)
    client = await connect(hub, credentials=CREDENTIALS)
    await client.stat_blob("a", digest)
    hub.fault(Redirect(f"{other.url}/v2/a/blobs/{digest}", status), kind="blob")
    assert await read_all(client, "a", digest, start=3) == CONTENT[3:]
    assert "Authorization" in hub.select("GET", kind="blob")[0].headers
    assert [
        set(request.headers) & {"Authorization", "Cookie", "Proxy-Authorization"} for request in other.requests
    ] == [set()]
    assert other.requests[0].headers["Range"] == "bytes=3-"


async def test_credentials_do_not_come_back_after_a_detour(hubs: Hubs, connect: Connect) -> None:
    hub, other = await hubs(auth=USER), await hubs(address="127.0.0.2")
    digest = hub.blob("a", CONTENT)
    client = await connect(hub, credentials=CREDENTIALS)
    await client.stat_blob("a", digest)
    hub.fault(Redirect(f"{other.url}/detour"), kind="blob", times=1)
    other.fault(Redirect(f"{hub.url}/v2/a/blobs/{digest}?again=1"))
    with pytest.raises(Unauthorized):
        await read_all(client, "a", digest)
    assert "Authorization" not in hub.requests[-1].headers


async def test_a_redirect_on_the_same_host_keeps_the_credentials(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=USER)
    digest = hub.blob("a", CONTENT)
    client = await connect(hub, credentials=CREDENTIALS)
    await client.stat_blob("a", digest)
    hub.fault(Redirect(f"/v2/a/blobs/{digest}?moved=1"), kind="blob", times=1)
    assert await read_all(client, "a", digest) == CONTENT


async def test_user_and_password_in_a_location_are_dropped(hubs: Hubs, connect: Connect) -> None:
    hub, other = await hubs(), await hubs(address="127.0.0.2")
    digest = other.blob("a", CONTENT)
    hub.fault(Redirect(f"http://user:secret-pass@{other.host}/v2/a/blobs/{digest}"))
    assert await read_all(await connect(hub), "a", digest) == CONTENT
    assert "Authorization" not in other.requests[0].headers


@pytest.mark.parametrize("fresh", [True, False])
async def test_redirect_loops_end(hub: Hub, connect: Connect, fresh: bool) -> None:
    hub.fault(RedirectLoop(fresh=fresh))
    with pytest.raises(RedirectRefused):
        await (await connect(hub, retries=3)).get_manifest("a", "1")
    assert hub.count() <= 6


@pytest.mark.parametrize(
    "location",
    ["", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "http://[::1/x", "gopher://x", "http://a:99999999/x"],
)
async def test_redirects_to_nowhere_are_bad_answers(hub: Hub, connect: Connect, location: str) -> None:
    hub.fault(Redirect(location))
    with pytest.raises(BadAnswer):
        await (await connect(hub)).get_manifest("a", "1")
    assert hub.count() == 1


async def test_a_redirect_without_a_location_is_a_bad_answer(hub: Hub, connect: Connect) -> None:
    hub.fault(Status(302))
    with pytest.raises(BadAnswer, match="nowhere"):
        await (await connect(hub)).get_manifest("a", "1")


async def test_https_does_not_become_http(hubs: Hubs, connect: Connect, authority: Authority) -> None:
    hub, plain = await hubs(tls=authority.server_context()), await hubs()
    digest = plain.blob("a", CONTENT)
    hub.fault(Redirect(f"{plain.url}/v2/a/blobs/{digest}"))
    strict = await connect(hub, tls=TlsSettings(ca=authority.ca))
    with pytest.raises(RedirectRefused, match="plain http"):
        await read_all(strict, "a", digest)
    assert plain.requests == []
    assert await read_all(await connect(hub, tls=TlsSettings(insecure=True)), "a", digest) == CONTENT


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/x",
        "http://[::ffff:169.254.169.254]/x",
        "http://[::ffff:a9fe:a9fe]/x",
        "http://[64:ff9b::a9fe:a9fe]/x",
        "http://[fd00:ec2::254]/x",
    ],
)
async def test_a_redirect_to_a_link_local_address_is_refused(hub: Hub, connect: Connect, location: str) -> None:
    hub.fault(Redirect(location))
    with pytest.raises(RedirectRefused, match="this machine or its link"):
        await read_all(await connect(hub), "a", Digest.of(b""))


async def test_a_redirect_to_this_machine_is_refused_where_the_upstream_is_not_on_it(
    hubs: Hubs, connect: Connect, outer_address: str
) -> None:
    hub, local = await hubs(address=outer_address), await hubs()
    digest = local.blob("a", CONTENT)
    client = await connect(hub)
    names = ["127.0.0.1", "localhost", "127.1.2.3", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]", "x.localhost"]
    for name in names:
        rule = hub.fault(Redirect(f"http://{name}:{local.port}/v2/a/blobs/{digest}"))
        with pytest.raises(RedirectRefused):
            await read_all(client, "a", digest)
        assert rule.hits == 1
        hub.heal()
    assert local.requests == []


async def test_the_address_that_a_name_leads_to_is_what_counts(
    hubs: Hubs, connect: Connect, outer_address: str
) -> None:
    """/etc/hosts names this machine by its host name; a stranger's DNS could do so with any name."""
    name = socket.gethostname()
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    except OSError:
        addresses = set()
    if not addresses or not all(address.startswith("127.") or address == "::1" for address in addresses):
        pytest.skip("the host name does not lead to loopback")
    hub, local = await hubs(address=outer_address), await hubs()
    digest = local.blob("a", CONTENT)
    hub.fault(Redirect(f"http://{name}:{local.port}/v2/a/blobs/{digest}"))
    with pytest.raises(RedirectRefused, match="this machine or its link"):
        await read_all(await connect(hub), "a", digest)
    assert local.requests == []


async def test_behind_a_proxy_literal_addresses_are_still_refused(
    start: Start, hubs: Hubs, connect: Connect, outer_address: str
) -> None:
    hub, proxy = await hubs(address=outer_address), await start(Proxy())
    hub.fault(Redirect("http://127.0.0.1:1/x"))
    with pytest.raises(RedirectRefused):
        await read_all(await connect(hub, proxy_url=proxy.url), "a", Digest.of(b""))
    assert len(proxy.seen) == 1


async def test_an_expired_url_is_left_for_a_fresh_one(start: Start, hubs: Hubs, connect: Connect) -> None:
    cdn = await start(Cdn())
    hub = await hubs(cdn=cdn)
    digest = hub.blob("a", CONTENT)
    cdn.fault(Status(403), times=1)
    assert await read_all(await connect(hub, retries=1), "a", digest) == CONTENT
    assert (hub.count(kind="blob"), cdn.count()) == (2, 2)
    first, second = (request.query["X-Signature"] for request in cdn.requests)
    assert first != second


async def test_signed_urls_that_refuse_head_still_give_a_size(start: Start, hubs: Hubs, connect: Connect) -> None:
    cdn = await start(Cdn())
    hub = await hubs(cdn=cdn)
    digest = hub.blob("a", CONTENT)
    cdn.fault(Status(403), method="HEAD")
    assert await (await connect(hub)).stat_blob("a", digest) == len(CONTENT)


async def test_a_failing_cdn_does_not_shut_the_registry_out(start: Start, hubs: Hubs, connect: Connect) -> None:
    cdn = await start(Cdn())
    hub = await hubs(cdn=cdn)
    image = hub.image("a", "1")
    client = await connect(hub)
    await cdn.refuse()
    for _ in range(8):
        with pytest.raises(Refused):
            await read_all(client, "a", image.layers[0])
    assert (await client.get_manifest("a", "1")).digest == image.digest
