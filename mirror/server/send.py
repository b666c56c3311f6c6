"""Sending an answer. Nothing is decided here; after the first body byte the only error is a cut."""

import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import assert_never

from mirror.logs import event
from mirror.oci.errors import OciError
from mirror.server.answer import Answer
from mirror.server.file_body import BodyBroken, Direct, read_file
from mirror.server.outlet import Outlet
from mirror.server.registry import Pending
from mirror.store.body import ByteStream, FileSlice
from mirror.store.threads import PIECE_BYTES

log = logging.getLogger(__name__)


async def respond(outlet: Outlet, target: str, found: Answer | Pending, note: Callable[[Answer], None]) -> None:
    """Send what was found, or what that comes to; `note` hears of it first.

    Raises ConnectionError where the client is gone, or had to be cut off.
    """
    if isinstance(found, Answer):
        note(found)
        await _send(outlet, target, found)
    else:
        async with found.answer() as answer:
            note(answer)
            await _send(outlet, target, answer)


async def _send(outlet: Outlet, target: str, answer: Answer) -> None:
    if isinstance(answer.body, bytes) and answer.send_body and answer.length <= PIECE_BYTES:
        await outlet.whole(answer)
        return
    is_file = answer.send_body and isinstance(answer.body, FileSlice)
    direct = Direct.to(outlet.transport) if is_file else None
    with direct or nullcontext():
        await outlet.begin(answer)
        if answer.send_body:
            await _send_body(outlet, target, answer, direct)
        await outlet.end()


async def _send_body(outlet: Outlet, target: str, answer: Answer, direct: Direct | None) -> None:
    try:
        if direct is not None and isinstance(answer.body, FileSlice):
            await direct.send(outlet, answer.body, answer.start, answer.stop)
            return
        async for chunk in chunks(answer):
            # A view: what the socket does not take at once is then copied once, not twice.
            await outlet.write(memoryview(chunk))
    except (OciError, OSError, BodyBroken) as error:
        if not isinstance(error, ConnectionError):
            event(log, logging.WARNING, "answer_cut", target=target[:300], reason=str(error))
        # An error answer now would land inside the blob: the client must see a cut instead.
        if outlet.transport is not None:
            outlet.transport.abort()
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


def let_go(error: BaseException | None) -> None:
    """Have what led to an error forget what it was about: a task, what it waits for and its error hold each other.

    Until the collector looks for them, which may be long, they would keep the pieces that were to be sent.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
