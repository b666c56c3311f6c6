"""What an upstream answered: plain values."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from mirror.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class UpstreamManifestHead:
    """What HEAD says. `digest` and `size` are None where the upstream does not say; `media_type` "" likewise."""

    digest: Digest | None
    media_type: str
    size: int | None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamManifest:
    """A manifest's exact bytes. `digest` is theirs, of sha256, or of the algorithm that the upstream named."""

    content: bytes
    media_type: str
    digest: Digest
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamBody:
    """A blob that is arriving, from byte `start` (0 where the upstream does not do ranges, whatever was asked).

    `total_size` is the whole blob's, None where the upstream does not say. `chunks` raises TimedOut and BadAnswer.
    """

    total_size: int | None
    start: int
    etag: str | None
    chunks: AsyncIterator[bytes]
    # To be called where the bytes turn out to be wrong.
    doubt: Callable[[], None]
