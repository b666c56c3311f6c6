"""`/v2/<name>/blobs/<digest>`."""

from dataclasses import replace

from mirror.oci.digest import Digest
from mirror.oci.media_types import OCTET_STREAM
from mirror.server.answer import Answer, answer, origin_headers
from mirror.server.ask import Ask
from mirror.server.manifests import cache_control
from mirror.sources.source import Origin


async def blob(ask: Ask) -> tuple[Answer, Origin]:
    """The blob; HEAD opens nothing."""
    digest = ask.digest
    if ask.method == "HEAD":
        size = await ask.source.stat_blob(ask.name, digest)
        return replace(answer(200, _headers(digest, size.origin)), stop=size.value), size.origin
    found = await ask.stack.enter_async_context(ask.source.open_blob(ask.name, digest))
    return answer(200, _headers(digest, found.origin), found.value), found.origin


def _headers(digest: Digest, origin: Origin) -> dict[str, str]:
    return {
        "Content-Type": OCTET_STREAM,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": cache_control(origin),
        **origin_headers(origin),
    }
