"""Sending an answer through aiohttp. Nothing is decided here; after the first body byte the only error is a cut."""

import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import assert_never

from aiohttp import web

from mirror.logs import event
from mirror.oci.errors import OciError
from mirror.server.answer import CLOCK, Answer
from mirror.server.file_body import BodyBroken, Direct, read_file
from mirror.store.body import ByteStream, FileSlice
from mirror.store.threads import PIECE_BYTES

log = logging.getLogger(__name__)


async def send(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send a whole answer. Raises ConnectionError where the client is gone, or had to be cut off."""
    headers = {**answer.sent_headers, "Date": CLOCK.tick().text}
    if isinstance(answer.body, bytes) and answer.send_body and answer.length <= PIECE_BYTES:
        whole = web.Response(status=answer.status, headers=headers, body=answer.body[answer.start : answer.stop])
        await whole.prepare(request)
        await whole.write_eof()
        return whole
    response = web.StreamResponse(status=answer.status, headers=headers)
    is_file = answer.send_body and isinstance(answer.body, FileSlice)
    direct = Direct.to(request.transport) if is_file else None
    with direct or nullcontext():
        await response.prepare(request)
        if answer.send_body:
            await _send_body(request, response, answer, direct)
        await response.write_eof()
    return response


async def _send_body(
    request: web.BaseRequest, response: web.StreamResponse, answer: Answer, direct: Direct | None
) -> None:
    try:
        if direct is not None and isinstance(answer.body, FileSlice):
            await direct.send(response, answer.body, answer.start, answer.stop)
            return
        async for chunk in chunks(answer):
            # A view: what the socket does not take at once is then copied once, not twice.
            await response.write(memoryview(chunk))
    except (OciError, OSError, BodyBroken) as error:
        if not isinstance(error, ConnectionError):
            event(log, logging.WARNING, "answer_cut", target=request.path_qs[:300], reason=str(error))
        # An error answer now would land inside the blob: the client must see a cut instead.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer was cut") from error


async def chunks(answer: Answer) -> AsyncIterator[bytes | bytearray]:
    """The bytes of the answer's body, in order."""
    match answer.body:
        case bytes() as content:
            for start in range(answer.start, answer.stop, PIECE_BYTES):
                yield content[start : min(start + PIECE_BYTES, answer.stop)]
        case FileSlice() as file:
            async for chunk in read_file(file, answer.start, answer.stop):
                yield chunk
        case ByteStream() as stream:
            async for chunk in stream.read(answer.start, answer.stop):
                yield chunk
        case _:
            assert_never(answer.body)
