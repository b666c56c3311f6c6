"""Paths: which endpoint a raw request target means, and which name stands in it.

The rules are the design's: split at `/` first, then decode each component, then read from the right, so that
repositories called `v2`, `blobs` or `a/manifests/b` need no exception.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import parse_qsl, unquote

from mirror.oci.errors import NameUnknown, NotFound
from mirror.oci.names import parse_host


class Endpoint(Enum):
    """The families of endpoints."""

    PING = auto()
    MANIFEST = auto()
    BLOB = auto()
    TAGS = auto()
    REFERRERS = auto()
    CATALOG = auto()
    HEALTH = auto()
    READY = auto()
    METRICS = auto()
    DISCOVERY = auto()
    EXTENSION = auto()


_WITH_REFERENCE = {"manifests": Endpoint.MANIFEST, "blobs": Endpoint.BLOB, "referrers": Endpoint.REFERRERS}
# A server must accept the absolute form of a target (RFC 9112, 3.2.2).
_ABSOLUTE = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_PLAIN_PATHS = {"/healthz": Endpoint.HEALTH, "/readyz": Endpoint.READY, "/metrics": Endpoint.METRICS}


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed target. `root_host` is the host of `/<host>/v2/…`; `name` is as in the path, decoded.

    `reference` is the tag or digest, or `_extension/endpoint`.

    `path` is the raw path, for links. `query` keeps the order and the doubles of what was sent.
    """

    endpoint: Endpoint
    path: str
    root_host: str | None = None
    name: str = ""
    reference: str = ""
    query: tuple[tuple[str, str], ...] = ()

    def values(self, key: str) -> list[str]:
        """Every value of a query parameter."""
        return [value for name, value in self.query if name == key]


def parse_target(target: str) -> Route:
    """The route of a raw request target. Raises NotFound, or NameUnknown where a name in it cannot be one."""
    if not target.startswith("/"):
        target = _ABSOLUTE.sub("", target) or "/"
    path, _, raw_query = target.partition("?")
    if path in _PLAIN_PATHS:
        return Route(_PLAIN_PATHS[path], path)
    root_host, rest = _api_root(path)
    query = tuple(parse_qsl(raw_query, keep_blank_values=True)) if raw_query else ()
    if rest in ([], [""]):
        return Route(Endpoint.PING, path, root_host, query=query)
    components = [_decode(component) for component in rest]
    if components == ["_catalog"]:
        return Route(Endpoint.CATALOG, path, root_host, query=query)
    if components[-3:] == ["_oci", "ext", "discover"]:
        return Route(Endpoint.DISCOVERY, path, root_host, "/".join(components[:-3]), query=query)
    if len(components) == 2 and components[0].startswith("_"):
        return Route(Endpoint.EXTENSION, path, root_host, reference="/".join(components), query=query)
    if len(components) > 2:
        name = "/".join(components[:-2])
        if components[-2:] == ["tags", "list"]:
            return Route(Endpoint.TAGS, path, root_host, name, query=query)
        endpoint = _WITH_REFERENCE.get(components[-2])
        if endpoint is not None:
            return Route(endpoint, path, root_host, name, components[-1], query)
    raise NotFound({"path": path[:300]})


def _api_root(path: str) -> tuple[str | None, Sequence[str]]:
    """What follows `/v2/` or `/<host>/v2/`, and that host."""
    components = path.split("/")
    if components[0] == "" and components[1:2] == ["v2"]:
        return None, components[2:]
    if components[0] == "" and components[2:3] == ["v2"]:
        host = _decode(components[1])
        if parse_host(host) is not None:
            return host, components[3:]
    raise NotFound({"path": path[:300]})


def _decode(component: str) -> str:
    try:
        text = unquote(component, errors="strict") if "%" in component else component
    except UnicodeDecodeError:
        raise NameUnknown({"component": component[:300]}) from None
    if text in ("", ".", "..") or "/" in text or "\\" in text or "\0" in text:
        raise NameUnknown({"component": component[:300]})
    return text
