"""`/v2/_catalog?n=&last=`: every repository that may be read here."""

from bisect import bisect_right
from collections.abc import Sequence

from mirror.oci.names import Host, Name
from mirror.server.answer import Answer, json_answer
from mirror.server.paging import next_link, read_page
from mirror.server.route import Route

INCOMPLETE = {"Warning": '299 - "the first scan has not ended: this list is incomplete"'}


def catalog(route: Route, host: Host | None, names: Sequence[Name], complete: bool) -> Answer:
    """A page of canonical names; with a host chosen, that host's names without it. `names` are in their order."""
    page = read_page(route)
    listed = [name.repository for name in names if name.host == host] if host else [str(name) for name in names]
    start = bisect_right(listed, page.last) if page.last else 0
    shown = listed[start : None if page.n is None else start + page.n]
    headers = {"Cache-Status": "mirror; hit", **({} if complete else INCOMPLETE)}
    if page.n and start + page.n < len(listed):
        headers |= next_link(route, {"n": str(page.n), "last": shown[-1]})
    return json_answer(200, {"repositories": shown}, headers)
