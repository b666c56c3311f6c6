"""One question at a time: whoever asks what is being asked already waits for that answer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Running questions by key. A question outlives those who asked it; `stop` ends them all."""

    def __init__(self) -> None:
        self._running: dict[Hashable, tuple[asyncio.Task[T], float]] = {}

    def begin(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> "asyncio.Task[T]":
        """The running question; who waits for it must not cancel it (`asyncio.shield`)."""
        return self._join(key, question)[0]

    async def ask(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> T:
        """The answer, however long it takes; an error goes to everyone who waits."""
        return await asyncio.shield(self._join(key, question)[0])

    async def ask_within(
        self,
        key: Hashable,
        question: Callable[[], Awaitable[T]],
        seconds: float,
        is_coming: Callable[[], bool] = lambda: False,
    ) -> T:
        """The answer, if it comes within `seconds` of the question's own beginning, or `is_coming` by then; else
        TimeoutError.

        The question goes on behind: the next who asks finds its answer.
        """
        task, began = self._join(key, question)
        try:
            async with asyncio.timeout_at(began + seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            if not is_coming():
                raise
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """End every running question."""
        tasks = [task for task, _ in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _join(self, key: Hashable, question: Callable[[], Awaitable[T]]) -> tuple[asyncio.Task[T], float]:
        found = self._running.get(key)
        if found is None:
            loop = asyncio.get_running_loop()
            task = loop.create_task(_awaited(question), name=f"asking {key}")
            found = self._running[key] = (task, loop.time())
            task.add_done_callback(lambda done: self._landed(key, done))
        return found

    def _landed(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen here: nobody may be waiting any more


async def _awaited(question: Callable[[], Awaitable[T]]) -> T:
    return await question()
