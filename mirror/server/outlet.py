"""What an answer goes out through: one client's connection, whichever protocol has it."""

import asyncio
from typing import Protocol

from aiohttp import web

from mirror.server.answer import CLOCK, Answer


class Outlet(Protocol):
    """Takes one answer. All of it at once, or `begin`, the pieces of its body in order, and `end`.

    Each may wait for the client, and raises ConnectionError where that is gone.
    """

    @property
    def transport(self) -> asyncio.Transport | None:
        """The client's; None where it is gone."""

    async def whole(self, answer: Answer) -> None:
        """An answer whose body is bytes."""

    async def begin(self, answer: Answer) -> None:
        """Status line and headers; they may be held back for a moment, for the first piece to go with them."""

    def flush(self) -> None:
        """What was held back goes."""

    async def write(self, piece: bytes | bytearray | memoryview, /) -> None:
        """What comes next of the body. It may be kept till it is sent: nobody changes it any more."""

    async def end(self) -> None:
        """Nothing more comes."""


class AiohttpOutlet:
    """The connection of a request that aiohttp has read. `response` is what it wants to be given back."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.response = web.StreamResponse()

    @property
    def transport(self) -> asyncio.Transport | None:
        """See `Outlet`, as for all that follows."""
        return self._request.transport

    async def whole(self, answer: Answer) -> None:
        body = answer.body[answer.start : answer.stop] if isinstance(answer.body, bytes) else b""
        self.response = web.Response(status=answer.status, headers=_headers(answer), body=body)
        await self.response.prepare(self._request)
        await self.response.write_eof()

    async def begin(self, answer: Answer) -> None:
        self.response = web.StreamResponse(status=answer.status, headers=_headers(answer))
        await self.response.prepare(self._request)

    def flush(self) -> None:
        pass

    async def write(self, piece: bytes | bytearray | memoryview, /) -> None:
        await self.response.write(piece)

    async def end(self) -> None:
        await self.response.write_eof()


def _headers(answer: Answer) -> dict[str, str]:
    return {**answer.sent_headers, "Date": CLOCK.tick().text}
