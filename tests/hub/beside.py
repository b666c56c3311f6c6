"""Servers of the hub on an event loop of their own, for tests that wait for commands."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.hub.server import Server

T = TypeVar("T")
S = TypeVar("S", bound=Server)


class Beside:
    """A context: a thread with an event loop; what was opened in it is closed at its end."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers beside", daemon=True)
        self._open: list[Server] = []

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives, run on the servers' loop."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(doing, self._loop)
        return future.result(60)

    def open(self, server: S) -> S:
        self.run(server.__aenter__())
        self._open.append(server)
        return server

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in reversed(self._open):
            self.run(server.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
