"""One HTTP request and its answer, with time-outs, and with aiohttp's errors told in our words."""

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from mirror.upstream.addresses import AddressRefused
from mirror.upstream.connections import Connections, Role
from mirror.upstream.errors import (
    BadAnswer,
    Cut,
    NotFound,
    Overloaded,
    RangeRefused,
    RateLimited,
    RedirectRefused,
    Refused,
    TimedOut,
    TooLarge,
    Unauthorized,
    UpstreamError,
)
from mirror.upstream.events import BytesReceived, Observe, ignore

# An error's body is read this far, for the code in it.
_MAX_ERROR_BYTES = 64 * 1024
# A 429 that does not say for how long.
DEFAULT_RETRY_AFTER_SECONDS = 5.0
_MAX_RETRY_AFTER_SECONDS = 3600.0
_CODE = re.compile(r"[A-Z_]{1,64}")


@dataclass(slots=True)
class Answer:
    """A head that came, and the body that may be read. Whoever holds it closes it.

    `elsewhere`: it came from a host that a redirect led to.
    """

    host: str
    response: aiohttp.ClientResponse
    idle_timeout_seconds: float
    elsewhere: bool = False
    observe: Observe = ignore

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self.response.headers

    @property
    def length_bytes(self) -> int | None:
        """Content-Length, where there is one that is a number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    async def next_chunk(self) -> bytes:
        """What came next; empty at the end. Raises TimedOut after an idle time without a byte, BadAnswer on a cut."""
        with translated(self.host, elsewhere=self.elsewhere, doing="reading the body"):
            async with asyncio.timeout(self.idle_timeout_seconds):
                chunk = await self.response.content.readany()
        if chunk:
            self.observe(BytesReceived(self.host, len(chunk)))
        return chunk

    async def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises TooLarge beyond `max_bytes`; a body that drips is a TimedOut in the end."""
        if (self.length_bytes or 0) > max_bytes:
            raise self._too_large(max_bytes)
        parts, size = [], 0
        with translated(self.host, elsewhere=self.elsewhere, doing="reading the body"):
            async with asyncio.timeout(2 * self.idle_timeout_seconds):
                while chunk := await self.next_chunk():
                    size += len(chunk)
                    if size > max_bytes:
                        raise self._too_large(max_bytes)
                    parts.append(chunk)
        return b"".join(parts)

    def _too_large(self, max_bytes: int) -> TooLarge:
        return TooLarge(self.host, f"an answer of more than {max_bytes} bytes", elsewhere=self.elsewhere)

    async def discard(self) -> None:
        """Close, after reading what little there may be: so the connection can be used again."""
        if self.response.method != "HEAD":
            with suppress(UpstreamError):
                await self.read(_MAX_ERROR_BYTES)
        self.close()

    def close(self) -> None:
        """Give the connection back where the body came to its end, else drop it."""
        if self.response.content.is_eof():
            self.response.release()
        else:
            self.response.close()


async def send(
    connections: Connections,
    role: Role,
    method: str,
    url: URL,
    headers: Mapping[str, str],
    *,
    form: Mapping[str, str] | None = None,
) -> Answer:
    """One request; redirects are not followed, no status is an error. Raises Refused, TimedOut, BadAnswer."""
    settings, elsewhere = connections.settings, role == "elsewhere"
    # Once the request is out, `first_byte_timed` makes it the time that an answer has to begin in.
    limit = settings.connect_timeout_seconds + settings.first_byte_timeout_seconds
    with translated(settings.host, elsewhere=elsewhere, doing=f"asking {url.host}"):
        async with asyncio.timeout(limit) as running:
            response = await connections.session(role).request(
                method, url, headers=headers, data=form, allow_redirects=False, trace_request_ctx=running
            )
    return Answer(settings.host, response, settings.idle_timeout_seconds, elsewhere)


@contextmanager
def translated(host: str, *, elsewhere: bool, doing: str) -> Iterator[None]:
    """aiohttp's errors and time-outs in our words: its texts may hold URLs with secrets in them."""
    try:
        yield
    except UpstreamError:
        raise
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # TimeoutError is an OSError.
        raise _translate(host, error, elsewhere, doing) from None


def _translate(host: str, error: Exception, elsewhere: bool, doing: str) -> UpstreamError:
    match error:
        case TimeoutError():
            return TimedOut(host, f"no answer in time, {doing}", elsewhere=elsewhere)
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refused):
            return RedirectRefused(host, f"{refused.strerror} ({doing})", elsewhere=elsewhere)
        case aiohttp.ClientConnectorDNSError():
            return Refused(host, f"the host name is not found, {doing}", elsewhere=elsewhere)
        case aiohttp.ClientSSLError():
            return Refused(host, f"TLS fails ({_tls_reason(error)}), {doing}", elsewhere=elsewhere)
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Refused(host, f"the proxy does not let us through, {doing}", elsewhere=elsewhere)
        case aiohttp.ClientConnectorError(os_error=os_error):
            # Its own text has the address in it, which is the operator's business.
            why = os.strerror(os_error.errno).lower() if os_error.errno else "refused"
            return Refused(host, f"no connection ({why}), {doing}", elsewhere=elsewhere)
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
            return Cut(host, f"the connection was cut, {doing}", elsewhere=elsewhere)
        case _:
            return Cut(host, f"no valid HTTP, {doing}", elsewhere=elsewhere)


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or "handshake"


async def refusal(answer: Answer) -> UpstreamError:
    """The error that a status which is no success means. Reads a little of the body, for the code in it."""
    host, status, elsewhere = answer.host, answer.status, answer.elsewhere
    where = f" at {answer.response.url.host}, where a redirect led" if elsewhere else ""
    match status:
        case 404 | 410:
            return NotFound(host, f"not found ({status}){where}", code=await _code(answer), elsewhere=elsewhere)
        case 401 | 403:
            return Unauthorized(host, f"refused ({status}){where}", status=status, elsewhere=elsewhere)
        case 408:
            return TimedOut(host, f"the upstream gave up waiting (408){where}", elsewhere=elsewhere)
        case 416:
            total = re.fullmatch(r"bytes \*/(\d{1,18})", answer.headers.get("Content-Range", ""))
            return RangeRefused(host, "no byte at that offset (416)", int(total[1]) if total else None)
        case 429:
            seconds = retry_after_seconds(answer.headers)
            wait = DEFAULT_RETRY_AFTER_SECONDS if seconds is None else seconds
            return RateLimited(host, f"too many requests (429){where}", wait, elsewhere=elsewhere)
        case 503 if (seconds := retry_after_seconds(answer.headers)) is not None:
            return Overloaded(host, f"asks to be left alone (503){where}", seconds, elsewhere=elsewhere)
        case _:
            return BadAnswer(host, f"status {status}{where}", status=status, elsewhere=elsewhere)


async def _code(answer: Answer) -> str | None:
    """The first error code in a body of the specification's form; whatever else stands there is passed over."""
    try:
        document = json.loads(await answer.read(_MAX_ERROR_BYTES))
        code = document["errors"][0]["code"]
    except (UpstreamError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After (RFC 9110, 10.2.3), seconds or a date: a second to an hour; None where it cannot be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:12])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time()
        except (ValueError, OverflowError, TypeError):
            return None
    return min(max(seconds, 1.0), _MAX_RETRY_AFTER_SECONDS)
