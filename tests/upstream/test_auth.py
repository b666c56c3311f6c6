"""Who we are to an upstream: anonymous, basic, bearer; tokens are few, and go where they belong."""

import asyncio
import math
from pathlib import Path

import pytest

from mirror.upstream import TlsSettings
from mirror.upstream.auth import DEFAULT_EXPIRY_SECONDS
from mirror.upstream.credentials import Anonymous, Credentials, FileCredentials, StaticCredentials
from mirror.upstream.errors import BadAnswer, RateLimited, RealmRefused, Unauthorized
from mirror.upstream.events import OperatorNeeded, TokenFetched, UpstreamEvent
from tests.hub import Authority, Basic, Bearer, Hub, Oversized, Redirect, Stall, Status, TokenIssuer, TokenService
from tests.hub.auth import basic_value
from tests.hub.fixtures import Hubs, Start
from tests.hub.waiting import eventually
from tests.upstream.conftest import Connect

USER = Basic("someone", "secret-password")
CREDENTIALS = StaticCredentials(Credentials("someone", "secret-password"))
WRONG = StaticCredentials(Credentials("someone", "secret-wrong"))


async def test_basic_credentials_go_out_once_they_were_asked_for(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=USER)
    hub.image("a", "1")
    client = await connect(hub, credentials=CREDENTIALS)
    await client.head_manifest("a", "1")
    await client.head_manifest("a", "1")
    assert [request.status for request in hub.requests] == [401, 200, 200]
    assert "Authorization" not in hub.requests[0].headers


@pytest.mark.parametrize("credentials", [WRONG, Anonymous()])
async def test_wrong_or_no_credentials_are_a_refusal(
    hubs: Hubs, connect: Connect, credentials: Anonymous | StaticCredentials
) -> None:
    hub = await hubs(auth=USER)
    client = await connect(hub, credentials=credentials, retries=3)
    with pytest.raises(Unauthorized) as error:
        await client.head_manifest("a", "1")
    assert error.value.status == 401
    assert hub.count() <= 2


async def test_a_forbidden_repository_is_a_refusal(hub: Hub, connect: Connect) -> None:
    hub.fault(Status(403))
    with pytest.raises(Unauthorized) as error:
        await (await connect(hub)).get_manifest("a", "1")
    assert error.value.status == 403


async def test_an_anonymous_token_is_fetched_once_per_repository(
    hubs: Hubs, connect: Connect, events: list[UpstreamEvent]
) -> None:
    hub = await hubs(auth=Bearer())
    image = hub.image("team/app", "1")
    hub.image("team/other", "1")
    client = await connect(hub)
    await client.get_manifest("team/app", "1")
    await client.stat_blob("team/app", image.layers[0])
    await client.get_manifest("team/other", "1")
    tokens = hub.select(kind="token")
    assert [request.query for request in tokens] == [
        {"service": "hub", "scope": "repository:team/app:pull"},
        {"service": "hub", "scope": "repository:team/other:pull"},
    ]
    assert "Authorization" not in tokens[0].headers
    assert hub.count(kind="manifest") + hub.count(kind="blob") == 5
    assert events.count(TokenFetched("up.example", True)) == 2


async def test_many_waiters_share_one_token_request(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=Bearer())
    hub.image("a", "1")
    client, release = await connect(hub), asyncio.Event()
    rule = hub.fault(Stall(release, None), kind="token")
    waiting = [asyncio.create_task(client.head_manifest("a", "1")) for _ in range(10)]
    await eventually(lambda: rule.hits and hub.count(kind="manifest") == 10)
    # The one who asked for it may leave; the others get it all the same.
    waiting[0].cancel()
    release.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in done) == 1
    assert len({getattr(one, "digest", None) for one in done[1:]}) == 1
    assert hub.count(kind="token") == 1


@pytest.mark.parametrize("field_name", ["token", "access_token"])
async def test_a_token_service_on_a_listed_host_is_used(
    start: Start, hubs: Hubs, connect: Connect, field_name: str
) -> None:
    service = await start(TokenService(TokenIssuer(USER, None, field_name), address="127.0.0.2"))
    hub = await hubs(auth=Bearer(service.issuer, service.realm))
    hub.image("a", "1")
    client = await connect(hub, credentials=CREDENTIALS, realms=(service.host,))
    await client.head_manifest("a", "1")
    assert service.requests[0].headers["Authorization"] == basic_value("someone", "secret-password")
    assert all("Basic" not in request.headers.get("Authorization", "") for request in hub.requests)


async def test_a_token_service_on_another_host_is_refused_with_the_line_to_add(
    start: Start, hubs: Hubs, connect: Connect, events: list[UpstreamEvent]
) -> None:
    service = await start(TokenService(address="127.0.0.2"))
    hub = await hubs(auth=Bearer(service.issuer, service.realm))
    client = await connect(hub, credentials=CREDENTIALS, realms=("auth.example", "127.0.0.2"))
    with pytest.raises(RealmRefused, match=rf"`realms: \[{service.host}\]`"):
        await client.head_manifest("a", "1")
    assert service.requests == []
    assert hub.count() == 1
    assert any(isinstance(event, OperatorNeeded) and service.host in event.reason for event in events)


async def test_a_plain_token_service_of_a_registry_on_https_is_refused(
    start: Start, hubs: Hubs, connect: Connect, authority: Authority
) -> None:
    service = await start(TokenService())
    hub = await hubs(auth=Bearer(service.issuer, service.realm), tls=authority.server_context())
    tls = TlsSettings(ca=authority.ca)
    client = await connect(hub, credentials=CREDENTIALS, realms=(service.host,), tls=tls)
    with pytest.raises(RealmRefused, match="plain http"):
        await client.head_manifest("a", "1")
    assert service.requests == []


@pytest.mark.parametrize("realm", ["", "not a url", "ftp://127.0.0.1/token", "http://", "//x/token", "http://[::1/t"])
async def test_a_realm_that_is_no_url_is_a_refusal(hubs: Hubs, connect: Connect, realm: str) -> None:
    hub = await hubs()
    hub.fault(Status(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}))
    with pytest.raises(Unauthorized, match="no token service"):
        await (await connect(hub)).head_manifest("a", "1")


async def test_of_several_challenges_bearer_is_answered(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=Bearer(extra_challenges='Negotiate abc==, Basic realm="a, b", '))
    hub.image("a", "1")
    client = await connect(hub)
    assert (await client.head_manifest("a", "1")).digest


async def test_a_challenge_that_cannot_be_answered_is_a_refusal(hub: Hub, connect: Connect) -> None:
    hub.fault(Status(401, {"WWW-Authenticate": "Negotiate"}))
    with pytest.raises(Unauthorized, match="no credentials that we could give"):
        await (await connect(hub)).head_manifest("a", "1")


async def test_a_token_is_renewed_before_it_expires(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=Bearer(TokenIssuer(expires_in_seconds=1)))
    hub.image("a", "1")
    client = await connect(hub)
    loop = asyncio.get_running_loop()
    until = loop.time() + 1.5
    while loop.time() < until:
        await client.head_manifest("a", "1")
        await asyncio.sleep(0.02)
    # One challenge, at the beginning: no token was ever refused.
    assert [request.status for request in hub.select(kind="manifest")].count(401) == 1
    assert hub.count(kind="token") == 2
    assert DEFAULT_EXPIRY_SECONDS == 60


@pytest.mark.parametrize("seconds", ["1" + "0" * 400, "1e400", "-1", "0", "null", '"soon"', "true"])
async def test_a_token_is_used_however_long_it_is_said_to_last(hubs: Hubs, connect: Connect, seconds: str) -> None:
    bearer = Bearer()
    hub = await hubs(auth=bearer)
    hub.image("a", "1")
    bearer.issuer.tokens["secret-token"] = (frozenset({"repository:a:pull"}), math.inf)
    hub.fault(Status(200, body=f'{{"token": "secret-token", "expires_in": {seconds}}}'.encode()), kind="token")
    assert (await (await connect(hub)).head_manifest("a", "1")).digest


async def test_a_revoked_token_is_replaced_once(hubs: Hubs, connect: Connect) -> None:
    bearer = Bearer()
    hub = await hubs(auth=bearer)
    hub.image("a", "1")
    client = await connect(hub)
    await client.head_manifest("a", "1")
    bearer.issuer.revoke_all()
    await client.head_manifest("a", "1")
    assert [request.status for request in hub.select(kind="manifest")] == [401, 200, 401, 200]
    assert hub.count(kind="token") == 2


async def test_a_token_that_does_not_help_is_not_fetched_again(hubs: Hubs, connect: Connect) -> None:
    bearer = Bearer()
    hub = await hubs(auth=bearer)
    hub.fault(Status(401, {"WWW-Authenticate": bearer.challenge(hub.url, "a", "pull")}), kind="manifest")
    with pytest.raises(Unauthorized):
        await (await connect(hub, retries=3)).head_manifest("a", "1")
    assert (hub.count(kind="token"), hub.count(kind="manifest")) == (1, 2)


async def test_credentials_that_went_stale_are_read_again(hubs: Hubs, connect: Connect, tmp_path: Path) -> None:
    issuer = TokenIssuer(USER)
    hub = await hubs(auth=Bearer(issuer))
    hub.image("a", "1")
    file = tmp_path / "password"
    file.write_text("secret-old\n")
    client = await connect(hub, credentials=FileCredentials(file, "someone"))
    with pytest.raises(Unauthorized):
        await client.head_manifest("a", "1")
    file.write_text("secret-password\n")
    assert (await client.head_manifest("a", "1")).digest
    hub.auth = Basic("someone", "secret-newer")
    with pytest.raises(Unauthorized):
        await client.head_manifest("a", "1")
    file.write_text("secret-newer\n")
    assert (await client.head_manifest("a", "1")).digest


async def test_an_identity_token_is_exchanged(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=Bearer(TokenIssuer(USER, identity_token="secret-identity")))
    hub.image("a", "1")
    credentials = StaticCredentials(Credentials(identity_token="secret-identity"))
    client = await connect(hub, credentials=credentials)
    assert (await client.head_manifest("a", "1")).digest
    assert hub.count("POST", "/token") == 1


async def test_a_registry_token_is_sent_as_it_is(hubs: Hubs, connect: Connect) -> None:
    issuer = TokenIssuer(USER)
    issuer.tokens["secret-direct"] = (frozenset({"repository:a:pull"}), float("inf"))
    hub = await hubs(auth=Bearer(issuer))
    hub.image("a", "1")
    client = await connect(hub, credentials=StaticCredentials(Credentials(registry_token="secret-direct")))
    assert (await client.head_manifest("a", "1")).digest
    assert hub.count(kind="token") == 0
    issuer.revoke_all()
    with pytest.raises(Unauthorized):
        await client.head_manifest("a", "1")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": 7}',
        b'{"token": "a\\r\\nX-Injected: b"}',
        b"<html>",
        b"[" * 100_000,
    ],
)
async def test_a_token_service_that_answers_nonsense_is_a_bad_answer(
    hubs: Hubs, connect: Connect, body: bytes
) -> None:
    hub = await hubs(auth=Bearer())
    hub.fault(Status(200, {}, body), kind="token")
    with pytest.raises(BadAnswer):
        await (await connect(hub)).head_manifest("a", "1")


async def test_a_token_answer_is_bounded_and_redirects_are_not_followed(hubs: Hubs, connect: Connect) -> None:
    hub, other = await hubs(auth=Bearer()), await hubs(address="127.0.0.2")
    client = await connect(hub)
    hub.fault(Oversized(10 * 2**30), kind="token", times=1)
    with pytest.raises(BadAnswer):
        await client.head_manifest("a", "1")
    hub.fault(Redirect(other.url), kind="token", times=1)
    with pytest.raises(BadAnswer, match="redirects"):
        await client.head_manifest("a", "1")
    assert other.requests == []


async def test_a_rate_limited_token_service_limits_the_upstream(hubs: Hubs, connect: Connect) -> None:
    hub = await hubs(auth=Bearer())
    hub.fault(Status(429, {"Retry-After": "30"}), kind="token")
    client = await connect(hub)
    with pytest.raises(RateLimited) as error:
        await client.head_manifest("a", "1")
    assert error.value.retry_after_seconds == 30
    seen = hub.count()
    with pytest.raises(RateLimited):
        await client.head_manifest("a", "1")
    assert hub.count() == seen
