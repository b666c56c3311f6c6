from contextlib import aclosing

import pytest

from mirror.oci.errors import BadGateway, Denied, GatewayTimeout, OciError, Unavailable
from mirror.store.feed import Feed, Mark, Patience, WrongContent
from tests.store.supplier import Answer, Supplier, make_content

CONTENT = make_content(10_000)
QUICK = Patience(attempts=3, first_pause_seconds=0.001)
DOWN = Answer(error=BadGateway("down"))


async def read(feed: Feed, position: int = 0) -> bytes:
    async with aclosing(feed.chunks(position)) as chunks:
        return b"".join([chunk async for chunk in chunks])


def feed_of(*suppliers: Supplier, begun: bool = False, mark: Mark | None = None, size: int | None = None) -> Feed:
    named = {f"s{number}": supplier.fetch for number, supplier in enumerate(suppliers)}
    return Feed(suppliers[0].digest, named, QUICK, begun=begun, mark=mark, size=size)


async def test_before_any_answer_each_supplier_is_asked_once() -> None:
    first, second = Supplier(CONTENT, [DOWN] * 9), Supplier(CONTENT, [Answer(error=GatewayTimeout("late"))] * 9)
    with pytest.raises(GatewayTimeout):
        await read(feed_of(first, second))
    assert len(first.asked) == len(second.asked) == 1


async def test_after_an_answer_attempts_without_a_byte_are_bounded() -> None:
    supplier = Supplier(CONTENT, [Answer(cut_after=5000), DOWN, DOWN, DOWN, DOWN])
    with pytest.raises(BadGateway):
        await read(feed_of(supplier))
    assert [offset for offset, _ in supplier.asked] == [0, 5000, 0]  # the last one does not rely on Range


async def test_each_byte_won_begins_the_count_anew() -> None:
    supplier = Supplier(CONTENT, [Answer(cut_after=cut) for cut in range(1, 40)])
    assert await read(feed_of(supplier)) == CONTENT
    assert len(supplier.asked) == 40


async def test_server_that_ignores_range_is_read_from_where_it_counts() -> None:
    supplier = Supplier(CONTENT, [Answer(ignores_range=True, cut_after=9000), Answer(ignores_range=True)], 1000)
    assert await read(feed_of(supplier, begun=True), 1500) == CONTENT[1500:]


async def test_etag_goes_only_to_who_gave_it() -> None:
    first, second = Supplier(CONTENT, [Answer(cut_after=4000), DOWN]), Supplier(CONTENT, [Answer(cut_after=6000)])
    assert await read(feed_of(first, second, mark=Mark("s0", '"old"')), 1000) == CONTENT[1000:]
    assert first.asked == [(1000, '"old"'), (6000, '"old"')]
    assert second.asked == [(4000, None), (0, None)]


async def test_supplier_with_another_size_is_left_for_the_next() -> None:
    wrong, right = Supplier(CONTENT, [Answer(content=CONTENT[1:])] * 3), Supplier(CONTENT)
    assert await read(feed_of(wrong, right, size=len(CONTENT))) == CONTENT
    assert len(wrong.asked) == 1


@pytest.mark.parametrize("error", [Denied("no"), Unavailable("later", retry_after_seconds=3600)])
async def test_who_refuses_is_not_asked_again(error: OciError) -> None:
    supplier = Supplier(CONTENT, [Answer(cut_after=10), Answer(error=error)])
    with pytest.raises(type(error)):
        await read(feed_of(supplier))
    assert len(supplier.asked) == 2


async def test_part_longer_than_the_blob_is_wrong() -> None:
    with pytest.raises(WrongContent):
        await read(feed_of(Supplier(CONTENT, [Answer(ignores_range=True)])), len(CONTENT) + 1)


async def test_answer_is_closed_when_the_reader_leaves() -> None:
    supplier = Supplier(CONTENT, chunk_bytes=100)
    async with aclosing(feed_of(supplier).chunks(0)) as chunks:
        async for chunk in chunks:
            if chunk:
                break
    assert supplier.open_answers == 0
