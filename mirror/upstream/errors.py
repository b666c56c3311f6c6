"""What can go wrong with an upstream.

Texts go to logs and to operators: they name hosts and what happened; never a query string (signed URLs), a token,
a password, or anything else that came in a header or a body and may be one.
"""


class UpstreamError(Exception):
    """`host` is the upstream as configured, `reason` what happened.

    `retry`: the same request may do better at once. `elsewhere`: it happened at a host that a redirect led to, and
    says nothing of the endpoint itself.
    """

    retry = False

    def __init__(self, host: str, reason: str, *, elsewhere: bool = False) -> None:
        super().__init__(host, reason)
        self.host = host
        self.reason = reason
        self.elsewhere = elsewhere

    def __str__(self) -> str:
        return f"{self.host}: {self.reason}"


class Refused(UpstreamError):
    """No connection: refused, unreachable, unknown host name, TLS failure."""

    retry = True


class TimedOut(UpstreamError):
    """No connection, no head or no further byte in time, or the caller's deadline is over."""

    retry = True


class BadAnswer(UpstreamError):
    """Cut short, malformed, wrong digest, too large, or an error status; `status` where there was one."""

    retry = True

    def __init__(self, host: str, reason: str, *, elsewhere: bool = False, status: int | None = None) -> None:
        super().__init__(host, reason, elsewhere=elsewhere)
        self.status = status
        if status is not None and status < 500:
            self.retry = False


class Cut(BadAnswer):
    """The connection broke, or what came was no HTTP."""


class TooLarge(BadAnswer):
    """More than the bound for its kind: asking again would not help."""

    retry = False


class RedirectRefused(BadAnswer):
    """A redirect that is not followed: https to http, to an address of this machine, in a circle, too many."""

    retry = False


class SizeUntold(BadAnswer):
    """It has the blob, and says nowhere how large it is."""


class NotFound(UpstreamError):
    """404 or 410. `code` is the specification's, where the body gave one: NAME_UNKNOWN, MANIFEST_UNKNOWN, …"""

    def __init__(self, host: str, reason: str, *, code: str | None = None, elsewhere: bool = False) -> None:
        super().__init__(host, reason, elsewhere=elsewhere)
        self.code = code


class NoReferrersApi(NotFound):
    """The registry does not know the referrers API: its fallback tag is to be asked for."""


class RangeRefused(UpstreamError):
    """416: no byte at that offset. `total_bytes` where the answer said how many there are."""

    def __init__(self, host: str, reason: str, total_bytes: int | None) -> None:
        super().__init__(host, reason)
        self.total_bytes = total_bytes


class Unauthorized(UpstreamError):
    """401 or 403 (`status`), from the registry or its token service, or no credentials for what it asks."""

    def __init__(self, host: str, reason: str, *, elsewhere: bool = False, status: int = 401) -> None:
        super().__init__(host, reason, elsewhere=elsewhere)
        self.status = status
        # A signed URL may have expired on the way; the registry gives a fresh one.
        self.retry = elsewhere


class RealmRefused(Unauthorized):
    """The challenge names a token service that the configuration does not: `reason` has the line to add."""


class Unavailable(UpstreamError):
    """Asked to wait, or waiting by ourselves: not to be asked again for `retry_after_seconds`."""

    def __init__(self, host: str, reason: str, retry_after_seconds: float, *, elsewhere: bool = False) -> None:
        super().__init__(host, reason, elsewhere=elsewhere)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(Unavailable):
    """429."""


class Overloaded(Unavailable):
    """503 with Retry-After, as the upstream said it; while the wait lasts, it is a plain Unavailable."""


class BreakerOpen(Unavailable):
    """Failed too often in a row: not asked at all for a while."""
