"""The protocol in the middle: what every place that content can come from answers.

Everything is asked for a canonical name and answers with checked values, or raises one of `oci.errors`; an
`Unknown` means "not here", so that the next source may answer.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest
from mirror.oci.names import Host, Name
from mirror.store.body import BlobBody

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an answer came from, for Cache-Status (RFC 9211), Age (RFC 9111, 5.1) and Warning.

    `status` is what follows `mirror; ` in Cache-Status, without the detail; `host` is the upstream's, for the
    detail. `age_seconds` is set on stale answers only. `fresh_until` is on `time.monotonic`'s clock: till then
    the same answer may be given again unasked; None: as long as the source's generation stands; 0: never.
    """

    status: str = "hit"
    host: Host | None = None
    age_seconds: float | None = None
    fresh_until: float | None = None
    warnings: tuple[str, ...] = ()
    # Content had with the upstream's credentials: caches on the way must not share it.
    private: bool = False
    # Called for every answer that is given again unasked: what is used stays in the cache.
    used: Callable[[], None] | None = None


LOCAL = Origin()


@dataclass(frozen=True, slots=True)
class Found(Generic[T_co]):
    """A value and where it came from."""

    value: T_co
    origin: Origin = LOCAL


class Source(Protocol):
    """A place that content can come from. Digests are asked of a repository, never alone (membership)."""

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        """The manifest that a tag or a digest (a `Digest`) names. Raises ManifestUnknown, NameUnknown."""
        ...

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        """Size in bytes; opens nothing. Raises BlobUnknown, NameUnknown."""
        ...

    def open_blob(self, name: Name, digest: Digest) -> AbstractAsyncContextManager[Found[BlobBody]]:
        """The blob, open as long as the context is. Raises BlobUnknown, NameUnknown on entering."""
        ...

    async def tags(self, name: Name, last: str, limit: int | None) -> Found[Sequence[str]]:
        """At most `limit` tags after `last`, in ASCII order. Raises NameUnknown."""
        ...

    async def referrers(self, name: Name, subject: Digest) -> Found[Sequence[Descriptor]]:
        """What refers to `subject`, artifactType and annotations filled in. Raises NameUnknown."""
        ...
