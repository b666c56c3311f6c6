"""Answering a registry's challenges: basic, or bearer tokens (distribution's token specification; RFC 6750)."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from cachetools import LRUCache
from yarl import URL

from mirror.upstream.challenge import Challenge
from mirror.upstream.connections import Connections, Role
from mirror.upstream.credentials import Credentials, CredentialsUnreadable
from mirror.upstream.errors import BadAnswer, RealmRefused, Unauthorized, UpstreamError
from mirror.upstream.events import Observe, OperatorNeeded, TokenFetched
from mirror.upstream.http import refusal, send
from mirror.upstream.redirects import REDIRECTS

# What the token specification says of answers without expires_in.
DEFAULT_EXPIRY_SECONDS = 60.0
# Renewed this much, and at most this share of its life, before it runs out.
_EARLY_SECONDS = 10.0
_EARLY_SHARE = 0.1
_MAX_EXPIRY_SECONDS = 86400.0
_MAX_TOKEN_ANSWER_BYTES = 1024 * 1024
# Repositories and tokens that are remembered; forgetting one costs a request more.
_MAX_REMEMBERED = 10_000
# What may stand in a header field (RFC 6750, 2.1, and whatever else is visible).
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


class BearerKey(NamedTuple):
    """What a token is good for."""

    realm: str
    service: str
    scope: str


class Known(Enum):
    """What a repository is known to ask for, where it is no token of a token service."""

    DIRECT = "the credentials themselves"


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    # time.monotonic
    renew_at: float


class Authorizer:
    """Credentials and tokens for one endpoint. `close` ends the requests for tokens that still run."""

    def __init__(self, origin: URL, connections: Connections, observe: Observe) -> None:
        self._origin, self._connections, self._observe = origin, connections, observe
        self._settings = connections.settings
        # What a repository asked for last.
        self._asked: LRUCache[str, BearerKey | Known] = LRUCache(_MAX_REMEMBERED)
        self._tokens: LRUCache[BearerKey, _Token] = LRUCache(_MAX_REMEMBERED)
        self._running: dict[BearerKey, asyncio.Task[_Token]] = {}

    async def close(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def first(self, repository: str) -> str | None:
        """The Authorization to send unasked, from what the repository asked for earlier. Raises UpstreamError."""
        match self._asked.get(repository):
            case BearerKey() as key:
                return f"Bearer {await self._token(key)}"
            case Known.DIRECT:
                return _direct(await self._credentials())
            case _:
                return None

    async def answer(
        self, repository: str, challenges: Iterable[Challenge], refused: str | None, *, again: bool
    ) -> str:
        """The Authorization for these challenges, other than the `refused` one; `again`: that was our answer already.

        Raises Unauthorized where there is none, RealmRefused where it would go to a host that is not listed.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(list(challenges))}
        credentials = await self._credentials()
        has_token = credentials is not None and credentials.registry_token is not None
        if "bearer" in offered and not has_token:
            return await self._answer_bearer(repository, offered["bearer"].parameters, refused, again)
        if "basic" in offered or has_token:
            return await self._answer_directly(repository, refused)
        raise Unauthorized(self._settings.host, "refused (401), and asks for no credentials that we could give")

    async def _answer_directly(self, repository: str, refused: str | None) -> str:
        value = _direct(await self._credentials())
        if value is not None and value == refused:
            value = _direct(await self._credentials(fresh=True))
        if value is None:
            raise Unauthorized(self._settings.host, "asks for a user and a password, and none is configured")
        if value == refused:
            raise Unauthorized(self._settings.host, "refused the configured credentials (401)")
        self._asked[repository] = Known.DIRECT
        return value

    async def _answer_bearer(
        self, repository: str, parameters: Mapping[str, str], refused: str | None, again: bool
    ) -> str:
        if again:
            raise Unauthorized(self._settings.host, "refused the token that its own token service gave (401)")
        scope = parameters.get("scope") or f"repository:{repository}:pull"
        key = BearerKey(parameters.get("realm", ""), parameters.get("service", ""), scope)
        self._realm(key)
        self._asked[repository] = key
        held = self._tokens.get(key)
        if held is not None and f"Bearer {held.value}" == refused:
            del self._tokens[key]
        return f"Bearer {await self._token(key)}"

    async def _credentials(self, *, fresh: bool = False) -> Credentials | None:
        try:
            return await self._settings.credentials.get(fresh=fresh)
        except CredentialsUnreadable as error:
            # Where they lie is nobody's business but the operator's.
            self._observe(OperatorNeeded(self._settings.host, "credentials_unreadable", str(error)))
            raise Unauthorized(self._settings.host, "the configured credentials cannot be read") from None

    # Tokens -----------------------------------------------------------------------------------------------------

    async def _token(self, key: BearerKey) -> str:
        held = self._tokens.get(key)
        if held is not None and time.monotonic() < held.renew_at:
            return held.value
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._fetch(key))
            task.add_done_callback(lambda done: self._fetched(key, done))
        # Shielded: the one who asked first may leave, the others still wait for it.
        return (await asyncio.shield(task)).value

    def _fetched(self, key: BearerKey, task: asyncio.Task[_Token]) -> None:
        self._running.pop(key, None)
        if task.cancelled():
            return
        # Asked for, so that a failure for which nobody waits any more is not reported as forgotten.
        error = task.exception()
        if error is None:
            self._tokens[key] = task.result()
        self._observe(TokenFetched(self._settings.host, error is None))

    async def _fetch(self, key: BearerKey) -> _Token:
        credentials = await self._credentials()
        try:
            return await self._ask(key, credentials)
        except Unauthorized:
            renewed = await self._credentials(fresh=True) if credentials else None
            if renewed is None or renewed == credentials:
                raise
            return await self._ask(key, renewed)

    async def _ask(self, key: BearerKey, credentials: Credentials | None) -> _Token:
        url, host = self._realm(key), self._settings.host
        role: Role = "own" if url.origin() == self._origin else "realm"
        query = [("service", key.service)] if key.service else []
        query += [("scope", scope) for scope in key.scope.split()]
        if credentials is not None and credentials.identity_token:
            form = {"grant_type": "refresh_token", "service": key.service, "scope": key.scope, "client_id": "mirror"}
            form["refresh_token"] = credentials.identity_token
            answer = await send(self._connections, role, "POST", url, {}, form=form)
        else:
            value = _basic(credentials)
            headers = {"Authorization": value} if value else {}
            answer = await send(self._connections, role, "GET", url.extend_query(query), headers)
        try:
            if answer.status in REDIRECTS:
                raise BadAnswer(host, f"its token service {url.host} redirects, which is not followed")
            if answer.status != 200:
                raise self._told(url, await refusal(answer))
            return _parse(host, await answer.read(_MAX_TOKEN_ANSWER_BYTES))
        finally:
            answer.close()

    def _told(self, url: URL, error: UpstreamError) -> UpstreamError:
        """A token service's refusal: no credentials of ours are good, or none are what it takes."""
        if isinstance(error, Unauthorized) or (isinstance(error, BadAnswer) and error.status == 400):
            return Unauthorized(self._settings.host, f"its token service {url.host} refuses us a token")
        error.reason = f"its token service {url.host}: {error.reason}"
        return error

    def _realm(self, key: BearerKey) -> URL:
        """The realm's URL. Raises RealmRefused, with the line to add, unless its host is the endpoint's or listed."""
        host = self._settings.host
        try:
            url = URL(key.realm)
            authority = _authority(url) if url.scheme in ("http", "https") and url.host else None
        except ValueError:
            authority = None
        if authority is None:
            raise Unauthorized(host, "the challenge names no token service")
        listed = {authority, f"{authority}:{url.port}"} if url.is_default_port() else {authority}
        if listed.isdisjoint({_authority(self._origin), *self._settings.realms}):
            reason = f"its token service is on another host; to trust it, configure `realms: [{authority}]`"
            self._observe(OperatorNeeded(host, "realm_refused", reason))
            raise RealmRefused(host, reason)
        if url.scheme == "http" and self._origin.scheme == "https" and not self._settings.tls.insecure:
            raise RealmRefused(host, f"its token service at {authority} is plain http, and the registry https")
        return url.with_user(None).with_fragment(None)


def _authority(url: URL) -> str:
    """`host`, or `host:port` where the port is not the scheme's own."""
    host = f"[{url.host}]" if url.host and ":" in url.host else (url.host or "")
    return host.lower() if url.is_default_port() else f"{host.lower()}:{url.port}"


def _basic(credentials: Credentials | None) -> str | None:
    if credentials is None or not credentials.username:
        return None
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _direct(credentials: Credentials | None) -> str | None:
    if credentials is not None and credentials.registry_token:
        return f"Bearer {credentials.registry_token}"
    return _basic(credentials)


def _parse(host: str, content: bytes) -> _Token:
    """A token service's answer. `token` and `access_token` mean the same. Raises BadAnswer."""
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(content)
    if not isinstance(document, dict):
        raise BadAnswer(host, "its token service answered no JSON object")
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise BadAnswer(host, "its token service answered without a usable token")
    expires: Any = document.get("expires_in")
    usable = isinstance(expires, int | float) and not isinstance(expires, bool) and expires > 0
    # Compared as it is: a number of four hundred digits is none that a float holds.
    seconds = float(min(expires, _MAX_EXPIRY_SECONDS)) if usable else DEFAULT_EXPIRY_SECONDS
    return _Token(value, time.monotonic() + seconds - min(_EARLY_SECONDS, seconds * _EARLY_SHARE))
