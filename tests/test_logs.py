"""Lines of the log: one for each event, whole, whoever else writes to the same pipe."""

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.logs import _KNOWN_VALUES, WAITING_LINES, JsonLines, Row, TextLines, WholeLines, event, events
from tests.serving import DEADLINE_SECONDS

KEYS = ("remote", "target", "status")
ROWS: Sequence[Row] = [
    (1_700_000_000.0004, "127.0.0.1", ("/v2/", 200)),
    (1_700_000_000.0005, "127.0.0.1", ("/v2/", 200)),
    (1_700_000_000.0006, "::1", ("/v2/", 200)),
    (1_700_000_000.25, None, ("/v2/\u2028x\n", 404)),
]


class Captured:
    """A logger of its own, and what it writes."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.written = io.StringIO()
        self.log = logging.Logger("captured")
        handler = WholeLines(self.written)
        handler.setFormatter(formatter)
        self.log.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().split("\n")[:-1]


@pytest.mark.parametrize("form", [JsonLines, TextLines])
def test_rows_are_written_as_single_events_are(form: type[JsonLines | TextLines]) -> None:
    together, alone = Captured(form()), Captured(form())
    events(together.log, logging.INFO, "request", KEYS, ROWS)
    for time, value, values in ROWS:
        record = logging.LogRecord("captured", logging.INFO, "", 0, "request", (), None)
        record.created = time
        record.fields = dict(zip(KEYS, (value, *values), strict=True))
        alone.log.handle(record)
    assert together.lines == alone.lines
    assert len(together.lines) == len(ROWS)


def test_events_that_have_the_same_values_under_other_names_are_not_taken_for_each_other() -> None:
    captured = Captured(JsonLines())
    for name in ("one", "other"):
        events(captured.log, logging.INFO, name, (name, "same"), [(0.0, "value", (1,))])
        events(captured.log, logging.INFO, name, ("first", name), [(0.0, "value", (2,))])
    assert [json.loads(line).get("other") for line in captured.lines] == [None, None, "value", 2]


def test_more_values_than_are_kept_are_all_written() -> None:
    captured = Captured(JsonLines())
    rows = [(0.0, f"10.0.0.{number}", (f"/v2/{number}", 200)) for number in range(2 * _KNOWN_VALUES + 1)]
    events(captured.log, logging.INFO, "request", KEYS, [*rows, *rows])
    said = [json.loads(line) for line in captured.lines]
    assert [(one["remote"], (one["target"], one["status"])) for one in said] == [row[1:] for row in [*rows, *rows]]


def test_a_json_line_has_time_level_event_and_fields_in_this_order() -> None:
    captured = Captured(JsonLines())
    events(captured.log, logging.INFO, "request", KEYS, ROWS)
    first = json.loads(captured.lines[0])
    assert list(first) == ["time", "level", "event", *KEYS]
    assert first["time"] == "2023-11-14T22:13:20.000+00:00"
    assert json.loads(captured.lines[-1])["target"] == "/v2/\u2028x\n"


@pytest.mark.parametrize("form", [JsonLines, TextLines])
def test_an_event_without_fields_and_one_with_a_traceback(form: type[JsonLines | TextLines]) -> None:
    captured = Captured(form())
    event(captured.log, logging.INFO, "stopping")
    try:
        raise ValueError("forged\nline")
    except ValueError:
        captured.log.exception("failed", extra={"fields": {"path": "x y"}})
    if form is JsonLines:
        stopping, failed = map(json.loads, captured.lines)
        assert list(stopping) == ["time", "level", "event"]
        assert failed["path"] == "x y"
        assert "ValueError: forged\nline" in failed["traceback"]
    else:
        assert captured.lines[0].endswith(" INFO    stopping")
        assert captured.lines[1].endswith(' ERROR   failed path="x y"')
        assert all(line.startswith("    ") for line in captured.lines[2:])


@given(st.lists(st.text(max_size=3000), min_size=1, max_size=20))
def test_any_field_stays_in_its_line(targets: list[str]) -> None:
    for form in (JsonLines, TextLines):
        captured = Captured(form())
        events(captured.log, logging.INFO, "request", ("target", "again"), [(0.0, one, (one,)) for one in targets])
        assert "".join(captured.lines).isprintable()
        assert len(captured.lines) == len(targets)
        if form is JsonLines:
            said = [json.loads(line) for line in captured.lines]
            assert [(one["target"], one["again"]) for one in said] == list(zip(targets, targets, strict=True))


WRITES_MUCH = """
import logging, sys
from mirror import logs
logs.set_up("json")
log = logging.getLogger("test")
for number in range(40):
    logs.events(log, logging.INFO, "request", ("who", "number"), [(0.0, sys.argv[1] * 500, (number,))] * 200)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket", "file"])
def test_lines_of_several_processes_stay_whole(kind: str, tmp_path: Path) -> None:
    """Each hands over more at once than a pipe or a socket holds."""
    path = tmp_path / "log"
    if kind == "pipe":
        ours, theirs = os.pipe()
    elif kind == "socket":
        ours, theirs = (end.detach() for end in socket.socketpair())
    else:
        theirs = os.open(path, os.O_WRONLY | os.O_CREAT)
        ours = os.open(path, os.O_RDONLY)
    names = ("a", "b", "c")
    running = [subprocess.Popen([sys.executable, "-c", WRITES_MUCH, name], stderr=theirs) for name in names]
    os.close(theirs)
    if kind == "file":
        assert [one.wait(DEADLINE_SECONDS) for one in running] == [0, 0, 0]
    with open(ours, "rb") as reader:
        lines = [json.loads(line) for line in reader]
    assert [one.wait(DEADLINE_SECONDS) for one in running] == [0, 0, 0]
    for name in names:
        numbers = [line["number"] for line in lines if line["who"] == 500 * name]
        assert numbers == [number for number in range(40) for _ in range(200)]


MORE_THAN_WAIT = """
import logging
from mirror import logs
begin = logs.prepare("json")
log = logging.getLogger("test")
for number in range(logs.WAITING_LINES // 100 + 3):
    logs.events(log, logging.INFO, "request", ("number",), [(0.0, number, ())] * 100)
begin()
"""


def test_lines_that_nobody_takes_are_lost_from_a_number_on_and_that_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", MORE_THAN_WAIT], capture_output=True, text=True, check=True)
    *lines, last = map(json.loads, done.stderr.splitlines())
    assert [line["number"] for line in lines] == [
        number for number in range(WAITING_LINES // 100) for _ in range(100)
    ]
    assert (last["event"], last["level"], last["count"]) == ("log_lines_lost", "warning", 300)
