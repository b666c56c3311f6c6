"""No secret in an error or a log: whatever goes wrong, however it is told."""

import logging
import traceback
from collections.abc import Callable

import pytest

from mirror.upstream import UpstreamClient
from mirror.upstream.breaker import BreakerRecord
from mirror.upstream.credentials import Credentials, StaticCredentials
from mirror.upstream.errors import UpstreamError
from mirror.upstream.events import UpstreamEvent
from tests.hub import (
    Basic,
    Bearer,
    BlackHole,
    Cdn,
    EndlessHeaders,
    Hub,
    Redirect,
    RedirectLoop,
    Reset,
    Status,
    TokenIssuer,
    TokenService,
    Truncate,
)
from tests.hub.auth import basic_value
from tests.hub.faults import Fault
from tests.hub.fixtures import Hubs, Start
from tests.upstream.conftest import Connect, read_all

USER = Basic("someone", "secret-password")
SECRETS = ("secret", basic_value("someone", "secret-password").removeprefix("Basic "), "X-Signature")
ECHO = b'{"errors": [{"code": "secret-in-code", "message": "secret-password"}]}'

FAULTS: list[Fault] = [
    Status(401, {"WWW-Authenticate": 'Bearer realm="http://secret-password@127.0.0.1:1/secret?secret=1"'}),
    Status(401, {"WWW-Authenticate": 'Bearer realm="ftp://x/secret"'}, ECHO),
    Status(403, {}, ECHO),
    Status(404, {}, ECHO),
    Status(500, {"Location": "/secret"}, ECHO),
    Status(429, {"Retry-After": "secret"}, ECHO),
    Status(302),
    Redirect("https://127.0.0.1:1/x?X-Signature=secret"),
    Redirect("http://someone:secret@no-such-host.invalid/x?X-Signature=secret"),
    Redirect("http://127.0.0.1:99999999/?X-Signature=secret"),
    Redirect("http://169.254.169.254/?X-Signature=secret"),
    RedirectLoop(fresh=True),
    Reset(),
    BlackHole(),
    EndlessHeaders(),
    Truncate(3),
]


async def failures(client: UpstreamClient, cdn: Cdn, hub: Hub, service: TokenService) -> list[UpstreamError]:
    """Every kind of request, with every fault, on the registry, its CDN and its token service."""
    image, found = hub.image("a", "1", layers=[bytes(1000)]), []
    requests: list[Callable[[], object]] = [
        lambda: client.head_manifest("a", "1"),
        lambda: client.get_manifest("a", "1"),
        lambda: client.stat_blob("a", image.layers[0]),
        lambda: read_all(client, "a", image.layers[0]),
        lambda: client.tags("a"),
    ]
    for server in (hub, cdn, service):
        for fault in FAULTS:
            service.issuer.revoke_all()
            server.fault(fault)
            for request in requests:
                try:
                    await request()  # type: ignore[misc]  # all of them are coroutines
                except UpstreamError as error:
                    found.append(error)
            server.heal()
    return found


@pytest.fixture(params=["secret-password", "secret-wrong"])
def credentials(request: pytest.FixtureRequest) -> StaticCredentials:
    return StaticCredentials(Credentials("someone", request.param))


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


async def test_no_failure_tells_a_secret(  # noqa: PLR0917 these are fixtures
    start: Start,
    hubs: Hubs,
    connect: Connect,
    credentials: StaticCredentials,
    logs: pytest.LogCaptureFixture,
    events: list[UpstreamEvent],
) -> None:
    cdn, service = await start(Cdn()), await start(TokenService(TokenIssuer(USER)))
    hub = await hubs(cdn=cdn, auth=Bearer(service.issuer, service.realm))
    client = await connect(
        hub,
        credentials=credentials,
        realms=(service.host,),
        connect_timeout_seconds=0.05,
        first_byte_timeout_seconds=0.05,
        breaker_state=lambda url: NeverOpen(),
    )
    found = await failures(client, cdn, hub, service)
    assert len(found) > 50
    told = [text for error in found for text in (str(error), repr(error), *traceback.format_exception(error))]
    told += [logs.text, repr(events), repr(client.settings), repr(credentials)]
    for text in told:
        # Source lines in tracebacks name variables, never values; ours do not have these words in them.
        assert not [secret for secret in SECRETS if secret in text], text


class NeverOpen:
    """So that every fault is met."""

    def load(self) -> BreakerRecord:
        return BreakerRecord()

    def store(self, record: BreakerRecord) -> None:
        """Forgets it."""

    def close(self) -> None:
        """Nothing is open."""
