"""Manifests of one endpoint."""

import asyncio

from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import DigestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.media_types import ACCEPT
from mirror.upstream.answers import UpstreamManifest, UpstreamManifestHead
from mirror.upstream.errors import BadAnswer, NotFound, Unauthorized, UpstreamError
from mirror.upstream.exchange import Exchange
from mirror.upstream.http import Answer

# How registries refuse HEAD.
_HEAD_REFUSED = frozenset({400, 405, 406, 501})
# Beyond this, hashing takes longer than the event loop should stand still.
_INLINE_BYTES = 256 * 1024


async def head_manifest(exchange: Exchange, repository: str, reference: str) -> UpstreamManifestHead:
    """By HEAD; where that is refused, by GET."""
    url = exchange.url(repository, f"manifests/{reference}")
    try:
        answer = await exchange.ask("HEAD", repository, url, {"Accept": ACCEPT})
    except UpstreamError as error:
        if not refuses_head(error):
            raise
        found = await get_manifest(exchange, repository, reference)
        return UpstreamManifestHead(found.digest, found.media_type, len(found.content), found.etag)
    with_digest = UpstreamManifestHead(
        _digest(answer), _media_type(answer), answer.length_bytes, answer.headers.get("ETag")
    )
    answer.close()
    return with_digest


def refuses_head(error: UpstreamError) -> bool:
    """Whether GET may succeed where HEAD met this: some have no HEAD, and some signed URLs are for GET only."""
    if isinstance(error, BadAnswer):
        return error.status in _HEAD_REFUSED
    return error.elsewhere and isinstance(error, Unauthorized | NotFound)


async def get_manifest(exchange: Exchange, repository: str, reference: str) -> UpstreamManifest:
    """Raises BadAnswer where the bytes do not fit a digest that names them, TooLarge beyond MAX_MANIFEST_BYTES."""
    url = exchange.url(repository, f"manifests/{reference}")
    answer = await exchange.ask("GET", repository, url, {"Accept": ACCEPT})
    try:
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BadAnswer(
                exchange.host, "a compressed manifest, which was not asked for", elsewhere=answer.elsewhere
            )
        content = await answer.read(MAX_MANIFEST_BYTES)
    finally:
        answer.close()
    if _media_type(answer) == "text/html" and not content.lstrip().startswith(b"{"):
        raise BadAnswer(exchange.host, "a web page in place of a manifest", elsewhere=answer.elsewhere)
    named = _digest(answer)
    asked = Digest(reference) if is_digest(reference) else None
    algorithm = (asked or named or _DEFAULT).algorithm
    digest = await _hash(content, algorithm)
    said_otherwise = named is not None and not (named == digest or await _fits(named, content))
    if said_otherwise or asked not in (None, digest):
        raise BadAnswer(exchange.host, "a manifest with the wrong bytes for its digest", elsewhere=answer.elsewhere)
    return UpstreamManifest(content, _media_type(answer), digest, answer.headers.get("ETag"))


_DEFAULT = Digest.of(b"")


async def _hash(content: bytes, algorithm: str) -> Digest:
    if len(content) <= _INLINE_BYTES:
        return Digest.of(content, algorithm)
    return await asyncio.to_thread(Digest.of, content, algorithm)


async def _fits(digest: Digest, content: bytes) -> bool:
    return await _hash(content, digest.algorithm) == digest


def _digest(answer: Answer) -> Digest | None:
    """Docker-Content-Digest, where it is a digest."""
    try:
        return Digest.parse(answer.headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()
