"""The access log's rows."""

import gc
import inspect
import logging

import pytest

from mirror.server.access_log import TARGET_CHARACTERS, AccessLog
from mirror.server.answer import Answer, answer
from mirror.server.request import Request


async def test_an_answer_that_several_requests_get_is_logged_for_each_as_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    found = answer(200, {}, b"12345")
    asked: list[tuple[Request, Answer, str]] = [
        (Request("GET", "/v2/a"), found, "10.0.0.1"),
        (Request("GET", "/v2/b"), found, "10.0.0.1"),
        (Request("HEAD", "/v2/b"), found.bodiless, "10.0.0.2"),
    ]
    log = AccessLog()
    for one in [*asked, *reversed(asked), *asked, asked[0]]:
        log.note(*one)
    log.flush()
    (record,) = [record for record in caplog.records if record.message == "request"]
    a, b = ("10.0.0.1", ("GET", "/v2/a", 200, 5)), ("10.0.0.1", ("GET", "/v2/b", 200, 5))
    head = ("10.0.0.2", ("HEAD", "/v2/b", 200, 0))
    assert [row[1:] for row in record.__dict__["rows"]] == [a, b, head, head, b, a, a, b, head, a]


async def test_an_answer_keeps_nothing_of_the_request_but_what_its_line_says() -> None:
    """Answers are kept by the thousand; nobody counts what their requests hold."""
    found, log = answer(200, {}, b"12345"), AccessLog()
    request = Request("GET", "/v2/" + "a" * 5_000, if_none_match="x" * 100_000)
    log.note(request, found, "10.0.0.1")
    log.flush()
    # This frame, and no one else.
    assert [holder for holder in gc.get_referrers(request) if not inspect.isframe(holder)] == []
    assert found.logged == ("GET", request.target[:TARGET_CHARACTERS], 200, 5)


async def test_a_longer_target_is_logged_as_far_as_lines_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found, log = answer(200, {}, b""), AccessLog()
    for last in ("a", "b"):
        log.note(Request("GET", "/" + "x" * TARGET_CHARACTERS + last), found, None)
    log.flush()
    (record,) = [record for record in caplog.records if record.message == "request"]
    target = "/" + "x" * (TARGET_CHARACTERS - 1)
    assert [row[1:] for row in record.__dict__["rows"]] == [(None, ("GET", target, 200, 0))] * 2
