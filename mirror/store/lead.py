"""Filling a blob: what the one process does that holds the part's lock; or what each does where nothing is stored."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from mirror.oci.errors import Unavailable
from mirror.store.feed import Feed, WrongContent
from mirror.store.job import Job
from mirror.store.parts import Known, Part, Role
from mirror.store.progress import VERIFY_FIRST_BYTES
from mirror.store.pump import Pump, StorageFailed
from mirror.store.threads import to_the_end

log = logging.getLogger(__name__)

# Fresh tries for a small blob whose bytes came wrong, before anybody is told.
_FRESH_TRIES = 2

Chunks = AsyncGenerator[bytes, None]


async def lead(job: Job, part: Part) -> bool:
    """Fill the part that this process has locked, from the bytes held on; False: begin again.

    Raises WrongContent, the part being dropped then, or the supplier's error, the part being left for later.
    """
    try:
        stock = await to_the_end(partial(_take_stock, job, part))
        size = job.expected_size if job.expected_size is not None else stock.known.size
        if size is not None and stock.held and stock.held >= size:
            return await _judge(job, part, stock.held == size)
        await _fetch(job, part, size, stock)
    except WrongContent:
        job.doubt()
        await to_the_end(part.drop)
        raise
    finally:
        await to_the_end(part.let_go)
    return True


async def pass_through(job: Job) -> None:
    """Without a part: see whether there is such a blob, and how large; readers then get it for themselves."""
    feed = job.feed(job.expected_size)
    async with aclosing(feed.chunks(0)) as chunks:
        if _is_small(job.expected_size) or _is_small(await _answered(feed, chunks)):
            await _collect(job, None, b"", chunks)
            return
    if feed.size is None:
        raise Unavailable("the blob cannot be stored, and its upstream does not tell its size")
    job.counters.passed_through += 1
    job.progress.pass_on(job.digest.hasher(), 0)


async def _fetch(job: Job, part: Part, size: int | None, stock: "_Stock") -> None:
    feed = job.feed(size, stock.known.mark)
    async with aclosing(feed.chunks(stock.held)) as chunks:
        if _is_small(size) or _is_small(await _answered(feed, chunks)):
            before = await asyncio.to_thread(os.pread, part.fd, stock.held, 0)
            await _collect(job, part, before, chunks)
        elif _fits(job, feed.size, stock):
            await _pour(job, part, Known(feed.size, feed.mark), chunks)
        else:
            log.warning("blob %s (%s bytes) does not fit and is passed through", job.digest, feed.size)
            await job.give_up_storing(part)


def _is_small(size: int | None) -> bool:
    return size is not None and size <= VERIFY_FIRST_BYTES


async def _answered(feed: Feed, chunks: Chunks) -> int | None:
    """The blob's size in bytes, where the first answer (or who asked) told it."""
    await anext(chunks)
    return feed.size


class _Stock(NamedTuple):
    """How many bytes are held of a part, what is known of its blob, and how many bytes the disk has free."""

    held: int
    known: Known
    free_bytes: int


def _take_stock(job: Job, part: Part) -> _Stock:
    known = part.known()
    part.forget()  # the next one is a sign to other processes that an upstream answers this one
    try:
        free_bytes = job.files.free_bytes()
    except OSError:  # it cannot tell; whether it takes them is seen
        free_bytes = sys.maxsize
    return _Stock(part.size(), known, free_bytes)


def _fits(job: Job, size: int | None, stock: _Stock) -> bool:
    if size is None:
        return True
    limit = job.limits.max_blob_bytes
    return (limit is None or size <= limit) and size - stock.held <= stock.free_bytes


async def _judge(job: Job, part: Part, right_size: bool) -> bool:
    """A part that has all its bytes already: its process died before the verdict. False: it was wrong."""
    try:
        if not right_size:
            raise WrongContent({"digest": job.digest, "reason": "the part found is longer than the blob"})
        await _pour(job, part, Known(), None)
    except WrongContent:
        if job.progress.is_begun:
            raise
        await to_the_end(part.drop)
        return False
    return True


async def _pour(job: Job, part: Part, known: Known, chunks: Chunks | None) -> None:
    """Everything through the pump: to the disk, into the hash, to the readers."""
    held = part.size()
    pump = Pump(part.fd, job.digest.hasher(), held, job.grow)
    try:
        pump.post(partial(part.tell, known))
        pump.post(pump.rehash)
        job.grow(held)
        if chunks is not None:
            await _put_all(job, pump, known, chunks)
        if not await pump.call(partial(_verdict, job, pump, part)):
            raise WrongContent({"digest": job.digest, "reason": "the hash differs"})
        job.progress.complete(pump.written)
        await job.publish(pump.call(part.publish), part)
    except StorageFailed as error:
        log.warning("blob %s cannot be stored: %s; it is passed through", job.digest, error)
        await pump.close()
        job.progress.grow(pump.written)
        await job.give_up_storing(part, pump.hasher if pump.hashed == pump.written else None)
    finally:
        await pump.close()
        job.counters.written_bytes += pump.written - held


async def _put_all(job: Job, pump: Pump, known: Known, chunks: Chunks) -> None:
    """Raises StorageFailed; WrongContent for a blob without a known size that does not end."""
    limit = job.limits.max_blob_bytes
    async for chunk in chunks:
        if known.size is None and limit is not None and pump.written > limit:
            raise WrongContent({"digest": job.digest, "reason": f"more than the {limit} bytes that are kept"})
        await pump.put(chunk)


def _verdict(job: Job, pump: Pump, part: Part) -> bool:
    right: bool = pump.hasher.hexdigest() == job.digest.hex
    if right:
        part.mark_verified()
    return right


async def _collect(job: Job, part: Part | None, before: bytes, chunks: Chunks) -> None:
    """A small blob: all of it in memory, checked before anybody sees a byte, asked for again where wrong."""
    for tries_left in range(_FRESH_TRIES, -1, -1):
        try:
            content = await _read_right(job, before, chunks)
            break
        except WrongContent as error:
            if not tries_left:
                raise
            log.warning("blob %s: %s; asking again", job.digest, error)
            job.doubt()
            before, chunks = b"", job.feed(job.expected_size).chunks(0)
    job.progress.complete(len(content), content)
    if part is not None:
        await job.publish(to_the_end(partial(_store, part, content)), part)
        if part.role is Role.PUBLISHED:
            job.progress.content = None  # readers find it in the file: memory is for those on their way only
        job.counters.written_bytes += len(content)


async def _read_right(job: Job, before: bytes, chunks: Chunks) -> bytes:
    content = bytearray(before)
    async with aclosing(chunks):
        async for chunk in chunks:
            content += chunk
            if len(content) > VERIFY_FIRST_BYTES:
                raise WrongContent({"digest": job.digest, "reason": "more bytes than told before"})
    whole = bytes(content)
    if not await asyncio.to_thread(job.digest.matches, whole):
        raise WrongContent({"digest": job.digest, "reason": "the hash differs"})
    return whole


def _store(part: Part, content: bytes) -> None:
    part.write(content)
    part.mark_verified()
    part.publish()
