"""Errors as answers: the one place that knows which status belongs to which error."""

import math

from mirror.oci import errors
from mirror.server.answer import Answer, json_answer

_STATUS: tuple[tuple[type[errors.OciError], int], ...] = (
    (errors.MethodUnsupported, 405),
    (errors.NameNotYetKnown, 503),
    (errors.Unknown, 404),
    (errors.NameInvalid, 400),
    (errors.DigestInvalid, 400),
    (errors.Unsupported, 400),
    (errors.Denied, 403),
    (errors.ManifestInvalid, 502),
    (errors.GatewayTimeout, 504),
    (errors.BadGateway, 502),
    (errors.Unavailable, 503),
)

UNPACKING_RETRY_SECONDS = "5"


def error_answer(error: errors.OciError, status: int | None = None) -> Answer:
    """`{"errors":[{"code","message","detail"}]}` (distribution-spec 1.1, "Error Codes").

    `status` where the error's own is not the right one.
    """
    status = status or next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {}
    if isinstance(error, errors.NameNotYetKnown):
        headers["Retry-After"] = UNPACKING_RETRY_SECONDS
    if isinstance(error, errors.MethodUnsupported):
        headers["Allow"] = "GET, HEAD"
    if isinstance(error, errors.Unavailable) and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    if isinstance(error, errors.Unknown) and error.age_seconds is not None:
        headers["Age"] = str(int(error.age_seconds))
        headers["Cache-Status"] = f"mirror; hit; ttl=-{math.ceil(error.stale_seconds)}"
    document = {"errors": [{"code": error.code, "message": error.message, "detail": error.detail}]}
    return json_answer(status, document, headers)


def internal_error() -> Answer:
    """What a client sees of an error that was not foreseen: nothing of it."""
    return json_answer(500, {"errors": [{"code": "UNKNOWN", "message": "internal error", "detail": None}]}, {})
