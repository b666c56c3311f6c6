"""Logs: one structured line for each event, for people on a terminal and as JSON for machines."""

import atexit
import fcntl
import json
import logging
import os
import queue
import select
import stat
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["auto", "text", "json"]
# Of many events of one name: the time (seconds since 1970), the value of the first field, and those of the others.
# Values that compare equal (1 and True) are taken for the same.
Row = tuple[float, Any, tuple[Any, ...]]
# What the first field and the others look like is kept for so many different ones of each.
_KNOWN_VALUES = 4_096
# So many lines wait, some 20 MB, for whoever reads them slowly or not at all; more are lost, and counted.
WAITING_LINES = 50_000
# So long they are waited for at exit: a terminal that was stopped, or a full pipe, holds nobody up for ever.
_LEAVE_SECONDS = 2.0


def event(log: logging.Logger, level: int, name: str, /, **fields: Any) -> None:
    """Log one event with its fields. Fields go to operators: no secrets."""
    log.log(level, name, extra={"fields": fields})


def events(log: logging.Logger, level: int, name: str, keys: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Log many events of one name, a line each, at the price of one; `rows` is the log's from here on.

    There is at least one key.
    """
    log.log(level, name, extra={"keys": keys, "rows": rows})


def set_up(form: Format = "auto", level: int = logging.INFO) -> None:
    """Send every log line to standard error, in the form asked for: `auto` is text on a terminal, else JSON.

    Lines are written by a thread: whoever reads them slowly must not hold up answers. What waits is written at exit,
    where it is taken.
    """
    prepare(form, level)()


def prepare(form: Format = "auto", level: int = logging.INFO) -> Callable[[], None]:
    """As `set_up`, but that lines are kept until what is given back is called."""
    handler: logging.Handler
    try:
        handler = WholeLines(_Descriptor(sys.stderr.fileno(), sys.stderr.encoding))
    except (AttributeError, OSError):
        # No file: closed before the start, which leaves None, or a stream in the memory of whoever called us.
        handler = WholeLines(sys.stderr) if sys.stderr else logging.NullHandler()
    text = form == "text" or (form == "auto" and sys.stderr is not None and sys.stderr.isatty())
    handler.setFormatter(TextLines() if text else JsonLines())
    waiting = _Waiting()
    root = logging.getLogger()
    root.handlers[:] = [waiting]
    root.setLevel(level)
    # It warns of clients that went while they were written to, which is no event.
    logging.getLogger("asyncio").setLevel(logging.ERROR)

    def begin() -> None:
        writer = threading.Thread(target=waiting.write, args=(handler,), name="log", daemon=True)
        writer.start()
        atexit.register(waiting.leave, writer)

    return begin


class _Waiting(logging.Handler):
    """Lines, as records, that wait for the thread that renders and writes them."""

    def __init__(self) -> None:
        super().__init__()
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        # Of lines; who logs counts those given and lost, with this handler's lock held, the writer those written.
        self._given = self._lost = self._written = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if self._given - self._written + _line_count(record) > WAITING_LINES:
            self._lost += _line_count(record)
            return
        self._tell_lost()
        self._put(record)

    def write(self, handler: logging.Handler) -> None:
        """Write what comes, until `leave`."""
        while (record := self._records.get()) is not None:
            # Nobody else does; `handle` would hold its lock, which `logging` waits for at exit.
            handler.emit(record)
            self._written += _line_count(record)

    def leave(self, writer: threading.Thread) -> None:
        """Let the writer come to the end, if anybody takes what it writes."""
        with self.lock or nullcontext():
            self._tell_lost()
        self._records.put(None)
        writer.join(_LEAVE_SECONDS)

    def _tell_lost(self) -> None:
        if self._lost:
            record = logging.LogRecord(__name__, logging.WARNING, "", 0, "log_lines_lost", (), None)
            record.fields = {"count": self._lost}
            self._lost = 0
            self._put(record)

    def _put(self, record: logging.LogRecord) -> None:
        self._records.put(record)
        self._given += _line_count(record)


def _line_count(record: logging.LogRecord) -> int:
    return len(getattr(record, "rows", (None,)))


class _Descriptor:
    """A text stream without a buffer, whose lock nobody could wait for in vain at exit while a write hangs.

    What is written at once stays together, whichever worker writes beside: files and terminals take it whole, pipes
    and sockets little of it (pipe(7), PIPE_BUF). Handing over more at once is not for the system's sake: after each
    call the writer takes the interpreter's lock from whoever answers.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        mode = os.fstat(descriptor).st_mode
        self._takes_little = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def write(self, text: str) -> None:
        left = memoryview(text.encode(self._encoding, "backslashreplace"))
        with self._alone() if self._takes_little else nullcontext():
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # somebody who has it too lets nobody wait; half a line would spoil two
                    select.select([], [self._descriptor], [])

    def flush(self) -> None:
        """Nothing waits."""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process of this mirror's writes within; who dies holds nobody up (closing any copy lets go, too).

        As with a reader who takes nothing, the lines of all wait for one who was stopped meanwhile; answers do not.
        """
        # A system that locks no pipes mixes lines: better than none.
        with suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


class WholeLines(logging.StreamHandler[Any]):
    """Writes what its formatter made, which ends its lines itself."""

    terminator = ""


class _Lines(logging.Formatter, ABC):
    """Each event a line, ended by a line break; `rows` are as many lines."""

    def __init__(self) -> None:
        super().__init__()
        # By the names of the fields: what the first, and what the others look like, by their values.
        self._known: dict[tuple[str, ...], tuple[dict[Any, str], dict[tuple[Any, ...], str]]] = {}

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        rows: Sequence[Row] | None = getattr(record, "rows", None)
        if rows is not None:
            return "".join(self._rows(record, rows))
        fields: dict[str, Any] = getattr(record, "fields", {})
        trace = self.formatException(record.exc_info) if record.exc_info else None
        return self.opening(record, record.created) + self.fields(fields) + self.ending(trace)

    def _rows(self, record: logging.LogRecord, rows: Sequence[Row]) -> list[str]:
        keys: tuple[str, ...] = record.__dict__["keys"]
        firsts, others = self._known.setdefault(keys, ({}, {}))
        end_of_line = self.ending(None)
        lines: list[str] = []
        opening, begin, end = "", 0.0, 0.0
        for at, value, values in rows:
            # Lines of one millisecond begin alike.
            if not begin <= at < end:
                opening, begin = self.opening(record, at), int(at * 1000) / 1000
                end = begin + 0.001
            first, other = firsts.get(value), others.get(values)
            if first is None:
                first = self._keep(firsts, value, keys[:1], (value,))
            if other is None:
                other = self._keep(others, values, keys[1:], values)
            lines.append(f"{opening}{first}{other}{end_of_line}")
        return lines

    def _keep(self, known: dict[Any, str], value: Any, keys: tuple[str, ...], values: tuple[Any, ...]) -> str:
        if len(known) >= _KNOWN_VALUES:
            known.clear()
        text = known[value] = self.fields(dict(zip(keys, values, strict=True)))
        return text

    @abstractmethod
    def opening(self, record: logging.LogRecord, time: float) -> str:
        """How a line of this kind begins, at this time."""

    @abstractmethod
    def fields(self, fields: dict[str, Any]) -> str:
        """These as they stand in a line, each behind what separates it from what comes before."""

    @abstractmethod
    def ending(self, trace: str | None) -> str:
        """How the line ends, with a traceback."""


class TextLines(_Lines):
    """`12:00:01 INFO  listening url=http://127.0.0.1:5000`."""

    def opening(self, record: logging.LogRecord, time: float) -> str:
        """See `_Lines`."""
        when = datetime.fromtimestamp(time).strftime("%H:%M:%S")
        return f"{when} {record.levelname:<7} {_one_line(record.getMessage())}"

    def fields(self, fields: dict[str, Any]) -> str:
        """See `_Lines`."""
        return "".join(f" {key}={_text(value)}" for key, value in fields.items())

    def ending(self, trace: str | None) -> str:
        """See `_Lines`."""
        # Indented: what an exception says cannot look like another event.
        return "".join(["\n", *(f"    {_one_line(line)}\n" for line in (trace or "").splitlines())])


class JsonLines(_Lines):
    """One JSON object a line: time (RFC 3339), level, event, and the event's fields."""

    def opening(self, record: logging.LogRecord, time: float) -> str:
        """See `_Lines`."""
        when = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
        told = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(told)[:-1]

    def fields(self, fields: dict[str, Any]) -> str:
        """See `_Lines`."""
        # Escaped: some readers take U+2028 and its like for the end of a line.
        return f", {json.dumps(fields, default=str)[1:-1]}" if fields else ""

    def ending(self, trace: str | None) -> str:
        """See `_Lines`."""
        return "}\n" if trace is None else self.fields({"traceback": trace}) + "}\n"


def _text(value: Any) -> str:
    text = str(value)
    if text.isprintable() and text:
        return json.dumps(text, ensure_ascii=False) if any(c in ' "=\\' for c in text) else text
    # A path or a reason may hold anything: no line break may forge a line, nothing may steer the terminal.
    return json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
