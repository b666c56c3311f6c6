"""Extensions: what this registry can do beyond the specification, told to clients (extensions/_oci.md).

An extension is a value: its name, what it is, and its endpoints below `/v2/<name>/`. Discovery lists those that
are enabled; adding one is making one and handing it to the registry.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mirror.server.access import Access, Identity
from mirror.server.answer import Answer, json_answer
from mirror.server.route import Route
from mirror.sources.merged import Content

DISCOVERY_SPEC = "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md"


@dataclass(frozen=True, slots=True)
class ExtensionAsk:
    """What an extension's endpoint needs for its answer: whatever it lists must pass `access`."""

    route: Route
    content: Content
    access: Access
    identity: Identity


ExtensionEndpoint = Callable[[ExtensionAsk], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Extension:
    """`name` begins with `_`. `endpoints` answer GET and HEAD of `/v2/<name>/<key>`; they may wait."""

    name: str
    description: str
    url: str
    endpoints: Mapping[str, ExtensionEndpoint] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As discovery tells it."""
        return {"name": self.name, "description": self.description, "url": self.url}


OCI = Extension("_oci", "Extension discovery", DISCOVERY_SPEC)


def discovery(extensions: Sequence[Extension]) -> Answer:
    """`/v2/_oci/ext/discover` and `/v2/<name>/_oci/ext/discover`."""
    listed = sorted((OCI, *extensions), key=lambda extension: extension.name)
    return json_answer(200, {"extensions": [extension.to_json() for extension in listed]}, {})
