"""References: `host/repository:tag@digest`, as people and tools write them."""

from dataclasses import dataclass
from typing import Self

from mirror.oci.digest import Digest
from mirror.oci.errors import NameInvalid
from mirror.oci.names import (
    DOCKER_HUB,
    MAX_NAME_LENGTH,
    Host,
    Name,
    Repository,
    familiar,
    is_local_tag,
    is_repository,
    split_host,
)


def split_reference(text: str) -> tuple[str, str | None, str | None]:
    """`host:5000/app:1@sha256:…` → (`host:5000/app`, `1`, `sha256:…`); nothing is checked.

    A colon begins a tag only behind the last slash; before it, it is a port.
    """
    rest, at, digest = text.partition("@")
    path, slash, last = rest.rpartition("/")
    base, colon, tag = last.partition(":")
    return path + slash + base, (tag if colon else None), (digest if at else None)


@dataclass(frozen=True, slots=True)
class Reference:
    """A checked reference. `host` is None where the text named none."""

    host: Host | None
    repository: Repository
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """As written: nothing is completed. Raises NameInvalid or DigestInvalid."""
        path, tag, digest = split_reference(text)
        host, repository = split_host(path)
        if not is_repository(repository) or len(path) > MAX_NAME_LENGTH:
            raise NameInvalid({"reference": text[:300]})
        if tag is not None and not is_local_tag(tag):
            raise NameInvalid({"reference": text[:300], "tag": tag[:200]})
        return cls(host, Repository(repository), tag, Digest.parse(digest) if digest is not None else None)

    @classmethod
    def parse_familiar(cls, text: str) -> Self:
        """As Docker reads it: no host means docker.io, one component there means `library/`.

        `localhost/x` is what podman writes for an image without a host: it stays a plain name.
        """
        found = cls.parse(text)
        if found.host is not None:
            return cls(found.host, Repository(familiar(found.host, found.repository)), found.tag, found.digest)
        if found.repository.startswith("localhost/"):
            return cls(None, Repository(found.repository.removeprefix("localhost/")), found.tag, found.digest)
        return cls(DOCKER_HUB, Repository(familiar(DOCKER_HUB, found.repository)), found.tag, found.digest)

    @property
    def name(self) -> Name:
        return Name(self.host, self.repository)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"
