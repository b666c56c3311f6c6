"""The access log's rows."""

import logging

import pytest

from mirror.server.access_log import AccessLog
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
