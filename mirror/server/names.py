"""Which canonical name a request means: the host from header, query or path, the repository from both.

Every rule is the design's, "Names". Nothing here knows what content there is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mirror.oci.errors import NameInvalid
from mirror.oci.names import (
    MAX_NAME_LENGTH,
    Host,
    Repository,
    familiar,
    is_host,
    is_repository,
    normalize_host,
    parse_host,
)
from mirror.oci.reference import split_reference
from mirror.server.route import Route


@dataclass(frozen=True, slots=True)
class NameRules:
    """What the configuration says of names. `upstream_hosts` win over the request's own Host."""

    default_host: Host | None
    own_hosts: frozenset[str] = frozenset()
    upstream_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for. `chosen` is the host that header or query chose, for OCI-Namespace.

    `repository` is None where the path has none, or what it has is no repository name.
    """

    host: Host | None
    repository: Repository | None
    chosen: Host | None


@dataclass(frozen=True, slots=True)
class _RefName:
    host: Host | None
    repository: str


def read_names(route: Route, ref_name_headers: Sequence[str], own_host: str | None, rules: NameRules) -> Wanted:
    """The host and repository that a request names. `own_host` is its Host header.

    Raises NameInvalid where header, query and path contradict each other.
    """
    own = rules.own_hosts | _request_host(own_host, rules)
    chosen, ref_name = _chosen(route, ref_name_headers, own)
    path_host, name = _path_name(route, own, chosen)
    host = chosen or path_host
    repository = familiar(host, name) if name else ""
    if ref_name and name:
        repository = _agreed(familiar(host, ref_name), name, host, rules)
    return Wanted(host, Repository(repository) if _is_name(host, repository) else None, chosen)


def _request_host(host: str | None, rules: NameRules) -> frozenset[str]:
    """The request's own Host, where it can stand in a path: `mirror/app` below a host `mirror` is a repository."""
    own = parse_host(host) if host else None
    return frozenset() if own is None or own in rules.upstream_hosts else frozenset((own,))


def _chosen(route: Route, headers: Sequence[str], own: frozenset[str]) -> tuple[Host | None, str | None]:
    """The host that header or query names, and the repository of a ref-name."""
    ref_names = {
        _ref_name(text, own) for source in (headers, route.values("oci-ref-name")) for text in source if text.strip()
    }
    spaces = {_namespace(text) for text in route.values("ns") if text}
    hosts = {ref.host for ref in ref_names if ref.host} | {host for host in spaces if host not in own}
    host = _only(hosts, "host")
    return host, _only({familiar(host, ref.repository) for ref in ref_names}, "repository")


def _only(values: Iterable[str], what: str) -> "Host | None":
    found = sorted(values)
    if len(found) > 1:
        raise NameInvalid({"reason": f"the request names more than one {what}", what: found[:4]})
    return Host(found[0]) if found else None


def _ref_name(text: str, own: frozenset[str]) -> _RefName:
    path = _without_own(split_reference(text.strip())[0], own)
    first, slash, rest = path.partition("/")
    host = parse_host(first) if slash and rest else None
    repository = rest if host else path
    if not is_repository(repository):
        raise NameInvalid({"reason": "the ref-name is no repository name", "ref-name": text[:300]})
    return _RefName(host, repository)


def _namespace(text: str) -> Host:
    if not is_host(text):
        raise NameInvalid({"reason": "ns is no host name", "ns": text[:300]})
    return parse_host(text) or normalize_host(text)


def _path_name(route: Route, own: frozenset[str], chosen: Host | None) -> tuple[Host | None, str]:
    """The host that the path names, and the rest of its name. A path host must be the chosen one."""
    root_host = parse_host(route.root_host) if route.root_host else None
    if root_host in own:
        root_host = None
    expected = chosen or root_host
    name = _without_own(route.name, own)
    first, slash, rest = name.partition("/")
    first_host = parse_host(first) if slash and rest else None
    for found in (root_host, first_host):
        if found is not None and expected is not None and found != expected:
            raise NameInvalid({"reason": "the path names another host", "path": found, "expected": expected})
    return root_host or first_host, rest if first_host else name


def _agreed(ref_name: str, name: str, host: Host | None, rules: NameRules) -> str:
    """The ref-name's repository, where the path's is it or its whole trailing components."""
    for whole in (ref_name, familiar(host or rules.default_host, ref_name)):
        if whole == name or whole.endswith(f"/{name}"):
            return ref_name
    raise NameInvalid({"reason": "path and ref-name name different repositories", "path": name, "ref-name": ref_name})


def _without_own(name: str, own: frozenset[str]) -> str:
    """The name without the mirror's own host at its front."""
    while True:
        first, slash, rest = name.partition("/")
        # A single label may be the mirror's own by configuration only: `team/app` is no host's.
        if not slash or not rest or (parse_host(first) or first.lower()) not in own:
            return name
        name = rest


def _is_name(host: Host | None, repository: str) -> bool:
    return is_repository(repository) and len(repository) + (len(host) + 1 if host else 0) <= MAX_NAME_LENGTH
