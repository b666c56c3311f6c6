"""The keys of config.yaml, their kinds and defaults.

The keys are promises to users: they stand as aliases; attributes carry the units. Checks that look at more
than one key are in `checks.py`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from mirror.config.types import (
    Address,
    AnyPath,
    Count,
    DockerConfig,
    Duration,
    EndpointUrl,
    Flag,
    Glob,
    HelperName,
    ListenAddress,
    ListOf,
    Positive,
    Prefetch,
    Prefix,
    ProxyUrl,
    ReadableFile,
    RealmHost,
    RegistryHost,
    Secret,
    Size,
    Text,
    Timeout,
    Workers,
)
from mirror.oci.names import DOCKER_HUB, Host, normalize_host, parse_host

_GIB = 1 << 30
_HUB_ENDPOINT = "https://registry-1.docker.io"
_HUB_REALM = Host("auth.docker.io")


def _empty_for_none(value: Any) -> Any:
    """`quay.io:` with nothing behind it means the same as `quay.io: {}`."""
    return {} if value is None else value


def _keyed_by(key: str) -> BeforeValidator:
    """A plain string where a mapping could stand is the value of its one needed key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Tls(_Section):
    """PEM files of the listener."""

    cert: ReadableFile
    key: ReadableFile


class LayoutRoot(_Section):
    """A folder that is searched for layouts and archives; it need not exist yet."""

    path: AnyPath
    prefix: Prefix | None = None
    host: RegistryHost | None = None
    coalesce: Flag = True


class Cache(_Section):
    """Where cached content lies, and how many bytes of it are kept; `pins` are globs over references."""

    path: AnyPath = Field(default=Path("cache"), validate_default=True)
    max_bytes: Size = Field(default=50 * _GIB, alias="max_size")
    pins: ListOf[Glob] = ()


class Endpoint(_Section):
    """One URL of an upstream, without a slash at its end. `resolve`: tags and lists; `pull`: blobs and digests."""

    url: EndpointUrl
    capabilities: ListOf[Literal["resolve", "pull"]] = ("resolve", "pull")


class Repositories(_Section):
    """Globs over repository names of one upstream; an empty `allow` allows all that `deny` does not name."""

    allow: ListOf[Glob] = ()
    deny: ListOf[Glob] = ()


class Upstream(_Section):
    """A registry to pull from. Once loaded, `endpoints` is never empty."""

    endpoints: ListOf[Annotated[Endpoint, _keyed_by("url")]] = ()
    realms: ListOf[RealmHost] = ()
    username: Text | None = None
    password: Secret | None = None
    password_file: ReadableFile | None = None
    token: Secret | None = None
    docker_config: DockerConfig | None = None
    credential_helper: HelperName | None = None
    allow_anonymous: Flag = False
    ca: ReadableFile | None = None
    client_cert: ReadableFile | None = None
    client_key: ReadableFile | None = None
    insecure: Flag = False
    proxy_url: ProxyUrl | None = Field(default=None, alias="proxy")
    connect_timeout_seconds: Timeout = Field(default=5.0, alias="connect_timeout")
    first_byte_timeout_seconds: Timeout = Field(default=30.0, alias="first_byte_timeout")
    idle_timeout_seconds: Timeout = Field(default=60.0, alias="idle_timeout")
    max_connections: Positive = 32
    retries: Count = 3
    tag_ttl_seconds: Duration = Field(default=60.0, alias="tag_ttl")
    referrers_ttl_seconds: Duration = Field(default=60.0, alias="referrers_ttl")
    unknown_ttl_seconds: Duration = Field(default=5.0, alias="unknown_ttl")
    stale_after_seconds: Duration = Field(default=1.0, alias="stale_after")
    stale_for_seconds: Duration | None = Field(default=None, alias="stale_for")
    on_gone: Literal["serve", "refuse"] = "serve"
    offline: Flag = False
    repositories: Annotated[Repositories, BeforeValidator(_empty_for_none)] = Repositories()
    prefetch: Prefetch = ()

    @property
    def credentials(self) -> tuple[str, ...]:
        """The keys by which this upstream is shown who asks; none: everyone may read what it gives."""
        keys = ("username", "password", "password_file", "token", "docker_config", "credential_helper", "client_cert")
        return tuple(key for key in keys if getattr(self, key) is not None)


def _complete(upstreams: Mapping[Host, Upstream]) -> Mapping[Host, Upstream]:
    """Hosts in the form in which they compare, and the endpoints and realms that follow from them."""
    complete = {}
    for key, upstream in upstreams.items():
        host = parse_host(key) or key
        changes: dict[str, Any] = {}
        if not upstream.endpoints:
            url = _HUB_ENDPOINT if host == DOCKER_HUB else f"https://{host}"
            changes["endpoints"] = (Endpoint(url=url),)
        urls = [endpoint.url for endpoint in changes.get("endpoints", upstream.endpoints)]
        if "realms" not in upstream.model_fields_set and any(_is_hub(url) for url in urls):
            changes["realms"] = (_HUB_REALM,)
        complete[host] = upstream.model_copy(update=changes)
    return complete


def _is_hub(url: str) -> bool:
    return normalize_host(url.partition("://")[2].partition("/")[0]) == DOCKER_HUB


class Config(_Section):
    """The configuration, checked as a whole; made by `load`."""

    listen: ListenAddress = Address("127.0.0.1", 5000)
    workers: Workers = 1
    default_host: RegistryHost | None = DOCKER_HUB
    names: ListOf[RegistryHost] = ()
    refresh_seconds: Timeout = Field(default=5.0, alias="refresh")
    tls: Tls | None = None
    layouts: ListOf[Annotated[LayoutRoot, _keyed_by("path")]] = ()
    cache: Annotated[Cache, BeforeValidator(_empty_for_none)]
    unpack_max_bytes: Size = Field(default=100 * _GIB, alias="unpack_max_size")
    offline: Flag = False
    shutdown_timeout_seconds: Duration = Field(default=20.0, alias="shutdown_timeout")
    access_log: Flag = False
    fast_path: Flag = True
    log_format: Literal["text", "json", "auto"] = "auto"
    metrics: Flag = True
    upstreams: Annotated[
        Mapping[Host, Annotated[Upstream, BeforeValidator(_empty_for_none)]],
        BeforeValidator(_empty_for_none),
        AfterValidator(_complete),
    ] = Field(default_factory=dict)
    _source: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _give_cache(cls, values: Any) -> Any:
        """Its default path is relative to the folder that only validation knows."""
        return {"cache": {}, **values} if isinstance(values, dict) else values

    @property
    def source(self) -> Path | None:
        """The file that was read; None where there was none."""
        return self._source

    @property
    def worker_count(self) -> int:
        """`workers`, where `auto` is one for each processor that this process may use."""
        if self.workers != "auto":
            return self.workers
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
