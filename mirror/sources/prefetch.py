"""Fetching what refers to an image along with it, so that signatures are there when their upstream is not."""

import asyncio
import logging
from contextlib import suppress

from mirror.logs import event
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid, OciError
from mirror.oci.manifest import ManifestLinks
from mirror.oci.names import Name
from mirror.sources.source import Source

log = logging.getLogger(__name__)

# Clients come first: so few at a time, and of what hangs on an image only so much.
AT_A_TIME = 4
MAX_WAITING = 1_000
MAX_REFERRERS = 200
MAX_BLOB_BYTES = 32 * 1024 * 1024


class ReferrersPrefetch:
    """Asks `source` as a client would, beside the clients. What fails is left to the first who asks for it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._running: dict[tuple[Name, Digest], asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(AT_A_TIME)

    def begin(self, name: Name, subject: Digest) -> None:
        """Fetch what refers to a manifest that has just been fetched; does not wait."""
        key = name, subject
        if key not in self._running and len(self._running) < MAX_WAITING:
            task = asyncio.create_task(self._fetch(name, subject), name=f"prefetch of {name}@{subject}")
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))

    async def stop(self) -> None:
        """End all of it."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, name: Name, subject: Digest) -> None:
        async with self._slots:
            try:
                found = await self._source.referrers(name, subject)
                for descriptor in found.value[:MAX_REFERRERS]:
                    with suppress(OciError, OSError):
                        await self._fetch_one(name, descriptor.digest)
            except (OciError, OSError) as error:
                event(log, logging.INFO, "referrers_not_prefetched", name=str(name), reason=str(error))

    async def _fetch_one(self, name: Name, digest: Digest) -> None:
        manifest = (await self._source.resolve(name, digest)).value
        try:
            blobs = ManifestLinks.parse(manifest.content, manifest.media_type).blobs
        except ManifestInvalid:
            return
        for blob in blobs:
            if blob.size <= MAX_BLOB_BYTES:
                # Its fill goes on when nobody reads.
                async with self._source.open_blob(name, blob.digest):
                    pass
