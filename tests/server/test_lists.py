"""distribution-spec 1.1, workflow category "Content Discovery": tags; the catalogue of the extensions before it."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.content import LayoutWriter
from tests.oci.strategies import tags as spec_tags
from tests.server.conftest import NAME, Sample
from tests.serving import Mirror, serving

TAGS = f"/v2/{NAME}/tags/list"
_LINK = re.compile(r'<([^>]*)>; rel="next"')


async def walk(mirror: Mirror, target: str, key: str) -> list[list[str]]:
    """Every page, following Link as it is written (RFC 8288: resolved against the request's own URL)."""
    pages: list[list[str]] = []
    while True:
        answer = await mirror.get(target)
        assert answer.status == 200, answer.body
        pages.append(answer.json()[key])
        link = answer.headers.get("Link")
        if link is None:
            return pages
        assert len(pages) < 1000
        match = _LINK.fullmatch(link)
        assert match is not None, link
        target = match[1]
        assert target.startswith("/"), "path-absolute"
        assert re.fullmatch(r"[!-~]*", target), "percent-encoded"


async def test_tags_are_listed_in_ascii_order(mirror: Mirror, sample: Sample) -> None:
    """ "Listing Tags": 200, `name` and `tags`, lexical order."""
    answer = await mirror.get(TAGS)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"name": NAME, "tags": sorted(sample.tags)}
    assert "Link" not in answer.headers
    headed = await mirror.head(TAGS)
    assert (headed.status, headed.headers["Content-Length"]) == (200, str(len(answer.body)))


@pytest.mark.parametrize(
    ("query", "expected", "more"),
    [
        ("n=2", slice(0, 2), True),
        ("n=7", slice(0, 7), False),
        ("n=6", slice(0, 6), True),
        ("n=8", slice(0, 7), False),
        ("n=0", slice(0, 0), False),
        ("n=0&last=1.0", slice(0, 0), False),
        ("n=10000", slice(0, 7), False),
        ("n=10001", slice(0, 7), False),
        ("n=" + "9" * 3000, slice(0, 7), False),
        ("n=" + "0" * 30 + "2", slice(0, 2), True),
        ("last=docker", slice(4, 7), False),
        ("last=dockes", slice(4, 7), False),
        ("n=1&last=docker", slice(4, 5), True),
        ("last=zzz", slice(7, 7), False),
        ("n=3&last=zzz", slice(7, 7), False),
        ("last=", slice(0, 7), False),
        ("n=2&unknown=1", slice(0, 2), True),
        ("last=1.1.0%2Boci&n=1", slice(2, 3), True),
        ("last=1.1.0+oci&n=1", slice(2, 3), True),
        ("last=%FF%00", slice(7, 7), False),
    ],
)
async def test_pages_of_tags(mirror: Mirror, sample: Sample, query: str, expected: slice, more: bool) -> None:
    """ "Listing Tags": at most `n` behind `last`, which is exclusive and need not exist; Link where more follow."""
    answer = await mirror.get(f"{TAGS}?{query}")
    assert answer.status == 200
    assert answer.json() == {"name": NAME, "tags": sorted(sample.tags)[expected]}
    assert ("Link" in answer.headers) == more


@pytest.mark.parametrize("target", [TAGS, "/v2/_catalog"])
@pytest.mark.parametrize("query", ["n=-1", "n=x", "n=", "n=1.5", "n=%D9%A5", "n=1&n=2", "last=a&last=b", "n=0x5"])
async def test_a_bad_parameter_is_named(mirror: Mirror, target: str, query: str) -> None:
    """The design: 400 UNSUPPORTED with `detail` naming the parameter."""
    answer = await mirror.get(f"{target}?{query}")
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert answer.json()["errors"][0]["detail"]["parameter"] == query.partition("=")[0]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
async def test_walking_links_gives_every_tag_once(mirror: Mirror, sample: Sample, n: int) -> None:
    """ "Listing Tags": the Link is followed until there is none; tags with `+` on the way included."""
    pages = await walk(mirror, f"{TAGS}?n={n}", "tags")
    assert [tag for page in pages for tag in page] == sorted(sample.tags)
    assert all(len(page) == n for page in pages[:-1])


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/v2/{}/tags/list?ns=quay.io", "team/app"),
        ("/v2/{}/tags/list?oci-ref-name=quay.io%2Fteam%2Fapp", "team/app"),
        ("/v2/app/tags/list?oci-ref-name=quay.io/team/app:1.0", "app"),
        ("/v2/quay.io/{}/tags/list?x=%26%3D%22%3E%20%C3%A4", "quay.io/team/app"),
        ("/quay.io/v2/{}/tags/list?", "team/app"),
        ("/QUAY.io/v2/{}/%74ags/list?", "team/app"),
    ],
)
async def test_links_keep_the_host_and_all_other_parameters(tmp_path: Path, target: str, name: str) -> None:
    """The design: Link keeps `ns`, `oci-ref-name` and the path's host; `name` echoes the path's name."""
    writer = LayoutWriter(tmp_path / "layouts" / "quay.io" / "team" / "app")
    tags = ["1.1.0+oci", "a", "b", "c"]
    for tag in tags:
        writer.tag(writer.image(), tag)
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        first = target.format("team/app") + "&n=1"
        assert (await mirror.get(first)).json()["name"] == name
        assert await walk(mirror, first, "tags") == [[tag] for tag in tags]


async def test_pages_have_at_most_10_000_entries_and_the_whole_list_all(tmp_path: Path) -> None:
    """The design: `n` above 10,000 counts as 10,000; without `n` the whole list."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    image = writer.image()
    tags = [f"{number:05}" for number in range(10_001)]
    for tag in tags:
        writer.tag(image, tag)
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == tags
        for n in (10_000, 10_001, 1_000_000):
            assert await walk(mirror, f"{TAGS}?n={n}", "tags") == [tags[:10_000], tags[10_000:]]


local_tags = spec_tags.map(lambda tag: tag[:100]) | st.tuples(spec_tags, spec_tags).map(
    lambda drawn: f"{drawn[0][:50]}+{drawn[1][:50]}"
)


@given(st.lists(local_tags, max_size=12, unique=True), st.integers(1, 7), st.text(max_size=3))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_pages_of_any_tags_join_to_the_sorted_list(tags: Sequence[str], n: int, last: str) -> None:
    """ "Listing Tags", for any set of tags, any size of page and any `last`."""

    async def check() -> None:
        with TemporaryDirectory() as folder:
            root = Path(folder)
            writer = LayoutWriter(root / "layouts" / NAME)
            for tag in tags:
                writer.tag(writer.image(), tag)
            # Something without a tag, so that the repository exists.
            writer.add(writer.image([b"untagged"])).save()
            async with serving(root / "mirror", layouts=[root / "layouts"]) as mirror:
                pages = await walk(mirror, f"{TAGS}?n={n}", "tags")
                assert pages == [sorted(tags)[start : start + n] for start in range(0, len(tags) or 1, n)]
                behind = await mirror.get(f"{TAGS}?last={quote(last, safe='')}")
                # No tag has a space: in a query it stands for the `+` that a client did not encode.
                assert behind.json()["tags"] == [tag for tag in sorted(tags) if tag > last.replace(" ", "+")]

    asyncio.run(check())


NAMES = ["alpha/one", "docker.io/library/nginx", "quay.io/team/app", "quay.io/team/web", "zeta"]


@pytest.fixture
def many(tmp_path: Path) -> dict[str, Any]:
    for name in NAMES:
        writer = LayoutWriter(tmp_path / "layouts" / name)
        writer.tag(writer.image(), "1").save()
    return {"layouts": [tmp_path / "layouts"]}


async def test_the_catalogue_lists_canonical_names_in_pages(many: dict[str, Any], tmp_path: Path) -> None:
    """`_catalog` as the Docker registry's API had it: `repositories`, `n`, `last`, Link."""
    async with serving(tmp_path / "mirror", **many) as mirror:
        answer = await mirror.get("/v2/_catalog")
        assert (answer.status, answer.json()) == (200, {"repositories": NAMES})
        assert "Warning" not in answer.headers
        assert (await mirror.get("/v2/_catalog?n=0")).json() == {"repositories": []}
        assert (await mirror.get("/v2/_catalog?last=docker.io/m")).json() == {"repositories": NAMES[2:]}
        for n in (1, 2, 5, 9):
            pages = await walk(mirror, f"/v2/_catalog?n={n}", "repositories")
            assert pages == [NAMES[start : start + n] for start in range(0, len(NAMES), n)]


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/v2/_catalog?ns=quay.io&n=1", {}, (["team/app", "team/web"], "quay.io")),
        ("/quay.io/v2/_catalog?n=1", {}, (["team/app", "team/web"], None)),
        ("/v2/_catalog?n=1&ns=index.docker.io", {}, (["library/nginx"], "docker.io")),
        ("/v2/_catalog?oci-ref-name=quay.io/any/thing", {}, (["team/app", "team/web"], "quay.io")),
        ("/v2/_catalog?ns=ghcr.io", {}, ([], "ghcr.io")),
        ("/v2/_catalog", {"OCI-REF-NAME": "quay.io/team/app"}, (["team/app", "team/web"], "quay.io")),
    ],
)
async def test_the_catalogue_of_a_chosen_host(
    many: dict[str, Any],
    tmp_path: Path,
    target: str,
    headers: dict[str, str],
    expected: tuple[list[str], str | None],
) -> None:
    """The design: with a host chosen, that host's names without it."""
    names, namespace = expected
    async with serving(tmp_path / "mirror", **many) as mirror:
        answer = await mirror.get(target, headers)
        assert answer.headers.get("OCI-Namespace") == namespace
        if headers:
            assert answer.json() == {"repositories": names}
        else:
            pages = await walk(mirror, target, "repositories")
            assert [name for page in pages for name in page] == names
