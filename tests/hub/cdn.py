"""A second host for blobs, with URLs that expire."""

from collections.abc import Callable
from itertools import count
from time import monotonic

from aiohttp import web

from mirror.oci.digest import Digest
from tests.hub.delivery import Reply
from tests.hub.faults import Fault
from tests.hub.ranges import ranged
from tests.hub.server import Server


class Cdn(Server):
    """Serves blobs at signed URLs that are good for `expires_seconds`; without a signature, 403."""

    def __init__(self, *, expires_seconds: float = 60, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # passed through as they are
        self.expires_seconds = expires_seconds
        self.blob_of: Callable[[Digest], bytes | None] = lambda digest: None
        self._signed: dict[str, float] = {}
        self._numbers = count()

    def sign(self, digest: Digest) -> str:
        """A URL for the blob; its signature is a secret and has characters that must arrive as they are."""
        signature = f"secret-signature%2F{next(self._numbers)}%3D%3D"
        self._signed[signature] = monotonic() + self.expires_seconds
        return f"{self.url}/cdn/{digest}?X-Signature={signature}&part=a%20b"

    def expire_all(self) -> None:
        """Make every URL that was given out expired."""
        self._signed.clear()

    def kind_of(self, path: str) -> str:
        return "blob" if path.startswith("/cdn/") else "other"

    async def reply(self, request: web.BaseRequest, fault: Fault | None) -> Reply:
        raw = request.raw_path
        path, _, query = raw.partition("?")
        signature = query.partition("&")[0].removeprefix("X-Signature=")
        if self._signed.get(signature, 0.0) < monotonic() or not query.endswith("&part=a%20b"):
            return Reply(403, body=b"<Error><Code>AccessDenied</Code></Error>")
        digest = Digest(path.removeprefix("/cdn/"))
        content = self.blob_of(digest)
        return Reply(404) if content is None else ranged(request, content, {"ETag": f'"cdn-{digest}"'})
