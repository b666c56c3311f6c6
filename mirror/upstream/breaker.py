"""Not asking an endpoint that fails, or that asked not to be asked; shared by the processes on one cache."""

import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from mirror.upstream.errors import (
    BadAnswer,
    BreakerOpen,
    Cut,
    RateLimited,
    Refused,
    TimedOut,
    Unavailable,
    UpstreamError,
)
from mirror.upstream.events import BreakerMoved, Observe, ignore

# Consecutive failures before it opens.
THRESHOLD = 5
FIRST_OPEN_SECONDS = 1.0
MAX_OPEN_SECONDS = 30.0
# An upstream may ask for patience, but not for ever.
MAX_RETRY_AFTER_SECONDS = 3600.0
# How long one probe keeps others from probing.
PROBE_SECONDS = 10.0


class Cause(IntEnum):
    """Why an endpoint is not asked."""

    NONE = 0
    FAILURES = 1
    RATE_LIMITED = 2
    UNAVAILABLE = 3


@dataclass(frozen=True, slots=True)
class BreakerRecord:
    """`failures` in a row; not asked until `open_until` (wall clock, so that processes agree; 0: asked)."""

    failures: int = 0
    open_until: float = 0.0
    cause: Cause = Cause.NONE


class BreakerState(Protocol):
    """Where the record of one endpoint is kept. No call may wait, nor fail."""

    def load(self) -> BreakerRecord:
        """The last record that anybody stored."""
        ...

    def store(self, record: BreakerRecord) -> None:
        """Make this the record for all who share it."""
        ...

    def close(self) -> None: ...


class MemoryBreakerState:
    """For one process."""

    def __init__(self) -> None:
        self._record = BreakerRecord()

    def load(self) -> BreakerRecord:
        return self._record

    def store(self, record: BreakerRecord) -> None:
        self._record = record

    def close(self) -> None:
        """Nothing is open."""


class FileBreakerState:
    """For many processes: a few bytes of a file that all of them have open, and that no disk is waited for.

    A record that another process is just writing has a wrong checksum, and the last good one counts. The file is
    opened when this is made: at start, not in the event loop. Raises OSError where it cannot be. Whoever owns
    `folder` clears it at the start of all.
    """

    _FORMAT = struct.Struct("<IdI")
    _CHECK = struct.Struct("<I")
    _SIZE = _FORMAT.size + _CHECK.size

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.breaker"
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._last = BreakerRecord()

    def load(self) -> BreakerRecord:
        """See `BreakerState.load`."""
        raw = b""
        # Requests that end after the client was closed still report.
        if self._fd is not None:
            with suppress(OSError):
                raw = os.pread(self._fd, self._SIZE, 0)
        body, check = raw[: self._FORMAT.size], raw[self._FORMAT.size :]
        if len(raw) == self._SIZE and self._CHECK.unpack(check)[0] == zlib.crc32(body):
            failures, open_until, cause = self._FORMAT.unpack(body)
            self._last = BreakerRecord(failures, open_until, Cause(cause))
        return self._last

    def store(self, record: BreakerRecord) -> None:
        """See `BreakerState.store`."""
        self._last = record
        if self._fd is None:
            return
        body = self._FORMAT.pack(record.failures, record.open_until, record.cause)
        try:
            written = os.pwrite(self._fd, body + self._CHECK.pack(zlib.crc32(body)), 0)
        except OSError:
            written = 0
        if written < self._SIZE:
            # A full disk: what the file says is not what happened, so this process goes by what it saw itself.
            self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _is_failure(error: UpstreamError) -> bool:
    """What says that an endpoint is in trouble: no connection, no time, 5xx. One bad manifest does not."""
    if isinstance(error, BadAnswer):
        return isinstance(error, Cut) or (error.status or 0) >= 500
    return isinstance(error, Refused | TimedOut)


class Breaker:
    """Decides whether an endpoint is asked. Enter before each request; then one of the other three."""

    def __init__(
        self,
        host: str,
        endpoint_url: str,
        state: BreakerState | None = None,
        observe: Observe = ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host, self._url = host, endpoint_url
        self._state: BreakerState = state or MemoryBreakerState()
        self._observe = observe
        self._now = clock

    def close(self) -> None:
        self._state.close()

    @property
    def open_seconds(self) -> float:
        """How long the endpoint will not be asked; 0 where it is."""
        # A wall clock that was set back must not keep it shut for longer than it could have been meant.
        left = self._state.load().open_until - self._now()
        return left if 0 < left <= MAX_RETRY_AFTER_SECONDS else 0.0

    def enter(self) -> bool:
        """Raises RateLimited, Unavailable or BreakerOpen while the endpoint is not to be asked.

        True: this request is the probe. Others are kept out until it is done, or for PROBE_SECONDS.
        """
        record, left = self._state.load(), self.open_seconds
        if left > 0:
            raise self._shut(record.cause, left)
        if record.cause is Cause.NONE:
            return False
        self._state.store(BreakerRecord(record.failures, self._now() + PROBE_SECONDS, record.cause))
        return True

    def _shut(self, cause: Cause, left: float) -> Unavailable:
        match cause:
            case Cause.RATE_LIMITED:
                return RateLimited(self._host, f"asked to wait (429); {left:.0f} s are left", left)
            case Cause.UNAVAILABLE:
                return Unavailable(self._host, f"asked to wait (503); {left:.0f} s are left", left)
            case _:
                return BreakerOpen(self._host, f"failed too often; not asked for {left:.0f} s", left)

    def succeeded(self, probe: bool) -> None:
        """The endpoint answered. What it asked of us meanwhile holds: this request was on its way before that."""
        record = self._state.load()
        asked_to_wait = record.cause in (Cause.RATE_LIMITED, Cause.UNAVAILABLE)
        if record != BreakerRecord() and (probe or not asked_to_wait):
            self._state.store(BreakerRecord())
            if record.cause is not Cause.NONE:
                self._observe(BreakerMoved(self._host, self._url, 0.0))

    def abandoned(self, probe: bool) -> None:
        """The request was given up for reasons of ours: nothing was learnt, the next one may probe."""
        if probe:
            record = self._state.load()
            self._state.store(BreakerRecord(record.failures, 0.0, record.cause))

    def failed(self, error: UpstreamError, probe: bool) -> None:
        """Count what an endpoint did; errors that are answers (404, 401) or another host's count as success."""
        if isinstance(error, Unavailable) and not error.elsewhere:
            cause = Cause.RATE_LIMITED if isinstance(error, RateLimited) else Cause.UNAVAILABLE
            self._open(error.retry_after_seconds, cause, self._state.load().failures + 1, error.reason)
        elif _is_failure(error) and not error.elsewhere:
            self._count(probe, error.reason)
        else:
            self.succeeded(probe)

    def _count(self, probe: bool, reason: str) -> None:
        record = self._state.load()
        if record.cause is not Cause.NONE and not probe:
            # Sent before it opened: fifty that fail together are one failure, not thirty seconds.
            return
        failures = record.failures + 1
        if failures < THRESHOLD and not probe:
            self._state.store(BreakerRecord(failures))
            return
        beyond = max(0, failures - THRESHOLD)
        self._open(min(MAX_OPEN_SECONDS, FIRST_OPEN_SECONDS * 2.0**beyond), Cause.FAILURES, failures, reason)

    def _open(self, seconds: float, cause: Cause, failures: int, reason: str) -> None:
        seconds = min(seconds, MAX_RETRY_AFTER_SECONDS)
        was_asked = self._state.load().cause is Cause.NONE
        # Bounded, so that the exponent is: sixty doublings are long beyond every cap.
        self._state.store(BreakerRecord(min(failures, THRESHOLD + 60), self._now() + seconds, cause))
        if was_asked:
            self._observe(BreakerMoved(self._host, self._url, seconds, reason))
