"""What to look through, and how: plain values, light to load, since a start waits for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from mirror import logs
from mirror.oci.names import Host


@dataclass(frozen=True, slots=True)
class Root:
    """A folder of local content. `prefix` and `host` apply to the names of its places."""

    path: str
    prefix: str | None = None
    host: Host | None = None
    coalesce: bool = True


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What a scanner is made of (`scanners`).

    `state_file` remembers what slow reading of archives found, `places_file` what was read of everything.
    """

    roots: Sequence[Root]
    own_hosts: frozenset[str]
    state_file: str
    places_file: str
    unpacked_folder: str
    max_unpacked_bytes: int
    refresh_seconds: float = 5.0
    log_format: logs.Format = "auto"
