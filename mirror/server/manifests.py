"""`/v2/<name>/manifests/<tag|digest>`."""

from mirror.oci.digest import is_digest
from mirror.server.answer import IMMUTABLE, Answer, answer, origin_headers
from mirror.server.ask import Ask
from mirror.sources.source import Origin


async def manifest(ask: Ask) -> tuple[Answer, Origin]:
    """The manifest with its own Content-Type, whatever Accept says: a manifest that exists is never hidden."""
    found = await ask.source.resolve(ask.name, ask.reference)
    headers = {
        "Content-Type": found.value.media_type,
        "Docker-Content-Digest": found.value.digest,
        "ETag": f'"{found.value.digest}"',
        **origin_headers(found.origin),
    }
    if is_digest(ask.route.reference):
        headers["Cache-Control"] = cache_control(found.origin)
    return answer(200, headers, found.value.content), found.origin


def cache_control(origin: Origin) -> str:
    """For what a digest names: it never changes, but what credentials opened is not for shared caches."""
    return f"{'private' if origin.private else 'public'}, {IMMUTABLE}"
