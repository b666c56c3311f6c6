"""A request as the registry reads it: what of it may decide its answer, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

REF_NAME_HEADER = "OCI-REF-NAME"

# Target, host and names.
Key = tuple[str, str | None, tuple[str, ...]]


class Headers(Protocol):
    """Request headers, by name in any case."""

    def get(self, name: str, /) -> str | None: ...
    def getall(self, name: str, default: Sequence[str], /) -> Sequence[str]: ...


def _nothing() -> None:
    """A request that comes for the first time."""


@dataclass(frozen=True, slots=True)
class Request:
    """`target` is raw. Lines of one header are one list (RFC 9110, 5.3); None: it was not sent.

    `key` is the same for requests that differ in method and conditions only.
    """

    method: str
    target: str
    host: str | None = None
    ref_names: tuple[str, ...] = ()
    if_none_match: str | None = None
    range: str | None = None
    if_range: str | None = None
    key: Key = field(init=False, repr=False)
    is_conditional: bool = field(init=False, repr=False)
    # What it was answered with, for whoever decides that: clients send the same few requests, remembered by their
    # bytes, over and over. Gives None once that is no longer kept.
    again: Callable[[], Any] = field(default=_nothing, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.target, self.host, self.ref_names))
        object.__setattr__(self, "is_conditional", self.if_none_match is not None or self.range is not None)

    @staticmethod
    def read(method: str, target: str, headers: Headers) -> "Request":
        """The request with these headers."""
        return Request(
            method,
            target,
            headers.get("Host"),
            tuple(headers.getall(REF_NAME_HEADER, ())),
            _joined(headers, "If-None-Match"),
            _joined(headers, "Range"),
            headers.get("If-Range"),
        )


def _joined(headers: Headers, name: str) -> str | None:
    first = headers.get(name)
    return first if first is None else ", ".join(headers.getall(name, ()))
