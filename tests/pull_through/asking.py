"""A mirror over hubs, what may be asked of it, and what must be true of its cache afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mirror.app.prepare import prepare
from mirror.config import load
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from mirror.store.cache import Cache
from tests.hub import Hub, Image
from tests.serving import Mirror, serving

HOST = "registry.test"
APP = "team/app"


def upstream(hub: Hub | str, **keys: Any) -> dict[str, Any]:
    """An upstream's section of the configuration. It asks once only, so that each fault is seen as it is."""
    return {"endpoints": [hub if isinstance(hub, str) else hub.url], "retries": 0, **keys}


@asynccontextmanager
async def pulling(folder: Path, upstreams: Mapping[str, Mapping[str, Any]], **config: Any) -> AsyncIterator[Mirror]:
    """A mirror of these upstreams; the same `folder` again is the same cache."""
    async with serving(folder, {"upstreams": upstreams, **config}) as mirror:
        yield mirror


def forget_run(folder: Path) -> None:
    """What `mirror serve` clears before its workers start."""
    prepare(load(folder / "config.yaml"))


def path(kind: str, reference: str, *, host: str | None = HOST, repository: str = APP) -> str:
    """The target for a manifest, a blob or the referrers of a digest; for `tags`, of the list."""
    name = f"{host}/{repository}" if host else repository
    return f"/v2/{name}/tags/list" if kind == "tags" else f"/v2/{name}/{kind}/{reference}"


async def pull(mirror: Mirror, image: Image, tag: str, *, host: str | None = HOST, repository: str = APP) -> None:
    """The tag, and everything that its manifest lists, byte for byte."""
    answer = await mirror.get(path("manifests", tag, host=host, repository=repository))
    assert (answer.status, answer.body) == (200, image.content)
    for digest, content in image.blobs.items():
        answer = await mirror.get(path("blobs", digest, host=host, repository=repository))
        assert (answer.status, answer.body) == (200, content)


async def check_cache(cache: Path) -> None:
    """Every blob file hashes to its name; no tag and no manifest of any name leads nowhere; nothing else arrives."""
    await asyncio.to_thread(_check_cache, cache)


def _check_cache(cache: Path) -> None:
    for file in blob_files(cache):
        with suppress(FileNotFoundError):  # evicted at this moment
            content = file.read_bytes()
            assert Digest.parse(f"{file.parent.parent.name}:{file.name}").matches(content), file
    with Cache(cache, None).opened() as kept:
        for name in kept.names.iterate():
            tags, manifests = kept.names.peek(name).records()
            for record in [*tags.values(), *manifests.values()]:
                try:
                    content = kept.blobs.pool.read(record.descriptor.digest)
                except FileNotFoundError:  # evicted at this moment, or a name that leads nowhere
                    left = kept.names.peek(name).records()
                    assert record not in [*left[0].values(), *left[1].values()]
                    continue
                assert len(content) == record.descriptor.size
                ManifestLinks.parse(content, record.descriptor.media_type)


def blob_files(cache: Path) -> list[Path]:
    return [file for file in (cache / "blobs").glob("*/*/*") if file.is_file()]


def files_with(folder: Path, secret: str) -> Iterator[Path]:
    """The files below `folder` that hold the secret."""
    for file in folder.rglob("*"):
        if file.is_file() and secret.encode() in file.read_bytes():
            yield file


def listed(body: bytes) -> list[str]:
    """The digests that a referrers answer lists."""
    return [entry["digest"] for entry in json.loads(body)["manifests"]]
