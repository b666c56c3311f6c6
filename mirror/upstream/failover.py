"""Which endpoint is asked, and how often (design, "Upstreams and the cache")."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

from mirror.upstream.errors import (
    BreakerOpen,
    NotFound,
    RangeRefused,
    Refused,
    TimedOut,
    Unauthorized,
    Unavailable,
    UpstreamError,
)
from mirror.upstream.exchange import Exchange
from mirror.upstream.settings import Capability, UpstreamSettings

T = TypeVar("T")
Work = Callable[[Exchange], Awaitable[T]]

_MAX_PAUSE_SECONDS = 10.0


class FailOver:
    """Endpoints in their order, each behind its breaker; then, where it may help, again after a pause."""

    def __init__(self, settings: UpstreamSettings, exchanges: Sequence[Exchange]) -> None:
        self._host, self._settings, self._exchanges = settings.host, settings, exchanges

    async def run(
        self,
        capability: Capability,
        work: Work[T],
        deadline_seconds: float | None = None,
        slots: AbstractAsyncContextManager[object] | None = None,
        *,
        last: Collection[str] = (),
    ) -> T:
        """What `work` gives for the first endpoint that has it, those whose URL is in `last` behind the others. Each
        try holds one of the `slots`.

        Raises the UpstreamError that says most where none has: "not found" only when every endpoint said so. Within
        `deadline_seconds`, where given, there is an answer or an error.
        """
        try:
            async with asyncio.timeout(deadline_seconds) as limit:
                candidates = self._candidates(capability, last)
                return await self._rounds(candidates, work, slots or nullcontext(), self._patience(limit.when()))
        except TimeoutError:
            raise TimedOut(self._host, f"no answer within {deadline_seconds:g} s") from None

    def _candidates(self, capability: Capability, last: Collection[str]) -> list[Exchange]:
        found = [one for one in self._exchanges if capability in one.endpoint.capabilities]
        if not found:
            raise Refused(self._host, f"no endpoint has the capability `{capability}`")
        return sorted(found, key=lambda one: one.endpoint.url in last)

    async def _rounds(
        self, candidates: list[Exchange], work: Work[T], slots: AbstractAsyncContextManager[object], stop_at: float
    ) -> T:
        errors: dict[Exchange, UpstreamError] = {}
        pause = self._settings.backoff_seconds
        for left in range(self._settings.retries, -1, -1):
            again = []
            for exchange in candidates:
                try:
                    # The breaker is asked behind the queue: those who waited in it know what happened meanwhile.
                    async with slots:
                        return await self._try(exchange, work)
                except BreakerOpen as error:
                    # Where the tries before have opened it, what they met says more.
                    errors.setdefault(exchange, error)
                except UpstreamError as error:
                    errors[exchange] = error
                    if error.retry:
                        again.append(exchange)
            candidates = again
            # Half of it at random, so that those who failed together do not come back together.
            wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 no secret depends on it
            if not left or not candidates or asyncio.get_running_loop().time() + wait >= stop_at:
                break
            await asyncio.sleep(wait)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        raise max(errors.values(), key=_weight)

    def _patience(self, deadline: float | None) -> float:
        """When no further round is begun: a client does not wait for four time-outs in a row."""
        until = asyncio.get_running_loop().time() + self._settings.first_byte_timeout_seconds
        return until if deadline is None else min(until, deadline)

    async def _try(self, exchange: Exchange, work: Work[T]) -> T:
        breaker = exchange.breaker
        probe = breaker.enter()
        try:
            done = await work(exchange)
        except UpstreamError as error:
            breaker.failed(error, probe)
            raise
        except BaseException:
            breaker.abandoned(probe)
            raise
        breaker.succeeded(probe)
        return done


def _weight(error: UpstreamError) -> int:
    """Of several endpoints' errors, the heaviest is told. An endpoint that could not be asked may have had it."""
    match error:
        case NotFound():
            return 0
        case RangeRefused():
            return 1
        case Unauthorized():
            return 2
        case BreakerOpen():
            return 3
        case Unavailable():
            return 5
        case _:
            return 4
