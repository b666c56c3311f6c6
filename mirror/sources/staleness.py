"""Fresh, revalidated or stale: one way to decide for tags, tag lists and referrers lists alike."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from mirror.oci.errors import GatewayTimeout, OciError, Unknown
from mirror.oci.names import Host, Name
from mirror.sources.flights import Flights
from mirror.sources.negatives import Negatives
from mirror.sources.policy import Policy
from mirror.sources.source import Found, Origin
from mirror.sources.translate import means_gone, offline, translated
from mirror.store.index import CacheIndex
from mirror.upstream.errors import NotFound, UpstreamError

T = TypeVar("T")

log = logging.getLogger(__name__)

# How long an answer may be given again without a look at the files: another process may have changed them.
LOOK_AGAIN_SECONDS = 1.0
# How far clocks of machines on one cache, or one that is being corrected, may be apart.
CLOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """Something cached. `checked_at` in Unix seconds: when its upstream last confirmed it."""

    value: T
    checked_at: float


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What is asked of the upstream: by whom it is shared, how, and the error for "unknown"."""

    name: Name
    reference: str
    ttl_seconds: float
    ask: Callable[[], Awaitable[T]]
    unknown: Unknown
    used: Callable[[], None] | None = None
    # Where something can be made up from what is cached: how long the first of an answer may take (None: as long as
    # the upstream's own time-outs let it), and whether it has come.
    patience_seconds: float | None = None
    is_coming: Callable[[], bool] = lambda: False

    @property
    def key(self) -> Hashable:
        return self.name, self.reference


class Freshness:
    """Decides for one upstream when to ask it, and what to answer when it does not."""

    def __init__(self, host: Host, policy: Policy, index: CacheIndex) -> None:
        self._host = host
        self._policy = policy
        self._flights: Flights[Any] = Flights()
        self.negatives = Negatives(policy.unknown_ttl_seconds, index)

    async def stop(self) -> None:
        """End every question under way."""
        await self._flights.stop()

    async def answer(self, question: Question[T], kept: Kept[T] | None) -> Found[T]:
        """What is kept while it is fresh; else what the upstream says; else what is kept, marked stale."""
        if kept is None:
            return Found(
                await self._cold(question), self.origin("fwd=uri-miss; stored", question, question.ttl_seconds)
            )
        age = _age_seconds(kept, question.ttl_seconds)
        if age < question.ttl_seconds:
            return Found(kept.value, self.origin("hit", question, question.ttl_seconds - age))
        limit = self._policy.stale_for_seconds
        if limit is not None and age - question.ttl_seconds > limit:
            value = await self._cold(question)
        else:
            if self._policy.offline:
                return self._stale(question, kept, age)
            try:
                value = await self._flights.ask_within(question.key, question.ask, self._policy.stale_after_seconds)
            except UpstreamError as error:
                if self._counts(error):
                    raise translated(error, question.unknown) from error
                return self._stale(question, kept, age)
            except (OciError, TimeoutError):
                return self._stale(question, kept, age)
            except Exception:
                # Whatever nobody foresaw of an upstream: what is cached is never refused for it.
                log.exception("asking %s for %s failed", self._host, question.name)
                return self._stale(question, kept, age)
            self.negatives.drop(question.name, question.reference)
        status = "hit" if value is kept.value else "fwd=stale; stored"
        return Found(value, self.origin(status, question, question.ttl_seconds))

    async def once(self, question: Question[T]) -> T:
        """What the upstream says, remembered by the caller: nothing is kept. Raises as a cold question does."""
        return await self._cold(question)

    def origin(self, status: str, question: Question[T] | None, fresh_for_seconds: float) -> Origin:
        """Where an answer came from; it may be given again for a moment."""
        until = time.monotonic() + min(fresh_for_seconds, LOOK_AGAIN_SECONDS)
        used = question.used if question else None
        return Origin(status, self._host, fresh_until=until, private=self._policy.private, used=used)

    def _stale(self, question: Question[T], kept: Kept[T], age: float) -> Found[T]:
        # Given again unasked no longer than a fresh one would be: a time of 0 means that each one asks.
        origin = self.origin(f"hit; ttl=-{math.ceil(age - question.ttl_seconds)}", question, question.ttl_seconds)
        return Found(kept.value, replace(origin, age_seconds=age))

    async def _cold(self, question: Question[T]) -> T:
        unknown = self.negatives.fresh(question.name, question.reference)
        if unknown is not None:
            raise unknown
        believed = self.negatives.stale(question.name, question.reference)
        if self._policy.offline:
            raise believed or offline(self._host)
        try:
            value = await self._asked(question, believed)
        except UpstreamError as error:
            found = translated(error, question.unknown)
            if isinstance(error, NotFound) and isinstance(found, Unknown):
                self.negatives.put(question.name, question.reference, found)
                raise found from error
            raise (found if believed is None or self._counts(error) else believed) from error
        self.negatives.drop(question.name, question.reference)
        return value

    async def _asked(self, question: Question[T], believed: Unknown | None) -> T:
        """The upstream's answer. Where it said earlier that it does not know, that is a copy, and waits no longer."""
        found: T
        if believed is None and question.patience_seconds is None:
            found = await self._flights.ask(question.key, question.ask)
        else:
            patience = self._policy.stale_after_seconds if believed else question.patience_seconds or 0.0
            try:
                found = await self._flights.ask_within(question.key, question.ask, patience, question.is_coming)
            except TimeoutError:
                raise believed or GatewayTimeout({"upstream": self._host}) from None
        return found

    def _counts(self, error: UpstreamError) -> bool:
        """Whether what the upstream says now stands against what it said before."""
        return self._policy.refuse_gone and means_gone(error)


def _age_seconds(kept: Kept[Any], ttl_seconds: float) -> float:
    """What was checked later than now was so by a clock that was wrong: it is not fresh, however long it would be."""
    age = time.time() - kept.checked_at
    return max(0.0, age) if age >= -CLOCK_SECONDS else ttl_seconds
