"""`/v2/<name>/tags/list?n=&last=`."""

from mirror.server.answer import Answer, json_answer, origin_headers
from mirror.server.ask import Ask
from mirror.server.paging import next_link, read_page
from mirror.sources.source import Origin


async def tags(ask: Ask) -> tuple[Answer, Origin]:
    """A page of tags in ASCII order; the name is the path's own (distribution-spec 1.1, "Listing Tags")."""
    page = read_page(ask.route)
    # One more than asked for tells whether there is a next page.
    found = await ask.source.tags(ask.name, page.last, None if page.n is None else page.n + 1)
    listed = list(found.value if page.n is None else found.value[: page.n])
    headers = origin_headers(found.origin)
    if page.n and len(found.value) > page.n:
        headers |= next_link(ask.route, {"n": str(page.n), "last": listed[-1]})
    return json_answer(200, {"name": ask.route.name, "tags": listed}, headers), found.origin
