"""Upstreams, as configured: how to talk to each, what it allows, and the cache behind all of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from mirror.app.prepare import run_folder
from mirror.app.upstream_events import count_open, observer
from mirror.config import Config, Upstream
from mirror.logs import event
from mirror.oci.names import Host
from mirror.server.metrics import Metrics
from mirror.sources.policy import Policy
from mirror.sources.pull_through import PullThrough
from mirror.store.cache import Cache
from mirror.upstream.breaker import BreakerState, FileBreakerState, MemoryBreakerState
from mirror.upstream.client import UpstreamClient
from mirror.upstream.credentials import (
    Anonymous,
    Credentials,
    CredentialsProvider,
    FileCredentials,
    StaticCredentials,
)
from mirror.upstream.docker_config import DockerConfigCredentials, HelperCredentials
from mirror.upstream.settings import Endpoint, TlsSettings, UpstreamSettings

log = logging.getLogger(__name__)


def cache(config: Config) -> Cache:
    """The cache. Blocks: opens its index."""
    return Cache(config.cache.path, config.cache.max_bytes, config.cache.pins)


@asynccontextmanager
async def pull_through(
    config: Config, kept: Cache, metrics: Metrics | None
) -> AsyncIterator[Mapping[Host, PullThrough]]:
    """A source for each configured upstream, open as long as the context is."""
    async with AsyncExitStack() as stack:
        sources: dict[Host, PullThrough] = {}
        clients: dict[Host, UpstreamClient] = {}
        for host, upstream in config.upstreams.items():
            made, breakers = await asyncio.to_thread(_client, config, host, upstream, metrics)
            for breaker in breakers:
                stack.callback(breaker.close)
            clients[host] = client = await stack.enter_async_context(made)
            source = PullThrough(host, client, kept, policy(config, upstream))
            stack.push_async_callback(source.stop)
            sources[host] = source
        if metrics is not None:
            metrics.before_reading(partial(count_open, clients=clients))
        yield sources


def policy(config: Config, upstream: Upstream) -> Policy:
    """How long an upstream's answers stand, and what may be asked of it."""
    return Policy(
        tag_ttl_seconds=upstream.tag_ttl_seconds,
        referrers_ttl_seconds=upstream.referrers_ttl_seconds,
        unknown_ttl_seconds=upstream.unknown_ttl_seconds,
        stale_after_seconds=upstream.stale_after_seconds,
        stale_for_seconds=upstream.stale_for_seconds,
        refuse_gone=upstream.on_gone == "refuse",
        offline=config.offline or upstream.offline,
        private=bool(upstream.credentials),
        prefetch_referrers="referrers" in upstream.prefetch,
        allow=tuple(upstream.repositories.allow),
        deny=tuple(upstream.repositories.deny),
    )


def settings(host: Host, upstream: Upstream) -> UpstreamSettings:
    """How to talk to an upstream."""
    return UpstreamSettings(
        host=host,
        endpoints=tuple(Endpoint(one.url, frozenset(one.capabilities)) for one in upstream.endpoints),
        realms=tuple(upstream.realms),
        credentials=_credentials(host, upstream),
        tls=TlsSettings(upstream.ca, upstream.client_cert, upstream.client_key, upstream.insecure),
        proxy_url=upstream.proxy_url.get_secret_value() if upstream.proxy_url else None,
        connect_timeout_seconds=upstream.connect_timeout_seconds,
        first_byte_timeout_seconds=upstream.first_byte_timeout_seconds,
        idle_timeout_seconds=upstream.idle_timeout_seconds,
        max_connections=upstream.max_connections,
        retries=upstream.retries,
    )


def _client(
    config: Config, host: Host, upstream: Upstream, metrics: Metrics | None
) -> tuple[UpstreamClient, Sequence[FileBreakerState]]:
    """A client, and its breakers' files, to be closed behind it."""
    opened: list[FileBreakerState] = []

    def breaker(endpoint_url: str) -> BreakerState:
        try:
            opened.append(FileBreakerState(run_folder(config) / "breakers", f"{host} {endpoint_url}"))
        except OSError as error:
            event(log, logging.WARNING, "breaker_not_shared", endpoint=endpoint_url, reason=error)
            return MemoryBreakerState()
        return opened[-1]

    return UpstreamClient(settings(host, upstream), observer(metrics), breaker), opened


def _credentials(host: Host, upstream: Upstream) -> CredentialsProvider:
    if upstream.token is not None:
        return StaticCredentials(Credentials(registry_token=upstream.token.get_secret_value()))
    if upstream.docker_config is not None:
        return DockerConfigCredentials(host, upstream.docker_config)
    if upstream.credential_helper is not None:
        return HelperCredentials(host, upstream.credential_helper)
    if upstream.password_file is not None:
        return FileCredentials(upstream.password_file, upstream.username)
    if upstream.username is not None and upstream.password is not None:
        return StaticCredentials(Credentials(upstream.username, upstream.password.get_secret_value()))
    return Anonymous()
