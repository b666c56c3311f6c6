"""`/v2/<name>/referrers/<digest>?artifactType=` (distribution-spec 1.1, "Listing Referrers")."""

from collections.abc import Sequence

from mirror.oci.errors import Unsupported
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.oci.media_types import OCI_INDEX
from mirror.server.answer import Answer, answer, json_bytes, origin_headers
from mirror.server.ask import Ask
from mirror.server.paging import next_link
from mirror.sources.source import Origin

_HEAD = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":['.encode()
_TAIL = b"]}"


async def referrers(ask: Ask) -> tuple[Answer, Origin]:
    """An index of what refers to the digest, in pages of at most 4 MiB; empty where nothing does."""
    subject = ask.digest
    lasts = set(ask.route.values("last"))
    if len(lasts) > 1:
        raise Unsupported({"parameter": "last", "reason": "given more than once"})
    last = lasts.pop() if lasts else ""
    found = await ask.source.referrers(ask.name, subject)
    types = {_plain(value) for value in ask.route.values("artifactType") if value}
    listed = sorted(
        (one for one in found.value if one.digest > last and (not types or _plain(one.artifact_type) in types)),
        key=lambda one: one.digest,
    )
    pieces = [json_bytes(one.to_json()) for one in listed]
    fitting = _fitting(pieces)
    headers = {"Content-Type": OCI_INDEX, **origin_headers(found.origin)}
    if types:
        headers["OCI-Filters-Applied"] = "artifactType"
    if fitting < len(pieces):
        headers |= next_link(ask.route, {"last": listed[fitting - 1].digest})
    return answer(200, headers, _HEAD + b",".join(pieces[:fitting]) + _TAIL), found.origin


def _plain(artifact_type: str | None) -> str:
    """In a query, `+` stands for a space; no media type has one, and many have a `+` that clients do not encode."""
    return (artifact_type or "").replace(" ", "+")


def _fitting(pieces: Sequence[bytes]) -> int:
    """How many of the encoded descriptors fit into one page; at least one."""
    size = len(_HEAD) + len(_TAIL)
    for count, piece in enumerate(pieces):
        size += len(piece) + 1
        if size > MAX_MANIFEST_BYTES and count > 0:
            return count
    return len(pieces)
