"""Logs: one structured line for each event, for people on a terminal and as JSON for machines."""

import atexit
import json
import logging
import queue
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Literal

Format = Literal["auto", "text", "json"]


def event(log: logging.Logger, level: int, name: str, /, **fields: Any) -> None:
    """Log one event with its fields. Fields go to operators: no secrets."""
    log.log(level, name, extra={"fields": fields})


def set_up(form: Format = "auto", level: int = logging.INFO) -> None:
    """Send every log line to standard error, in the form asked for: `auto` is text on a terminal, else JSON.

    Lines are written by a thread: whoever reads them slowly must not hold up answers. What waits is written at exit.
    """
    prepare(form, level)()


def prepare(form: Format = "auto", level: int = logging.INFO) -> Callable[[], None]:
    """As `set_up`, but that lines are kept until what is given back is called."""
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextLines() if text else JsonLines())
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    root = logging.getLogger()
    root.handlers[:] = [_Handover(lines)]
    root.setLevel(level)

    def begin() -> None:
        writer = QueueListener(lines, handler)
        writer.start()
        atexit.register(writer.stop)

    return begin


class _Handover(QueueHandler):
    """Hands a record over as it is; it is rendered where it is written."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class TextLines(logging.Formatter):
    """`12:00:01 INFO  listening url=http://127.0.0.1:5000`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_text(value)}" for key, value in _fields(record).items())
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        text = f"{when} {record.levelname:<7} {_one_line(record.getMessage())}{fields}"
        if record.exc_info:
            # Indented: what an exception says cannot look like another event.
            trace = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n    {_one_line(line)}" for line in trace)
        return text


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, event, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        # Escaped: some readers take U+2028 and its like for the end of a line.
        return json.dumps(document, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _text(value: Any) -> str:
    text = str(value)
    if text.isprintable() and text:
        return json.dumps(text, ensure_ascii=False) if any(c in ' "=\\' for c in text) else text
    # A path or a reason may hold anything: no line break may forge a line, nothing may steer the terminal.
    return json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
