"""What the search index keeps of a manifest: read from its content, its children and its config, once."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from mirror.oci import media_types
from mirror.oci.artifact_types import short_type
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import ManifestLinks
from mirror.oci.times import parse_time_ms
from mirror.sources.listing import platform_text
from mirror.store.search_entry import Facts

CREATED = "org.opencontainers.image.created"
MAX_CONFIG_BYTES = 8 * 1024 * 1024
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
# Go's zero time: nobody said when.
_NEVER_MS = -62_135_596_800_000


class Bytes(Protocol):
    """Where the bytes of one kind of content are read from. Blocks."""

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a manifest is there; cheaper than reading it."""
        ...

    def read(self, descriptor: Descriptor, max_bytes: int) -> bytes | None:
        """The right bytes of a manifest or config, or None."""
        ...


@dataclass
class FactFinder:
    """Facts of manifests. `known` is what was kept earlier; `found` is what may be kept now: it will never change."""

    content: Bytes
    known: Callable[[str], Facts | None]
    found: dict[str, Facts] = field(default_factory=dict)
    # What was not there: it may come.
    missing: set[Digest] = field(default_factory=set)

    def of(self, descriptor: Descriptor) -> Facts | None:
        """Facts of a manifest; None where it is not there, or none."""
        facts = self.found.get(descriptor.digest) or self.known(descriptor.digest)
        if facts is not None and self.content.has(descriptor):
            return facts
        content = self.content.read(descriptor, 4 * 1024 * 1024)
        if content is None:
            self.missing.add(descriptor.digest)
            return None
        return self.of_content(descriptor, content)

    def of_content(self, descriptor: Descriptor, content: bytes) -> Facts | None:
        """The same of bytes that are at hand."""
        try:
            links = ManifestLinks.parse(content, descriptor.media_type)
        except ManifestInvalid:
            return None
        facts, is_whole = self._facts(links, len(content))
        if is_whole:
            self.found[descriptor.digest] = facts
        return facts

    def below(self, facts: Facts) -> Iterator[Descriptor]:
        """The manifests that one with these facts lists."""
        for digest, media_type, size in facts.children:
            yield Descriptor(media_type, Digest(digest), size)

    def _facts(self, links: ManifestLinks, size: int) -> tuple[Facts, bool]:
        """Facts, and whether nothing was missing for them."""
        is_whole = True
        platforms: dict[str, None] = {}
        dates: list[int] = []
        for child in links.manifests:
            facts = self.of(child)
            is_whole = is_whole and facts is not None
            size += facts.size if facts else child.size
            own = [platform_text(child.platform)] if child.platform else list(facts.platforms if facts else ())
            platforms.update(dict.fromkeys(own))
            dates += [facts.created_ms] if facts and facts.created_ms is not None else []
        size += sum({blob.digest: blob.size for blob in links.blobs}.values())
        config = links.config
        if config is not None and config.media_type in _IMAGE_CONFIGS:
            content = self.content.read(config, MAX_CONFIG_BYTES)
            if content is None:
                self.missing.add(config.digest)
                is_whole = False
            document = _object(content)
            platforms[platform_text(document) if isinstance(document.get("architecture"), str) else ""] = None
            dates += _dates(document.get("created"))
        annotations = dict(links.annotations or {})
        said = _dates(annotations.get(CREATED))
        return (
            Facts(
                links.media_type,
                links.artifact_type,
                short_type(links),
                tuple(one for one in platforms if one and one != "unknown/unknown" and "," not in one),
                size,
                said[0] if said else max(dates, default=None),
                annotations,
                tuple((child.digest, child.media_type, child.size) for child in links.manifests),
            ),
            is_whole,
        )


def _object(content: bytes | None) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(content or b"{}")
        if isinstance(document, dict):
            return document
    return {}


def _dates(text: Any) -> list[int]:
    found = parse_time_ms(text) if isinstance(text, str) else None
    return [found] if found is not None and found != _NEVER_MS else []
