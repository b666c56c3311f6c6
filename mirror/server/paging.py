"""Pages of tag lists and catalogue (distribution-spec 1.1, "Listing Tags"): `n`, `last`, Link."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from mirror.oci.errors import Unsupported
from mirror.server.route import Route

MAX_N = 10_000


@dataclass(frozen=True, slots=True)
class Page:
    """What a request asks for: at most `n` entries after `last`; None: all of them."""

    n: int | None
    last: str


def read_page(route: Route) -> Page:
    """The page that the query asks for. Raises Unsupported, naming the parameter, where it makes no sense."""
    counts, lasts = set(route.values("n")), set(route.values("last"))
    if len(lasts) > 1 or len(counts) > 1:
        parameter = "last" if len(lasts) > 1 else "n"
        raise Unsupported({"parameter": parameter, "reason": "given more than once"})
    n = None
    if counts:
        text = counts.pop()
        if not (text.isascii() and text.isdigit()):
            raise Unsupported({"parameter": "n", "found": text[:100], "expected": "a number of entries, 0 or more"})
        # Reading a number takes the square of its digits in time.
        n = min(int(text.lstrip("0")[:20] or "0"), MAX_N)
    # `+` stands for a space in queries, but no name or tag has a space, and tags of local content may have a `+`.
    return Page(n, lasts.pop().replace(" ", "+") if lasts else "")


def next_link(route: Route, changes: Mapping[str, str]) -> dict[str, str]:
    """The Link to the next page: path-absolute, other parameters kept (RFC 8288)."""
    kept = [(key, value) for key, value in route.query if key not in changes]
    query = urlencode([*kept, *changes.items()], quote_via=quote, safe="/:")
    return {"Link": f'<{quote(route.path, safe="/%:+~")}?{query}>; rel="next"'}
