"""What `mirror ls` shows: every tag and untagged manifest of local content, checked against what lies on disk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.sources.library import Library, ReadManifest
from mirror.sources.snapshot import Candidate, LocalRepository

MAX_CONFIG_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listed:
    """One line. `tag` is None for what is reached by digest only. `size` in bytes, everything below included.

    `problems` says what is missing or wrong. `plain`: the name is never completed from an upstream when asked
    for without a host.
    """

    name: Name
    tag: str | None
    digest: Digest
    media_type: str
    platforms: tuple[str, ...]
    size: int
    plain: bool
    problems: tuple[str, ...]
    sources: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `mirror ls --json` prints it."""
        return {
            "name": str(self.name),
            "tag": self.tag,
            "digest": self.digest,
            "mediaType": self.media_type,
            "platforms": list(self.platforms),
            "size": self.size,
            "plain": self.plain,
            "problems": list(self.problems),
            "sources": list(self.sources),
        }


def list_content(library: Library, only: Name | None = None) -> Iterator[Listed]:
    """Every tag, then what has none, of every repository or of one. Blocks: stats every blob."""
    for name in library.snapshot.names:
        if only is None or name == only:
            yield from _list_repository(library, library.snapshot.repositories[name])


def _list_repository(library: Library, repository: LocalRepository) -> Iterator[Listed]:
    tagged: set[Digest] = set()
    for tag in repository.sorted_tags:
        candidates = repository.tags[tag]
        tagged.update(candidate.descriptor.digest for candidate in candidates)
        yield _listed(library, repository, tag, candidates)
    for digest, candidate in repository.roots.items():
        if digest not in tagged:
            yield _listed(library, repository, None, [candidate])


def _listed(
    library: Library, repository: LocalRepository, tag: str | None, candidates: Sequence[Candidate]
) -> Listed:
    shown = candidates[0]
    walk = _Walk(library, shown)
    return Listed(
        name=repository.name,
        tag=tag,
        digest=shown.descriptor.digest,
        media_type=walk.media_type or shown.descriptor.media_type,
        platforms=tuple(dict.fromkeys(walk.platforms)),
        size=walk.size,
        plain=repository.plain,
        problems=tuple(walk.problems),
        sources=tuple(_place(candidate) for candidate in candidates),
    )


def _place(candidate: Candidate) -> str:
    place = candidate.place
    return f"{place.path}!{place.inside}" if place.inside else place.path


class _Walk:
    """Everything below one manifest, each digest once."""

    def __init__(self, library: Library, root: Candidate) -> None:
        self._library = library
        self._near = root.place
        self._seen: set[Digest] = set()
        self.size = 0
        self.platforms: list[str] = []
        self.problems: list[str] = []
        found = self._manifest(root.descriptor)
        self.media_type = found.manifest.media_type if found else None

    def _manifest(self, descriptor: Descriptor) -> ReadManifest | None:
        if descriptor.digest in self._seen:
            return None
        self._seen.add(descriptor.digest)
        found = self._library.manifest(descriptor.digest, self._near, descriptor.media_type)
        if found is None:
            self.problems.append(f"manifest {descriptor.digest} is missing or wrong")
            return None
        self.size += len(found.manifest.content)
        for child in found.links.manifests:
            self._manifest(child)
        for blob in found.links.blobs:
            self._blob(blob)
        platform = descriptor.platform or self._config_platform(found)
        if platform and not found.links.manifests:
            self.platforms.append(platform_text(platform))
        return found

    def _blob(self, descriptor: Descriptor) -> None:
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        self.size += descriptor.size
        with self._library.blob(descriptor.digest, self._near, frozenset((descriptor.size,))) as body:
            if body is None:
                self.problems.append(f"blob {descriptor.digest} is missing or of another size")

    def _config_platform(self, found: ReadManifest) -> Mapping[str, Any] | None:
        config = found.links.config
        if config is None or not config.media_type.endswith(("image.config.v1+json", "container.image.v1+json")):
            return None
        content = self._library.content(config.digest, self._near, MAX_CONFIG_BYTES)
        try:
            document = json.loads(content) if content else None
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) and "architecture" in document else None


def platform_text(platform: Mapping[str, Any]) -> str:
    """`linux/arm64/v8`, of a descriptor's platform or an image's config."""
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(part for part in parts if isinstance(part, str) and part)
