"""A head that is read here is one that aiohttp reads, and both read the same from it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.server.heads import Heads, read_head
from mirror.server.request import Request

# Around what matters: separators, blanks, control characters, letters beyond ASCII.
_odd = st.sampled_from([b" ", b"\t", b":", b"\r", b"\n", b"\x00", b"\x7f", b"\xe4", b",", b'"', b"#", b"//", b"%"])
_names = st.sampled_from(
    [
        b"Host",
        b"host",
        b"Accept",
        b"If-None-Match",
        b"Range",
        b"If-Range",
        b"OCI-REF-NAME",
        b"Connection",
        b"X-Y",
        b"A b",
    ]
)
_values = st.lists(
    st.one_of(st.sampled_from([b"close", b"keep-alive", b"x.example", b'"abc"', b"bytes=0-1", b"", b"*/*"]), _odd),
    max_size=3,
).map(b"".join)
_lines = st.builds(
    lambda name, colon, value: name + colon + value, _names, st.sampled_from([b":", b": ", b" :"]), _values
)
_targets = st.one_of(
    st.sampled_from([b"/v2/", b"/v2/a/manifests/1.0?ns=docker.io", b"/v2/a/tags/list?n=1&last=b", b"*", b"v2"]),
    st.lists(st.one_of(st.sampled_from([b"/v2/", b"a", b"?"]), _odd), max_size=4).map(
        lambda found: b"/" + b"".join(found)
    ),
)
_heads = st.builds(
    lambda method, target, version, lines: b"\r\n".join([b" ".join((method, target, version)), *lines, b"", b""]),
    st.sampled_from([b"GET", b"HEAD", b"POST"]),
    _targets,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]),
    st.lists(_lines, max_size=3).map(lambda lines: [b"Host: mirror.example", *lines]),
)


def parsed(raw: bytes) -> Sequence[Any]:
    """The messages that aiohttp's parser finds. Raises what it raises."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_line_size=8190, max_field_size=8190)
        messages, _, rest = parser.feed_data(raw)
        assert not rest
        return [message for message, _ in messages]
    finally:
        loop.close()


@settings(max_examples=1000, deadline=None)
@example(b"GET /v2/ HTTP/1.1\r\nHost: mirror.example\r\nAccept: a\r\nAccept: b\r\n\r\n")
@example(b'GET /v2/ HTTP/1.1\r\nHost: a \t\r\nIf-None-Match:\t"x" \r\nConnection: Close\r\n\r\n')
@given(_heads)
def test_what_is_read_here_aiohttp_reads_alike(raw: bytes) -> None:
    found = read_head(raw)
    if found is None:
        return
    (message,) = parsed(raw)
    assert Request.read(message.method, message.path, message.headers) == found.request
    assert message.should_close == found.closes
    assert (message.upgrade, message.chunked, message.compression) == (False, False, None)


def test_a_remembered_head_is_the_one_that_was_read() -> None:
    heads = Heads()
    raw = b"GET /v2/ HTTP/1.1\r\nHost: mirror.example\r\n\r\n"
    assert heads.read(raw) is heads.read(bytes(bytearray(raw)))
    assert heads.read(raw) == read_head(raw)
    assert heads.read(raw + b"GET") is None
