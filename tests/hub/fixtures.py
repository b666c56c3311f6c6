"""Fixtures: `hubs(…)` and `start(server)` open servers that are closed with the test; `hub` is a plain one."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.hub.proxy import Proxy
from tests.hub.registry import Hub
from tests.hub.server import Server
from tests.hub.tls import Authority

S = TypeVar("S", bound=Server | Proxy)


class Start(Protocol):
    """Opens a server (`Hub`, `Cdn`, `TokenService`, `Proxy`) for the length of the test."""

    async def __call__(self, server: S, /) -> S: ...


Hubs = Callable[..., Awaitable[Hub]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def open_server(server: S, /) -> S:
            await stack.enter_async_context(server)
            return server

        yield open_server


@pytest.fixture
def hubs(start: Start) -> Hubs:
    async def open_hub(**options: Any) -> Hub:
        return await start(Hub(**options))

    return open_hub


@pytest.fixture
async def hub(hubs: Hubs) -> Hub:
    return await hubs()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder: Path = tmp_path_factory.mktemp("authority")
    return Authority(folder)


@pytest.fixture
def outer_address() -> str:
    """An address of this machine that is not loopback: no packet is sent to find it."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])
