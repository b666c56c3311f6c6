"""`mirror cache ls|stats|refresh|forget`: the cache's folder, with or without a mirror running on it."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any

from mirror.app.upstreams import cache, pull_through
from mirror.cli.table import human_size, print_table
from mirror.config import Config
from mirror.oci.errors import OciError
from mirror.oci.names import Host, Name, Repository, familiar
from mirror.oci.reference import Reference
from mirror.store.report import CachedImage, cached_images, usage


def run_ls(config: Config, *, as_json: bool) -> int:
    """Print every cached tag, and every manifest that no tag reaches."""
    with cache(config).opened() as kept:
        images = cached_images(kept.blobs.pool, kept.names, kept.index)
    if as_json:
        print(json.dumps([_to_json(image) for image in images], indent=2))
        return 0
    rows = [
        [
            str(image.name),
            image.tag if image.tag is not None else "(no tag, digest only)",
            image.descriptor.digest[:19],
            human_size(image.bytes),
            _when(image.fetched_at),
            _when(image.used_at),
            f"{image.missing} not cached" if image.missing else "",
        ]
        for image in images
    ]
    print_table(["REPOSITORY", "TAG", "DIGEST", "SIZE", "FETCHED", "USED", "NOTES"], rows)
    return 0


def run_stats(config: Config, *, as_json: bool) -> int:
    """Print how much is cached, against how much may be."""
    with cache(config).opened() as kept:
        kept.evictor.scan()
        found = usage(kept.names, kept.index)
        arriving = kept.blobs.pool.parts_bytes()
    numbers: dict[str, Any] = {
        "path": str(config.cache.path),
        "bytes": found.bytes,
        "max_bytes": config.cache.max_bytes,
        "arriving_bytes": arriving,
        "blobs": found.blobs,
        "manifests": found.manifests,
        "tags": found.tags,
        "repositories": found.repositories,
    }
    if as_json:
        print(json.dumps(numbers, indent=2))
        return 0
    for key, value in numbers.items():
        print(f"{key.replace('_', ' '):<15} {human_size(value) if key.endswith('bytes') else value}")
    return 0


def run_refresh(config: Config, text: str, *, as_json: bool) -> int:
    """Ask the upstream for one tag now, whatever is cached of it, and print what it is."""
    try:
        reference = _reference(config, text)
        host = reference.host
        if host is None or host not in config.upstreams:
            raise _WrongUse(f"{host} is not among the configured upstreams")
    except (OciError, _WrongUse) as error:
        print(f"{text}: {error}", file=sys.stderr)
        return 2
    try:
        digest = asyncio.run(_refresh(config, host, reference))
    except OciError as error:
        print(f"{text}: {error}", file=sys.stderr)
        return 1
    tag = reference.tag or "latest"
    if as_json:
        print(json.dumps({"name": str(reference.name), "tag": tag, "digest": digest}, indent=2))
    else:
        print(f"{reference.name}:{tag} is {digest}")
    return 0


def run_forget(config: Config, text: str) -> int:
    """Forget one tag of the cache, or a whole repository. Its bytes go when room is needed."""
    try:
        reference = _reference(config, text)
    except (OciError, _WrongUse) as error:
        print(f"{text}: {error}", file=sys.stderr)
        return 2
    with cache(config).opened() as kept:
        repository = kept.names.repository(reference.name)
        known = repository.forget_tag(reference.tag) if reference.tag else repository.forget()
    if not known:
        print(f"{text}: not cached", file=sys.stderr)
        return 1
    print(f"{text}: forgotten")
    return 0


class _WrongUse(Exception):
    """The argument cannot be meant."""


def _reference(config: Config, text: str) -> Reference:
    found = Reference.parse(text)
    if found.digest is not None:
        # What a digest names never changes, and is had as long as it is not evicted.
        raise _WrongUse("names a digest; name a tag, or a repository")
    host = found.host or config.default_host
    if host is None:
        raise _WrongUse("names no host, and there is no default_host")
    return Reference(host, Repository(familiar(host, found.repository)), found.tag, found.digest)


async def _refresh(config: Config, host: Host, reference: Reference) -> str:
    async with cache(config) as kept, pull_through(config, kept, None) as upstreams:
        name = Name(host, reference.repository)
        return (await upstreams[host].refresh(name, reference.tag or "latest")).digest


def _to_json(image: CachedImage) -> dict[str, Any]:
    return {
        "name": str(image.name),
        "tag": image.tag,
        "digest": image.descriptor.digest,
        "mediaType": image.descriptor.media_type,
        "size": image.bytes,
        "missing": image.missing,
        "fetched": _when(image.fetched_at),
        "checked": _when(image.checked_at),
        "used": _when(image.used_at),
    }


def _when(seconds: float) -> str:
    """RFC 3339 in UTC; empty for never."""
    return (
        datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if seconds else ""
    )
