"""What an upstream's failure means to our own client (design, "Cold answers")."""

from mirror.oci.errors import BadGateway, Denied, GatewayTimeout, NameUnknown, OciError, Unavailable, Unknown
from mirror.upstream import errors as upstream

# What a client that is told "later" without a time is told.
RETRY_AFTER_SECONDS = 5.0


def translated(error: upstream.UpstreamError, unknown: Unknown) -> OciError:
    """The error for a client that nothing is cached for. `unknown` is the one of the kind that was asked for."""
    where = {"upstream": error.host, "reason": error.reason}
    match error:
        case upstream.NotFound():
            return NameUnknown(unknown.detail) if error.code == NameUnknown.code else unknown
        case upstream.Unauthorized():
            # Never 401: there is no challenge of ours that the client could answer.
            return Denied(where)
        case upstream.Overloaded():
            # An answer, and a 5xx like the others: only that we do not ask now is worth a 503.
            return BadGateway(where)
        case upstream.Unavailable():
            return Unavailable(where, error.retry_after_seconds or RETRY_AFTER_SECONDS)
        case upstream.TimedOut():
            return GatewayTimeout(where)
        case _:
            return BadGateway(where)


def offline(host: str) -> Unavailable:
    """The error for what is not cached while the upstream is not to be asked."""
    return Unavailable({"upstream": host, "reason": "offline"}, RETRY_AFTER_SECONDS)


def means_gone(error: upstream.UpstreamError) -> bool:
    """Whether the upstream said that this is not, or no longer, to be had (401, 403, 404, 410)."""
    return isinstance(error, upstream.NotFound | upstream.Unauthorized)
