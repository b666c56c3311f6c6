"""Which names local content goes by: the names that its tools wrote into it, else the name of its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror.oci.errors import OciError
from mirror.oci.names import (
    DOCKER_HUB,
    Host,
    Name,
    Repository,
    familiar,
    is_local_tag,
    is_repository,
    split_host,
)
from mirror.oci.reference import Reference
from mirror.sources.place import Naming

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True, slots=True)
class PlaceName:
    """The name of a place's bare tags. `name` is None where the path makes none; `problem` then says why."""

    name: Name | None
    plain: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Namer:
    """Names the content of one root. `own_hosts` are this mirror's own: clients write them into what they pulled."""

    prefix: str | None = None
    host: Host | None = None
    own_hosts: frozenset[str] = frozenset()

    def place(self, parts: Sequence[str]) -> PlaceName:
        """The name of the place at this path below the root (folders, and an archive's name without extension)."""
        path = "/".join([*([self.prefix] if self.prefix else []), *parts])
        host, repository = split_host(self._without_own_host(path))
        plain = host is None and self.host is None
        host = host or self.host
        repository = familiar(host, repository)
        name = Name(host, Repository(repository))
        if not is_repository(repository) or len(str(name)) > 255:
            return PlaceName(None, plain, f"{path!r} is no repository name (lower-case letters, digits, . _ - and /)")
        return PlaceName(name, plain)

    def namings(
        self, annotations: Mapping[str, Any], repo_tags: Sequence[str], place: PlaceName
    ) -> tuple[tuple[Naming, ...], tuple[str, ...]]:
        """Every name that an entry with these annotations and RepoTags goes by, and what was wrong with the rest.

        Annotations whose values are no strings are passed over.
        """
        ref_name, full_name = annotations.get(REF_NAME, ""), annotations.get(CONTAINERD_NAME, "")
        if not isinstance(ref_name, str):
            ref_name = ""
        if not repo_tags and not full_name and is_local_tag(ref_name):
            # Nearly every entry there is: a bare tag, or none.
            return ((Naming(place.name, ref_name, place.plain),) if place.name is not None else ()), ()
        found: dict[tuple[Name, str | None], Naming] = {}
        problems: list[str] = []
        full_names = [*repo_tags, full_name if isinstance(full_name, str) else ""]
        if ":" in ref_name or "/" in ref_name:
            full_names.append(ref_name)
        for text in filter(None, full_names):
            try:
                naming = self._full(text)
            except OciError:
                problems.append(f"{text!r} is no reference")
                continue
            # The first wins: Docker 25+ writes `docker.io/…` for local builds too, behind the RepoTag without host.
            found.setdefault((naming.name, naming.tag), naming)
        if ref_name and not found and ":" not in ref_name and "/" not in ref_name:
            if not is_local_tag(ref_name):
                problems.append(f"{ref_name!r} is no tag")
            elif place.name is not None:
                found[place.name, ref_name] = Naming(place.name, ref_name, place.plain)
        return tuple(found.values()), tuple(problems)

    def _full(self, text: str) -> Naming:
        reference = Reference.parse_familiar(self._without_own_host(text))
        named = Reference.parse(self._without_own_host(text)).host is not None
        tag = reference.tag
        if tag is None and reference.digest is None:
            tag = "latest"  # as Docker reads a name without a tag
        plain = not named and not (reference.host == DOCKER_HUB and self.host == DOCKER_HUB)
        return Naming(reference.name, tag, plain)

    def _without_own_host(self, text: str) -> str:
        while True:
            first, slash, rest = text.partition("/")
            host, _ = split_host(text)
            if not slash or not rest or (host or first.lower()) not in self.own_hosts:
                return text
            text = rest
