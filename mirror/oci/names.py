"""Names of hosts, repositories and tags: grammars, comparison forms, Docker's familiar names.

A *canonical name* is a host and a repository (`docker.io`, `library/ubuntu`), or a repository alone for local
content that names no host. Grammars: distribution-spec 1.1, "Pulling manifests"; image-spec 1.1,
annotations.md (`org.opencontainers.image.ref.name`).
"""

import re
from typing import NamedTuple, NewType

Repository = NewType("Repository", str)
Host = NewType("Host", str)
Tag = NewType("Tag", str)

DOCKER_HUB = Host("docker.io")
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})

# A name and its host share 255 characters in the clients that speak to us (distribution's reference package).
MAX_NAME_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
# Layouts hold what image-spec allows in a ref.name: Helm and semver builds write `+`. Its length is ours to bound.
_LOCAL_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}")
_HOST = re.compile(
    r"(?:\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*\.?)"
    r"(?::[0-9]{1,5})?"
)
_UNDERSCORE_PORT = re.compile(r"(.*[^_])_([1-9][0-9]{0,4})")


class Name(NamedTuple):
    """A canonical name; `host` is None for local content that names no host."""

    host: Host | None
    repository: Repository

    def __str__(self) -> str:
        if self.host is None:
            return self.repository
        # `registry:443` compares as `registry`, which in front of a slash would be read as part of the repository.
        host = self.host if "." in self.host or ":" in self.host else f"{self.host}:443"
        return f"{host}/{self.repository}"


def is_repository(text: str) -> bool:
    """Whether `text` is a repository name of the specification's grammar."""
    return len(text) <= MAX_NAME_LENGTH and _REPOSITORY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` is a tag of the specification's grammar: what may be asked of an upstream."""
    return _TAG.fullmatch(text) is not None


def is_local_tag(text: str) -> bool:
    """Whether `text` may be a tag of local content: the specification's grammar and `+`."""
    return _LOCAL_TAG.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether `text` can be a host name, with or without a port."""
    return _HOST.fullmatch(text) is not None or parse_host(text) is not None


def normalize_host(text: str) -> Host:
    """The form in which hosts compare: lower case, no default port, Docker Hub by its one name."""
    host = text.lower().removesuffix(":443").removesuffix(".")
    return DOCKER_HUB if host in _HUB_ALIASES else Host(host)


def parse_host(component: str) -> Host | None:
    """The host that a name's first component spells, or None where it is part of a repository.

    A host has a `.` or a `:port`; `host_5000` is read as `host:5000`, for clients and disks that refuse the colon.
    """
    if "." not in component and ":" not in component and "_" not in component:
        return None
    if _HOST.fullmatch(component) and ("." in component or ":" in component):
        return normalize_host(component)
    match = _UNDERSCORE_PORT.fullmatch(component)
    if match and int(match[2]) <= 65535 and _HOST.fullmatch(match[1]):
        return normalize_host(f"{match[1]}:{match[2]}")
    return None


def split_host(path: str) -> tuple[Host | None, str]:
    """`docker.io/library/ubuntu` → (`docker.io`, `library/ubuntu`); `team/app` → (None, `team/app`)."""
    first, slash, rest = path.partition("/")
    host = parse_host(first) if slash and rest else None
    return (host, rest) if host else (None, path)


def familiar(host: Host | None, repository: str) -> str:
    """On Docker Hub a single component is an official image: `ubuntu` means `library/ubuntu`."""
    return f"library/{repository}" if host == DOCKER_HUB and "/" not in repository else repository
