"""What can be wrong with a request or with content, with the specification's error codes.

Codes: distribution-spec 1.1, "Error Codes". Statuses and bodies are made in `server/errors.py`.
"""

from typing import Any, ClassVar, Self


class OciError(Exception):
    """Something a client must be told. `detail` is any JSON value and goes to the client: no secrets."""

    code: ClassVar[str] = "UNKNOWN"
    message: ClassVar[str] = "unknown error"

    def __init__(self, detail: Any = None) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.message}: {self.detail}" if self.detail is not None else self.message


class Unknown(OciError):
    """The thing does not exist here; another source may still know it.

    `age_seconds` is set where an upstream said so earlier and cannot be asked now; `stale_seconds` is how long
    past its time the saying is.
    """

    age_seconds: float | None = None
    stale_seconds: float = 0

    def aged(self, age_seconds: float, fresh_for_seconds: float) -> Self:
        """The same error, marked as said some time ago."""
        self.age_seconds = age_seconds
        self.stale_seconds = max(0, age_seconds - fresh_for_seconds)
        return self


class NameUnknown(Unknown):
    code = "NAME_UNKNOWN"
    message = "repository name not known to registry"


class NameNotYetKnown(NameUnknown):
    """Archives are still being unpacked for the first time: whether there is such a name is to be seen."""

    code = "UNAVAILABLE"
    message = "archives are still being unpacked"


class ManifestUnknown(Unknown):
    code = "MANIFEST_UNKNOWN"
    message = "manifest unknown to registry"


class BlobUnknown(Unknown):
    code = "BLOB_UNKNOWN"
    message = "blob unknown to registry"


class NotFound(Unknown):
    """A path that is no endpoint of this registry. Of the specification's codes, no other fits."""

    code = "UNSUPPORTED"
    message = "no such endpoint"


class NameInvalid(OciError):
    code = "NAME_INVALID"
    message = "invalid repository name"


class DigestInvalid(OciError):
    code = "DIGEST_INVALID"
    message = "provided digest is not one of a registered algorithm"


class ManifestInvalid(OciError):
    code = "MANIFEST_INVALID"
    message = "manifest invalid"


class OtherAlgorithm(ManifestInvalid):
    """A descriptor that is right but for its digest, which nobody here can check: it costs only itself."""


class Unsupported(OciError):
    """A parameter that cannot be served; `detail` names it."""

    code = "UNSUPPORTED"
    message = "the operation is unsupported"


class MethodUnsupported(Unsupported):
    """A write method: this registry is pull-only."""

    message = "this registry is read-only"


class Denied(OciError):
    code = "DENIED"
    message = "requested access to the resource is denied"


class Unavailable(OciError):
    """Not to be had now. `retry_after_seconds` becomes Retry-After where it is not None."""

    code = "UNAVAILABLE"
    message = "the content cannot be had at the moment"

    def __init__(self, detail: Any = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class BadGateway(Unavailable):
    """The upstream refused, broke off, or answered with an error of its own."""

    message = "the upstream registry failed"


class GatewayTimeout(Unavailable):
    message = "the upstream registry did not answer in time"
