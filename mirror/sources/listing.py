"""What `mirror ls` shows: every tag and untagged manifest of local content, checked against what lies on disk."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from mirror.oci.names import Name
from mirror.sources.coalesce import platform_of
from mirror.sources.layout import blob_path
from mirror.sources.library import Library
from mirror.sources.place import Place
from mirror.sources.snapshot import Candidate, LocalRepository
from mirror.sources.view import Meaning, View
from mirror.store.files import is_inside


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A place that gives a tag: the platforms served from it, and those that a newer file's hide."""

    path: str
    platforms: tuple[str, ...]
    hidden: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "platforms": list(self.platforms), "hidden": list(self.hidden)}

    def __str__(self) -> str:
        hidden = [f"{platform}: by digest only, another file is newer" for platform in self.hidden]
        said = ", ".join([*self.platforms, *hidden])
        return f"{self.path} ({said})" if said else self.path


@dataclass(frozen=True, slots=True)
class Listed:
    """One line. `tag` is None for what is reached by digest only. `size` in bytes, everything below included.

    `problems` says what is missing or wrong. `plain`: the name is never completed from an upstream when asked
    for without a host. `generated`: this program made the manifest; no registry knows its digest.
    """

    name: Name
    tag: str | None
    digest: Digest
    media_type: str
    platforms: tuple[str, ...]
    size: int
    plain: bool
    generated: bool
    problems: tuple[str, ...]
    sources: tuple[ListedSource, ...]

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
            "generated": self.generated,
            "problems": list(self.problems),
            "sources": [source.to_json() for source in self.sources],
        }


def list_content(view: View, only: Name | None = None) -> Iterator[Listed]:
    """Every tag, then what has none, of every repository or of one. Blocks: stats every blob."""
    for name in view.snapshot.names:
        if only is None or name == only:
            yield from _list_repository(view, view.snapshot.repositories[name])


def _list_repository(view: View, repository: LocalRepository) -> Iterator[Listed]:
    tagged: set[Digest] = set()
    for tag in repository.sorted_tags:
        candidates = repository.tags[tag]
        tagged.update(candidate.descriptor.digest for candidate in candidates)
        yield _listed(view, repository, tag, candidates)
    for digest, candidate in repository.roots.items():
        if digest not in tagged:
            yield _listed(view, repository, None, [candidate])


def _listed(view: View, repository: LocalRepository, tag: str | None, candidates: Sequence[Candidate]) -> Listed:
    descriptor = candidates[0].descriptor
    meaning = view.resolve(repository, tag if tag is not None else descriptor.digest)
    walk = _Walk(view.library, candidates, meaning)
    return Listed(
        name=repository.name,
        tag=tag,
        digest=meaning.manifest.digest if meaning else descriptor.digest,
        media_type=meaning.manifest.media_type if meaning else descriptor.media_type,
        platforms=tuple(dict.fromkeys(platform for platform, _ in walk.platforms)),
        size=walk.size,
        plain=repository.plain,
        generated=meaning is not None and meaning.generated,
        problems=tuple(walk.problems),
        sources=tuple(_source(view, candidate, walk, alone=len(candidates) == 1) for candidate in candidates),
    )


def _source(view: View, candidate: Candidate, served: "_Walk", *, alone: bool) -> ListedSource:
    own = served.platforms if alone else _Walk(view.library, [candidate], None).platforms
    shown, hidden = (
        tuple(dict.fromkeys(platform for platform, digest in own if served.has(digest) is wanted))
        for wanted in (True, False)
    )
    return ListedSource(_place(candidate), shown, hidden)


def _place(candidate: Candidate) -> str:
    place = candidate.place
    return f"{place.path}!{place.inside}" if place.inside else place.path


class _Walk:
    """Everything below one manifest, each digest once."""

    def __init__(self, library: Library, candidates: Sequence[Candidate], meaning: Meaning | None) -> None:
        self._library = library
        self._near = candidates[0]
        self._seen: set[Digest] = set()
        self.size = 0
        self.platforms: list[tuple[str, Digest]] = []
        self.problems: list[str] = []
        if meaning is None:
            self._manifest(self._near.descriptor)
        elif meaning.generated and media_types.is_index(meaning.manifest.media_type):
            self.size += len(meaning.manifest.content)
            for child in ManifestLinks.parse(meaning.manifest.content).manifests:
                self._manifest(child)
        else:
            self._manifest(next(c.descriptor for c in candidates if c.descriptor.digest == meaning.manifest.digest))

    def _manifest(self, descriptor: Descriptor) -> None:
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        found = self._library.manifest(descriptor.digest, self._near.place, descriptor.media_type)
        if found is None:
            self.problems.append(f"manifest {descriptor.digest} is missing or wrong")
            return
        self.size += len(found.manifest.content)
        for child in found.links.manifests:
            self._manifest(child)
        for blob in found.links.blobs:
            self._blob(blob)
        platform = platform_of(self._library, descriptor, self._near, found)
        if platform and not found.links.manifests:
            self.platforms.append((platform_text(platform), descriptor.digest))

    def has(self, digest: Digest) -> bool:
        """Whether it lies below the manifest."""
        return digest in self._seen

    def _blob(self, descriptor: Descriptor) -> None:
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        self.size += descriptor.size
        if _lies_in(self._near.place, descriptor):
            return
        sizes = frozenset((descriptor.size,))
        with self._library.blob(descriptor.digest, self._near.place, sizes, verified=False) as body:
            if body is None:
                self.problems.append(f"blob {descriptor.digest} is missing or of another size")


def _lies_in(place: Place, descriptor: Descriptor) -> bool:
    """Whether it is a plain file of its layout, as nearly every blob is: told by less than opening it takes."""
    if place.members is not None:
        return False
    path = blob_path(place.path, descriptor.digest)
    try:
        status = os.lstat(path)
    except OSError:
        return False
    right = stat.S_ISREG(status.st_mode) and status.st_size == descriptor.size
    return right and _is_inside(os.path.dirname(path), place.root) and os.access(path, os.R_OK)


@lru_cache(10_000)  # one for each layout, in one run of `mirror ls`
def _is_inside(folder: str, root: str) -> bool:
    return is_inside(os.path.realpath(folder), root)


def platform_text(platform: Mapping[str, Any]) -> str:
    """`linux/arm64/v8`, of a descriptor's platform or an image's config."""
    parts = (platform.get("os"), platform.get("architecture"), platform.get("variant"))
    return "/".join(part for part in parts if isinstance(part, str) and part)
