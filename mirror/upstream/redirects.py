"""Following redirects, hop by hop, without carrying anything to where it does not belong.

RFC 9110, 15.4. To another origin (scheme, host, port) go no credentials and no client certificate, and none come
back on a later hop; https never becomes http; what is reached is checked by `addresses`.
"""

from collections.abc import Mapping

from yarl import URL

from mirror.upstream.connections import Connections, Role
from mirror.upstream.errors import BadAnswer, RedirectRefused
from mirror.upstream.http import Answer, send

MAX_HOPS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def send_following(
    connections: Connections,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    authorization: str | None,
) -> Answer:
    """The answer at the end of the redirects, of whatever status. Raises RedirectRefused and what `send` raises."""
    origin, seen = url.origin(), {url}
    role: Role = "own"
    while True:
        sent = {**headers, "Authorization": authorization} if authorization and role == "own" else headers
        answer = await send(connections, role, method, url, sent)
        if answer.status not in REDIRECTS:
            return answer
        try:
            url = _next(answer, url, connections)
        finally:
            await answer.discard()
        if url in seen or len(seen) > MAX_HOPS:
            reason = "redirects go in a circle" if url in seen else f"more than {MAX_HOPS} redirects"
            raise RedirectRefused(answer.host, reason, elsewhere=role == "elsewhere")
        seen.add(url)
        if url.origin() != origin:
            role = "elsewhere"


def _next(answer: Answer, url: URL, connections: Connections) -> URL:
    """Where a redirect leads. Raises BadAnswer where it says nothing, RedirectRefused where we do not go."""
    location = answer.headers.get("Location")
    if not location:
        raise BadAnswer(answer.host, f"a redirect ({answer.status}) to nowhere", elsewhere=answer.elsewhere)
    try:
        # As it came: a signed URL is another one when its escapes are rewritten.
        target = url.join(URL(location, encoded=True)).with_fragment(None)
        target = target.with_user(None) if target.raw_user or target.raw_password else target
        scheme, host = target.scheme, target.host
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        raise RedirectRefused(answer.host, "a redirect to something that is no URL of the web")
    if scheme == "http" and url.scheme == "https" and not connections.settings.tls.insecure:
        raise RedirectRefused(answer.host, f"a redirect from https to plain http, to {host}")
    if target.origin() != url.origin() and not connections.gate.allows_host(host):
        raise RedirectRefused(answer.host, f"a redirect to {host}, an address of this machine or its link")
    return target
