"""The access log: a line for each answer, logged some hundred at a time.

One call of `logging` costs as much as answering from memory; here a request costs one tuple in a list.
"""

import asyncio
import logging
import time

from mirror.logs import Row, events
from mirror.server.answer import Answer
from mirror.server.request import Request

log = logging.getLogger(__name__)

KEYS = ("remote", "method", "target", "status", "bytes")
# How late a line may be, and how many are held back.
BATCH_SECONDS = 0.1
BATCH_ROWS = 512
# Of a longer target so many characters: a pipe must take a line whole.
TARGET_CHARACTERS = 2_000


class AccessLog:
    """Collects what was answered. Lines tell when that was, whenever they are written; `flush` before the end."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._due: asyncio.TimerHandle | None = None

    def note(self, request: Request, answer: Answer, remote: str | None) -> None:
        """One answer that goes out to `remote`, an address."""
        values = answer.logged
        if values is None or values[1] != request.target or values[0] != request.method:
            values = _values(request, answer)
        self._rows.append((time.time(), remote, values))
        if len(self._rows) == BATCH_ROWS:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(BATCH_SECONDS, self.flush)

    def flush(self) -> None:
        """Log what was collected."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._rows:
            events(log, logging.INFO, "request", KEYS, self._rows)
            self._rows = []


def _values(request: Request, answer: Answer) -> tuple[str, str, int, int]:
    """What a row says behind `remote`. Kept with the answer, but not the request: its bytes are nobody's to count."""
    sent_bytes = answer.stop - answer.start if answer.send_body else 0
    values = request.method, request.target[:TARGET_CHARACTERS], answer.status, sent_bytes
    object.__setattr__(answer, "logged", values)
    return values
