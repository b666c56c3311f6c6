"""Fallback tags for registries whose referrers only the API knows (distribution-spec 1.1, "Referrers Tag Schema").

A client that knows no referrers API asks for the tag `sha256-<hex of the subject>`. Where no such tag exists and
something refers to the subject, an index is made for it. It is not listed among the tags.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import ManifestUnknown, OciError, Unavailable
from mirror.oci.manifest import MAX_MANIFEST_BYTES, Manifest, ManifestLinks
from mirror.oci.names import Name
from mirror.sources.source import GENERATED_WARNING, LOCAL, Found, Source
from mirror.store.body import BlobBody
from mirror.store.generated import GeneratedManifests

# Says in a generated index which list it is. A `subject` would make it a referrer itself.
SUBJECT = "dev.mirror.referrers-of"


@dataclass(frozen=True)
class WithFallbackTags:
    """A `Source` that answers as `source` does, and for fallback tags that it does not know."""

    source: Source
    generated: GeneratedManifests

    async def resolve(self, name: Name, reference: str) -> Found[Manifest]:
        """See `Source.resolve`."""
        try:
            return await self.source.resolve(name, reference)
        except (ManifestUnknown, Unavailable) as error:
            # Where the upstream is gone, what is known of its list still makes the tag.
            if is_digest(reference):
                found = await self._made_before(name, Digest(reference))
            else:
                found = await self._made_now(name, Digest.parse_tag(reference))
            if found is None:
                raise error from None
            return found

    async def stat_blob(self, name: Name, digest: Digest) -> Found[int]:
        """See `Source.stat_blob`."""
        return await self.source.stat_blob(name, digest)

    def open_blob(self, name: Name, digest: Digest) -> AbstractAsyncContextManager[Found[BlobBody]]:
        """See `Source.open_blob`."""
        return self.source.open_blob(name, digest)

    async def tags(self, name: Name, last: str, limit: int | None) -> Found[Sequence[str]]:
        """See `Source.tags`."""
        return await self.source.tags(name, last, limit)

    async def referrers(self, name: Name, subject: Digest) -> Found[Sequence[Descriptor]]:
        """See `Source.referrers`."""
        return await self.source.referrers(name, subject)

    async def _made_now(self, name: Name, subject: Digest | None) -> Found[Manifest] | None:
        if subject is None:
            return None
        try:
            found = await self.source.referrers(name, subject)
        except OciError:
            return None  # the tag is unknown, whatever keeps the list from being had
        content = _index(subject, found.value)
        if not found.value or len(content) > MAX_MANIFEST_BYTES:
            return None
        # Stored before anybody hears of its digest: the next request may reach another process.
        digest = await asyncio.to_thread(self.generated.put, content)
        origin = replace(found.origin, warnings=(*found.origin.warnings, GENERATED_WARNING))
        return Found(Manifest(digest, media_types.OCI_INDEX, content), origin)

    async def _made_before(self, name: Name, digest: Digest) -> Found[Manifest] | None:
        """An index made earlier: the repository's as long as it has all that it lists."""
        content = await asyncio.to_thread(self.generated.get, digest)
        if content is None:
            return None
        try:
            links = ManifestLinks.parse(content)
            if not links.manifests:
                return None  # what lists nothing is nobody's
            said = (links.annotations or {}).get(SUBJECT)
            listed = await self.source.referrers(name, Digest.parse(said)) if said else None
            origin = listed.origin if listed else LOCAL
            known = {one.digest for one in listed.value} if listed else frozenset()
            for child in links.manifests:
                # There may be thousands: only what is not listed is asked for one by one.
                if child.digest not in known:
                    origin = (await self.source.resolve(name, child.digest)).origin
        except OciError:
            return None
        origin = replace(origin, warnings=(*origin.warnings, GENERATED_WARNING))
        return Found(Manifest(digest, links.media_type, content), origin)


def _index(subject: Digest, descriptors: Sequence[Descriptor]) -> bytes:
    """The same bytes for the same referrers, wherever they are made."""
    listed = [one.to_json() for one in sorted(descriptors, key=lambda one: one.digest)]
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
    document["annotations"] = {SUBJECT: subject}
    return json.dumps(document, separators=(",", ":")).encode()
