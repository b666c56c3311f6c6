"""One question to an endpoint: what was parsed from the request, and whom to ask."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import ManifestUnknown
from mirror.oci.names import Name, is_local_tag
from mirror.server.names import Wanted
from mirror.server.route import Route
from mirror.sources.source import Source


@dataclass(frozen=True, slots=True)
class Ask:
    """What an endpoint needs for its answer. `stack` keeps open what the answer's body reads from."""

    method: str
    route: Route
    wanted: Wanted
    name: Name
    source: Source
    stack: AsyncExitStack

    @property
    def digest(self) -> Digest:
        """The path's digest. Raises DigestInvalid."""
        return Digest.parse(self.route.reference)

    @property
    def reference(self) -> str:
        """The path's tag or digest. Raises DigestInvalid, or ManifestUnknown for what cannot be a tag."""
        if is_digest(self.route.reference):
            return self.digest
        if not is_local_tag(self.route.reference):
            raise ManifestUnknown({"name": str(self.name), "tag": self.route.reference[:300]})
        return self.route.reference
