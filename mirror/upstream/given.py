"""What the endpoints of one upstream gave of blobs lately: an answer that begins well may still end badly."""

from cachetools import TTLCache

from mirror.oci.digest import Digest

_MAX_BLOBS = 1000
# Then the first in order is worth another try.
_SECONDS = 300.0


class Given:
    """By blob and endpoint (its URL)."""

    def __init__(self) -> None:
        self._doubted: TTLCache[Digest, frozenset[str]] = TTLCache(_MAX_BLOBS, _SECONDS)
        self._etags: TTLCache[tuple[Digest, str], str] = TTLCache(_MAX_BLOBS, _SECONDS)

    def doubt(self, digest: Digest, endpoint_url: str) -> None:
        """It broke off, or gave wrong bytes: it is asked last for this blob."""
        self._doubted[digest] = self.doubted(digest) | {endpoint_url}

    def doubted(self, digest: Digest) -> frozenset[str]:
        """Those to be asked last."""
        return self._doubted.get(digest, frozenset())

    def note_etag(self, digest: Digest, etag: str | None, endpoint_url: str) -> None:
        """Whose an ETag is: to another endpoint it means nothing."""
        if etag is not None:
            self._etags.setdefault((digest, etag), endpoint_url)

    def etag_for(self, digest: Digest, etag: str | None, endpoint_url: str) -> str | None:
        """The ETag, unless it is known to be another endpoint's."""
        if etag is None or self._etags.get((digest, etag), endpoint_url) != endpoint_url:
            return None
        return etag
