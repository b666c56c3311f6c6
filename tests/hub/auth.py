"""How a hub asks who is calling: basic, or bearer tokens from a token service."""

import base64
import json
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from urllib.parse import parse_qs

from aiohttp import web

from tests.hub.delivery import Reply
from tests.hub.faults import Fault
from tests.hub.server import Server


def basic_value(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass
class Basic:
    """One user."""

    username: str
    password: str

    def allows(self, authorization: str) -> bool:
        return authorization == basic_value(self.username, self.password)


@dataclass
class TokenIssuer:
    """Gives tokens out and knows them again. Without `user`, to anybody.

    `expires_in_seconds` None leaves the field out; `field_name` may be `access_token`.
    """

    user: Basic | None = None
    expires_in_seconds: float | None = 300
    field_name: str = "token"
    identity_token: str | None = None
    tokens: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)

    async def issue(self, request: web.BaseRequest) -> Reply:
        """distribution's token specification: GET with Basic; POST with a refresh token (OAuth2)."""
        if request.method == "POST":
            form = {key: values[0] for key, values in parse_qs((await request.read()).decode()).items()}
            allowed = self.identity_token is not None and form.get("refresh_token") == self.identity_token
            scopes = form.get("scope", "").split()
        else:
            allowed = self.user is None or self.user.allows(request.headers.get("Authorization", ""))
            scopes = request.query.getall("scope", [])
        if not allowed:
            return Reply(401, body=b'{"details": "incorrect username or password"}')
        token = f"secret-token-{next(self._numbers)}"
        lifetime = self.expires_in_seconds or 60
        self.tokens[token] = (frozenset(scopes), monotonic() + lifetime)
        document: dict[str, object] = {self.field_name: token}
        if self.expires_in_seconds is not None:
            document["expires_in"] = self.expires_in_seconds
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def revoke_all(self) -> None:
        """Forget every token that was given out."""
        self.tokens.clear()

    def allows(self, authorization: str, repository: str | None, action: str) -> bool:
        scopes, until = self.tokens.get(authorization.removeprefix("Bearer "), (frozenset(), 0.0))
        if until < monotonic():
            return False
        return repository is None or any(_covers(scope, repository, action) for scope in scopes)


def _covers(scope: str, repository: str, action: str) -> bool:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return kind == "repository" and name == repository and action in actions.split(",")


@dataclass
class Bearer:
    """Tokens of `issuer`, which lives at `realm` (None: at `/token` of the hub itself).

    `extra_challenges` stand before the Bearer one, in the same header.
    """

    issuer: TokenIssuer = field(default_factory=TokenIssuer)
    realm: str | None = None
    service: str = "hub"
    extra_challenges: str = ""

    def challenge(self, own_url: str, repository: str | None, action: str) -> str:
        realm = self.realm or f"{own_url}/token"
        scope = f',scope="repository:{repository}:{action}"' if repository else ""
        return f'{self.extra_challenges}Bearer realm="{realm}",service="{self.service}"{scope}'


class TokenService(Server):
    """A token issuer on a host of its own, at `/token`."""

    def __init__(self, issuer: TokenIssuer | None = None, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # passed through as they are
        self.issuer = issuer or TokenIssuer()

    @property
    def realm(self) -> str:
        return f"{self.url}/token"

    def kind_of(self, path: str) -> str:
        return "token" if path == "/token" else "other"

    async def reply(self, request: web.BaseRequest, fault: Fault | None) -> Reply:
        return await self.issuer.issue(request) if request.path == "/token" else Reply(404)
