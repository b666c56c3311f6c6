"""How to talk to one upstream."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mirror.upstream.credentials import Anonymous, CredentialsProvider

Capability = Literal["resolve", "pull"]
ALL: frozenset[Capability] = frozenset({"resolve", "pull"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url` without a slash at its end; it may have a path. `resolve`: tags and lists; `pull`: digests and blobs."""

    url: str
    capabilities: frozenset[Capability] = ALL


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """PEM files; `ca` is trusted beside the system's. `insecure`: no verification, and plain http where led to."""

    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """`realms` are hosts (`auth.example`, `auth.example:8443`) of token services other than the endpoints' own.

    `retries` counts tries after the first; `backoff_seconds` is the first pause between two, doubled each time.
    """

    host: str
    endpoints: tuple[Endpoint, ...]
    realms: tuple[str, ...] = ()
    credentials: CredentialsProvider = field(default_factory=Anonymous, repr=False)
    tls: TlsSettings = TlsSettings()
    # May hold a user and a password.
    proxy_url: str | None = field(default=None, repr=False)
    connect_timeout_seconds: float = 5.0
    first_byte_timeout_seconds: float = 30.0
    idle_timeout_seconds: float = 60.0
    max_connections: int = 32
    retries: int = 3
    backoff_seconds: float = 0.2
