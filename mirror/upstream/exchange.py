"""Requests to one endpoint of an upstream: authorised, redirected, refused in our words."""

import re
import time
from collections.abc import Mapping

from yarl import URL

from mirror.upstream.auth import Authorizer
from mirror.upstream.breaker import Breaker
from mirror.upstream.challenge import parse_challenges
from mirror.upstream.connections import Connections
from mirror.upstream.errors import BadAnswer, Unauthorized
from mirror.upstream.events import Observe, RateLimitSeen, RequestDone
from mirror.upstream.http import Answer, refusal
from mirror.upstream.links import parse_next
from mirror.upstream.redirects import send_following
from mirror.upstream.settings import Endpoint

_REMAINING = re.compile(r"\s*(\d{1,12})\s*(?:;.*)?")
# One to be challenged, one with the answer, one with credentials that were read again.
_TRIES = 3


class Exchange:
    """One endpoint."""

    def __init__(self, endpoint: Endpoint, connections: Connections, breaker: Breaker, observe: Observe) -> None:
        self.host, self.endpoint, self.breaker = connections.settings.host, endpoint, breaker
        self._connections, self._observe = connections, observe
        self._base = URL(endpoint.url)
        self._auth = Authorizer(self._base.origin(), connections, observe)
        connections.gate.note_host(self._base.host or "")

    async def close(self) -> None:
        await self._auth.close()
        await self._connections.close()
        self.breaker.close()

    def url(self, repository: str, rest: str) -> URL:
        """`rest` is what follows the repository in the path, and the query."""
        return URL(f"{self.endpoint.url}/v2/{repository}/{rest}", encoded=True)

    async def ask(self, method: str, repository: str, url: URL, headers: Mapping[str, str]) -> Answer:
        """An answer of status 200 or 206, to be closed by the caller; for every other one its UpstreamError."""
        authorization = await self._auth.first(repository)
        for attempt in range(_TRIES):
            answer = await self._send(method, url, headers, authorization)
            if answer.status != 401 or answer.elsewhere:
                break
            challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
            await answer.discard()
            authorization = await self._auth.answer(repository, challenges, authorization, again=attempt > 0)
        else:
            raise Unauthorized(self.host, "refused every credential (401)")
        if answer.status in (200, 206):
            return answer
        try:
            raise await refusal(answer)
        finally:
            await answer.discard()

    async def _send(self, method: str, url: URL, headers: Mapping[str, str], authorization: str | None) -> Answer:
        started, status = time.monotonic(), 0
        try:
            answer = await send_following(self._connections, method, url, headers, authorization)
            status = answer.status
            answer.observe = self._observe
        finally:
            self._observe(RequestDone(self.host, method, status, time.monotonic() - started))
        remaining = _REMAINING.fullmatch(answer.headers.get("RateLimit-Remaining", ""))
        if remaining and not answer.elsewhere:
            self._observe(RateLimitSeen(self.host, int(remaining[1])))
        return answer

    def next_page(self, answer: Answer, current: URL) -> URL | None:
        """Where the Link header says the next page is (RFC 8288; distribution-spec, "Pagination").

        On the endpoint's own host only: a list is not a way to send us elsewhere. A link without the path that our
        endpoint's URL has, or with another scheme, was written by a registry that does not see its proxy, and is
        put right. Raises BadAnswer.
        """
        target = parse_next(answer.headers.getall("Link", []))
        if target is None:
            return None
        try:
            url = current.join(URL(target, encoded=True)).with_fragment(None)
            same_host = url.host == self._base.host
        except ValueError:
            same_host = False
        if not same_host:
            raise BadAnswer(self.host, "the link to its next page leads to another host")
        path = url.raw_path
        prefix = self._base.raw_path.rstrip("/")
        if prefix and not path.startswith(f"{prefix}/"):
            path = prefix + path
        query = f"?{url.raw_query_string}" if url.raw_query_string else ""
        return URL(f"{self._base.origin()}{path}{query}", encoded=True)
