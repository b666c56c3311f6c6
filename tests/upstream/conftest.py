"""Clients of hubs, closed with the test."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest

from mirror.upstream import Endpoint, UpstreamClient, UpstreamSettings
from mirror.upstream.breaker import BreakerState, MemoryBreakerState
from mirror.upstream.events import UpstreamEvent
from tests.hub import Hub


class Connect(Protocol):
    """Opens a client of these hubs, as endpoints in that order; options are those of UpstreamSettings."""

    async def __call__(self, *hubs: Hub | Endpoint, **options: Any) -> UpstreamClient: ...


@pytest.fixture
def events() -> list[UpstreamEvent]:
    """What the clients of `connect` told."""
    return []


@pytest.fixture
async def connect(events: list[UpstreamEvent]) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def open_client(
            *hubs: Hub | Endpoint,
            breaker_state: Callable[[str], BreakerState] = lambda url: MemoryBreakerState(),
            **options: Any,
        ) -> UpstreamClient:
            endpoints = tuple(hub if isinstance(hub, Endpoint) else Endpoint(hub.url + hub.prefix) for hub in hubs)
            quick = {
                "connect_timeout_seconds": 5.0,
                "first_byte_timeout_seconds": 5.0,
                "idle_timeout_seconds": 5.0,
                "retries": 0,
                "backoff_seconds": 0.01,
            }
            settings = UpstreamSettings("up.example", endpoints, **{**quick, **options})
            client = UpstreamClient(settings, events.append, breaker_state)
            return await stack.enter_async_context(client)

        yield open_client


async def read_all(client: UpstreamClient, repository: str, digest: Any, **options: Any) -> bytes:
    """A blob's bytes, from where `options` say."""
    async with client.open_blob(repository, digest, **options) as body:
        return b"".join([chunk async for chunk in body.chunks])
