"""Heads of requests that need no HTTP parser: complete, bodiless, and without anything unusual.

Strict where aiohttp's parser is lenient, so that the two never understand one head differently: whatever is not
matched here is its to read, or to refuse. Nothing here is told to the client.
"""

import re
from dataclasses import dataclass

from mirror.server.recent import Recent
from mirror.server.request import REF_NAME_HEADER, Request

END = b"\r\n\r\n"
# Below the parser's limits for a line (8,190 bytes) and for headers (128), so that these never matter.
MAX_HEAD_BYTES = 8_000
MAX_HEADERS = 64
# Clients send the same few heads over and over.
REMEMBERED_BYTES = 8 * 1024 * 1024
# What a remembered head weighs beside its own bytes, which its parts repeat.
_ENTRY_BYTES = 1_024

# Origin form, of characters that need no escaping; `//` could be read as an authority.
_FIRST_LINE = re.compile(rb"(GET|HEAD) (/(?!/)[A-Za-z0-9/:@._~%+,;=&?-]*) HTTP/1\.1")
_FIELD = re.compile(rb"([A-Za-z0-9_-]+):[ \t]*((?:[!-~](?:[ \t]*[!-~])*)?)[ \t]*")
# Those that say how the message or the connection goes on, or who asks.
_FOREIGN = re.compile(
    r"(?:content|proxy|sec|http2)-.*|transfer-encoding|trailer|te|upgrade|expect|authorization|cookie"
)
# The one header that clients are known to send in several lines, and that decides nothing.
_REPEATED = "accept"
_REF_NAME = REF_NAME_HEADER.lower()


@dataclass(frozen=True, slots=True)
class Head:
    """A request, and whether its client wants the connection closed after the answer."""

    request: Request
    closes: bool


class Heads(Recent[bytes, Head]):
    """Reads heads, and remembers those that it has read."""

    def __init__(self) -> None:
        super().__init__(REMEMBERED_BYTES)

    def read(self, raw: bytes) -> Head | None:
        """The head, given with the empty line at its end; None where it is not one for here."""
        found = self.get(raw)
        if found is None:
            found = read_head(raw)
            if found is not None:
                self.put(raw, found, 4 * len(raw) + _ENTRY_BYTES)
        return found


def read_head(raw: bytes) -> Head | None:
    """The head, given with the empty line at its end; None where it is not one for here."""
    if len(raw) > MAX_HEAD_BYTES or not raw.endswith(END):
        return None
    first, *lines = raw[: -len(END)].split(b"\r\n")
    line = _FIRST_LINE.fullmatch(first)
    if line is None or len(lines) > MAX_HEADERS:
        return None
    fields = _fields(lines)
    if fields is None or "host" not in fields:
        return None
    connection = fields.get("connection", "keep-alive").lower()
    if connection not in ("close", "keep-alive"):
        return None
    ref_name = fields.get(_REF_NAME)
    request = Request(
        line[1].decode(),
        line[2].decode(),
        fields["host"],
        () if ref_name is None else (ref_name,),
        fields.get("if-none-match"),
        fields.get("range"),
        fields.get("if-range"),
    )
    return Head(request, connection == "close")


def _fields(lines: list[bytes]) -> dict[str, str] | None:
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name = match[1].decode().lower()
        if (name in fields and name != _REPEATED) or _FOREIGN.fullmatch(name):
            return None
        fields[name] = match[2].decode()
    return fields
