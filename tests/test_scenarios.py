"""The eighteen ways in which references meet the mirror (OCI reference-types working group, upgrade path).

Producers push to a registry of their generation, over HTTP, or write a layout as a tool of that generation does;
consumers of each generation pull through the mirror, or from a mirror of that layout.
"""

import itertools
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from tests.content import LayoutWriter, encode
from tests.hub import Hub, Image
from tests.hub.content import build_image, build_reference
from tests.hub.fixtures import Hubs
from tests.serving import Mirror, Reply, serving

REPOSITORY = "team/app"
TAG = "1.0"
SIGNATURE = "application/vnd.example.signature"
SBOM = "application/vnd.example.sbom.config+json"
SCAN = "application/vnd.example.scan"


class Generation(Enum):
    """How far producer, registry or consumer have come; a registry is never intermediate."""

    CURRENT = "current"
    INTERMEDIATE = "intermediate"
    COMPLETE = "complete"


REGISTRIES = (Generation.CURRENT, Generation.COMPLETE)
# The working group's numbers: consumers change fastest, producers slowest.
SCENARIOS = dict(enumerate(itertools.product(Generation, REGISTRIES, Generation), start=1))


class State(Enum):
    COLD = "cold"
    WARM = "warm"
    STOPPED = "stopped"
    LAYOUT = "layout"
    ARCHIVE = "archive"


class Registry(Protocol):
    """Where a producer pushes to."""

    async def push(self, image: Image, reference: str) -> tuple[int, bool]:
        """The status, and whether the registry said that it lists the image by its subject (OCI-Subject)."""
        ...


class HubRegistry:
    """The hub, over HTTP."""

    def __init__(self, hub: Hub, session: aiohttp.ClientSession) -> None:
        self.url = f"{hub.url}/v2/{REPOSITORY}"
        self.session = session

    async def push(self, image: Image, reference: str) -> tuple[int, bool]:
        for digest, blob in image.blobs.items():
            async with self.session.post(f"{self.url}/blobs/uploads/?digest={quote(digest)}", data=blob) as answer:
                assert answer.status == 201
        headers = {"Content-Type": image.media_type}
        async with self.session.put(
            f"{self.url}/manifests/{reference}", data=image.content, headers=headers
        ) as answer:
            if answer.status == 400:
                assert (await answer.json())["errors"][0]["code"] == "MANIFEST_INVALID"
            return answer.status, "OCI-Subject" in answer.headers


class LayoutRegistry:
    """A layout, written by a tool that does as a registry of that generation."""

    def __init__(self, folder: Path, generation: Generation) -> None:
        self.writer = LayoutWriter(folder)
        self.knows_references = generation is Generation.COMPLETE
        self.tags: dict[str, Descriptor] = {}
        self.untagged: list[Descriptor] = []

    async def push(self, image: Image, reference: str) -> tuple[int, bool]:
        if image.media_type == media_types.OCI_ARTIFACT and not self.knows_references:
            return 400, False
        for blob in image.blobs.values():
            self.writer.blob(blob)
        written = self.writer.blob(image.content, image.media_type)
        if reference == image.digest:
            self.untagged.append(written)
        else:
            self.tags[reference] = written
        return 201, self.knows_references

    def save(self) -> None:
        for tag, descriptor in self.tags.items():
            self.writer.tag(descriptor, tag)
        for descriptor in self.untagged:
            self.writer.add(descriptor)
        self.writer.save()


@dataclass
class Produced:
    """What a producer pushed and its registry took; `types` as the references' lists must tell them."""

    image: Image
    references: dict[Digest, Image] = field(default_factory=dict)
    types: dict[Digest, str] = field(default_factory=dict)
    fallback: Image | None = None
    refused: int = 0


def references_of(producer: Generation, image: Image) -> Sequence[tuple[Image, str]]:
    """References as this generation writes them, each with its artifact type."""
    match producer:
        case Generation.CURRENT:
            return ()
        case Generation.COMPLETE:
            content = build_reference(image, SIGNATURE, b"signed", artifact_manifest=True)
            return ((content, SIGNATURE),)
    modern = build_reference(image, SIGNATURE, b"signed")
    # The prototypes: `refers`, and the type in the config's media type or in an annotation.
    by_config = _prototype(image, SBOM, {})
    by_annotation = _prototype(image, media_types.OCI_CONFIG, {"org.opencontainers.artifact.type": SCAN})
    return ((modern, SIGNATURE), (by_config, SBOM), (by_annotation, SCAN))


def _prototype(image: Image, config_type: str, annotations: dict[str, str]) -> Image:
    config, layer = b"{}", config_type.encode()
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": config_type, "digest": Digest.of(config), "size": len(config)},
        "layers": [{"mediaType": media_types.OCTET_STREAM, "digest": Digest.of(layer), "size": len(layer)}],
        "refers": image.descriptor(),
        **({"annotations": annotations} if annotations else {}),
    }
    blobs = {Digest.of(config): config, Digest.of(layer): layer}
    return Image(media_types.OCI_MANIFEST, encode(document), blobs)


async def produce(producer: Generation, registry: Registry) -> Produced:
    """Push an image and its references, with the fallback tag where the registry lists no references itself."""
    produced = Produced(build_image({"hello": b"world"}))
    status, _ = await registry.push(produced.image, TAG)
    assert status == 201
    listed: list[dict[str, Any]] = []
    for reference, artifact_type in references_of(producer, produced.image):
        status, is_listed = await registry.push(reference, reference.digest)
        if status != 201:
            produced.refused += 1
            continue
        produced.references[reference.digest] = reference
        produced.types[reference.digest] = artifact_type
        if not is_listed:
            listed.append(reference.descriptor(artifactType=artifact_type))
            index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
            produced.fallback = Image(media_types.OCI_INDEX, encode(index), {})
            status, _ = await registry.push(produced.fallback, produced.image.digest.fallback_tag)
            assert status == 201
    return produced


class Consumer:
    """A client of one generation that pulls `name` from the mirror, and checks every byte that it gets."""

    def __init__(self, mirror: Mirror, name: str, generation: Generation) -> None:
        self.mirror = mirror
        self.name = name
        self.generation = generation
        self.parses = {media_types.OCI_MANIFEST}
        if generation is Generation.COMPLETE:
            self.parses.add(media_types.OCI_ARTIFACT)

    async def pull(self, produced: Produced) -> None:
        """By tag and by digest, with all blobs."""
        for reference in (TAG, produced.image.digest):
            headed = await self.mirror.head(f"/v2/{self.name}/manifests/{reference}")
            assert (headed.status, headed.headers["Docker-Content-Digest"]) == (200, produced.image.digest)
            await self.manifest(reference, produced.image)

    async def manifest(self, reference: str, image: Image) -> None:
        got = await self.mirror.get(f"/v2/{self.name}/manifests/{reference}")
        assert (got.status, got.body, got.headers["Content-Type"]) == (200, image.content, image.media_type)
        for digest, blob in image.blobs.items():
            answer = await self.mirror.get(f"/v2/{self.name}/blobs/{digest}")
            assert (answer.status, answer.body) == (200, blob)

    async def discover(self, subject: Digest) -> Reply:
        """By the referrers API; by the fallback tag where that is 404, which through the mirror it never is."""
        found = await self.mirror.get(f"/v2/{self.name}/referrers/{subject}")
        if found.status == 404:
            found = await self.by_tag(subject)
        return found

    async def by_tag(self, subject: Digest) -> Reply:
        return await self.mirror.get(f"/v2/{self.name}/manifests/{subject.fallback_tag}")

    async def consume(self, produced: Produced) -> None:
        """All that this generation does with the image."""
        await self.pull(produced)
        if self.generation is Generation.CURRENT:
            return
        subject = produced.image.digest
        found = await self.discover(subject)
        assert (found.status, found.headers["Content-Type"]) == (200, media_types.OCI_INDEX)
        types, entries = _types(found), found.json()["manifests"]
        assert types == produced.types
        for entry in entries:
            reference = produced.references[entry["digest"]]
            assert (entry["mediaType"], entry["size"]) == (reference.media_type, len(reference.content))
            if entry["mediaType"] in self.parses:
                await self.manifest(entry["digest"], reference)
            else:
                # It can tell that it does not know this kind; what it gets is what was pushed all the same.
                got = await self.mirror.get(f"/v2/{self.name}/manifests/{entry['digest']}")
                assert (got.body, got.headers["Content-Type"]) == (reference.content, reference.media_type)
        for artifact_type in set(types.values()):
            only = await self.mirror.get(
                f"/v2/{self.name}/referrers/{subject}?artifactType={quote(artifact_type, safe='')}"
            )
            assert set(_types(only).values()) == {artifact_type}
        await self.consume_tag(produced)

    async def consume_tag(self, produced: Produced) -> None:
        """As a client that knows only the fallback tag does."""
        found = await self.by_tag(produced.image.digest)
        listed = await self.mirror.get(f"/v2/{self.name}/tags/list")
        tags = [TAG]
        if produced.fallback is not None:
            assert (found.status, found.body) == (200, produced.fallback.content)
            tags.append(produced.image.digest.fallback_tag)
        elif produced.references:
            assert (found.status, _types(found)) == (200, produced.types)
            assert "generated by mirror" in found.headers["Warning"]
            digest = found.headers["Docker-Content-Digest"]
            again = await self.mirror.get(f"/v2/{self.name}/manifests/{digest}")
            assert (again.status, again.body) == (200, found.body)
        else:
            assert (found.status, found.code) == (404, "MANIFEST_UNKNOWN")
        assert listed.json()["tags"] == tags


def _types(index: Reply) -> dict[str, str]:
    entries = index.json()["manifests"]
    types = {entry["digest"]: entry["artifactType"] for entry in entries}
    assert len(types) == len(entries), "a reference is listed twice"
    return types


@asynccontextmanager
async def started(
    tmp_path: Path, state: State, hub: Hub, producer: Generation, registry: Generation
) -> AsyncIterator[tuple[Mirror, str, Produced]]:
    """A mirror of what the producer made, the name that it has there, and what that is."""
    if state in (State.LAYOUT, State.ARCHIVE):
        folder = tmp_path / "written" / REPOSITORY
        layout = LayoutRegistry(folder, registry)
        produced = await produce(producer, layout)
        layout.save()
        root = tmp_path / "written"
        if state is State.ARCHIVE:
            root = tmp_path / "archives"
            (root / "team").mkdir(parents=True)
            with tarfile.open(root / "team" / "app.tar", "w") as archive:
                archive.add(folder, ".")
        async with serving(tmp_path / "mirror", {"default_host": None}, layouts=[root]) as mirror:
            yield mirror, REPOSITORY, produced
        return
    # A cold start asks; with no time to live, each later question revalidates or finds the upstream gone.
    upstream = {"endpoints": [hub.url], "tag_ttl": "0s", "referrers_ttl": "0s", "unknown_ttl": "0s", "retries": 0}
    async with aiohttp.ClientSession() as session:
        produced = await produce(producer, HubRegistry(hub, session))
    async with serving(tmp_path / "mirror", {"default_host": None, "upstreams": {hub.host: upstream}}) as mirror:
        yield mirror, f"{hub.host}/{REPOSITORY}", produced


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
@pytest.mark.parametrize("number", SCENARIOS)
async def test_references_of_every_generation_meet_consumers_of_every_generation(
    hubs: Hubs, tmp_path: Path, number: int, state: State
) -> None:
    producer, registry, generation = SCENARIOS[number]
    hub = await hubs(current=registry is Generation.CURRENT)
    async with started(tmp_path, state, hub, producer, registry) as (mirror, name, produced):
        assert produced.refused == (1 if number in (13, 14, 15) else 0)
        consumer = Consumer(mirror, name, generation)
        await consumer.consume(produced)
        if state is State.WARM:
            await consumer.consume(produced)
        if state is State.STOPPED:
            await hub.refuse()
            await consumer.consume(produced)
            if generation is not Generation.CURRENT:
                assert "Age" in (await consumer.discover(produced.image.digest)).headers
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            pushed = await mirror.request(method, f"/v2/{name}/manifests/{TAG}", body=b"{}")
            assert (pushed.status, pushed.code) == (405, "UNSUPPORTED")
        for path in ("/v2/_oci/ext/discover", f"/v2/{name}/_oci/ext/discover"):
            told = await mirror.get(path)
            assert (told.status, told.json()["extensions"][0]["name"]) == (200, "_mirror")


@pytest.mark.parametrize("number", [11, 12, 17, 18])
async def test_a_list_had_once_makes_the_fallback_tag_when_the_upstream_is_gone(
    hubs: Hubs, tmp_path: Path, number: int
) -> None:
    """Nobody asked for the tag while the upstream could still say that there is none."""
    producer, registry, generation = SCENARIOS[number]
    hub = await hubs()
    async with started(tmp_path, State.STOPPED, hub, producer, registry) as (mirror, name, produced):
        consumer = Consumer(mirror, name, generation)
        await mirror.get(f"/v2/{name}/tags/list")
        await consumer.discover(produced.image.digest)
        await hub.refuse()
        await consumer.consume_tag(produced)
