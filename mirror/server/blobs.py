"""`/v2/<name>/blobs/<digest>`."""

import asyncio
import os
from dataclasses import replace

from mirror.oci.digest import Digest
from mirror.oci.media_types import OCTET_STREAM
from mirror.server.answer import Answer, answer, origin_headers
from mirror.server.ask import Ask
from mirror.server.manifests import cache_control
from mirror.sources.source import Origin
from mirror.store.body import FileSlice

# A blob up to this size is taken into memory, and given from there again while its content stands.
SMALL_BYTES = 64 * 1024


async def blob(ask: Ask) -> tuple[Answer, Origin]:
    """The blob; HEAD opens nothing."""
    digest = ask.digest
    if ask.method == "HEAD":
        size = await ask.source.stat_blob(ask.name, digest)
        return replace(answer(200, _headers(digest, size.origin)), stop=size.value), size.origin
    found = await ask.stack.enter_async_context(ask.source.open_blob(ask.name, digest))
    body = found.value
    if isinstance(body, FileSlice) and body.size <= SMALL_BYTES:
        body = await asyncio.to_thread(_taken, body, digest) or body
    return answer(200, _headers(digest, found.origin), body), found.origin


def _taken(file: FileSlice, digest: Digest) -> bytes | None:
    """All the bytes, where they are the digest's. Wrong ones are not for keeping: their file may be mended."""
    content = os.pread(file.fd, file.size, file.offset)
    return content if digest.matches(content) else None


def _headers(digest: Digest, origin: Origin) -> dict[str, str]:
    return {
        "Content-Type": OCTET_STREAM,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": cache_control(origin),
        **origin_headers(origin),
    }
