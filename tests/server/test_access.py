"""A rule that hides a repository hides it everywhere: the answers are those of a mirror that does not have it."""

import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci.names import Name
from mirror.server.access import Identity
from tests.content import LayoutWriter
from tests.hub import Hub
from tests.serving import Mirror, serving

SECRET = "secret"


@dataclass(frozen=True)
class Hiding:
    """Nobody may read what has `secret` in its name."""

    def may_read(self, identity: Identity, name: Name) -> bool:
        return SECRET not in name.repository

    def may_read_all(self, identity: Identity) -> bool:
        return False


@pytest.fixture
async def mirror(hub: Hub, tmp_path: Path) -> AsyncIterator[Mirror]:
    """Local and cached content, of which half is hidden; it was pulled while it was not."""
    for name in ("open/app", "team/secret"):
        writer = LayoutWriter(tmp_path / "layouts" / name)
        image = writer.image([name.encode()])
        writer.tag(image, "1").add(writer.attachment(name.encode(), "application/spdx+json", image)).save()
    config = {"default_host": None, "upstreams": {hub.host: {"endpoints": [hub.url]}}}
    hub.image("open/cached", "1")
    hub.image("secret/cached", "1")
    async with serving(tmp_path / "mirror", config, layouts=[tmp_path / "layouts"]) as before:
        for name in ("open", "secret"):
            assert (await before.get(f"/v2/{hub.host}/{name}/cached/manifests/1")).status == 200
    async with serving(tmp_path / "mirror", config, layouts=[tmp_path / "layouts"], access=Hiding()) as running:
        yield running


async def test_a_hidden_repository_is_in_no_list_and_in_no_count(mirror: Mirror, hub: Hub) -> None:
    for target in ("/v2/_catalog", f"/v2/_catalog?ns={hub.host}", "/v2/_catalog?n=1000"):
        answer = await mirror.get(target)
        assert (answer.status, b"secret" in answer.body, b"open" in answer.body) == (200, False, True)
    for query in ("", "q=*", "kind=repository", "kind=version", "type=sbom", "sort=size&order=desc", "n=1"):
        answer = await mirror.get(f"/v2/_mirror/search?{query}")
        assert (answer.status, b"secret" in answer.body) == (200, False)
        names = {"open/app", f"{hub.host}/open/cached"}
        assert {item["name"] for item in answer.json()["items"]} <= names
    whole = (await mirror.get("/v2/_mirror/search")).json()
    assert whole["total"] == len(whole["items"]) == 3
    assert (await mirror.get("/v2/_mirror/search?kind=repository")).json()["total"] == 2
    hidden = (await mirror.get("/v2/_mirror/search?q=secret")).json()
    assert hidden == {"total": 0, "items": []}
    for path in ("/v2/_mirror/features", "/v2/_oci/ext/discover", "/readyz"):
        assert b"secret" not in (await mirror.get(path)).body


@pytest.mark.parametrize(
    "target",
    [
        "/v2/_catalog",
        *("/v2/_mirror/search", "/v2/_mirror/search?sort=size&kind=version"),
        *("/v2/_mirror/search?kind=repository", "/v2/_mirror/search?kind=repository&sort=size&order=desc"),
    ],
)
async def test_no_link_to_a_next_page_tells_of_it(mirror: Mirror, target: str) -> None:
    """A link holds where its page ended; it leads past what is hidden, and is not there when only that is left."""
    following: str | None = f"{target}{'&' if '?' in target else '?'}n=1"
    found, pages = 0, 0
    while following is not None:
        answer = await mirror.get(following)
        ((_, entries),) = [one for one in answer.json().items() if one[0] != "total"]
        found, pages = found + len(entries), pages + 1
        link = answer.headers.get("Link")
        cursor = re.search(r"cursor=([^>&]*)", link or "")
        told = base64.urlsafe_b64decode(f"{cursor[1]}===") if cursor else b""
        assert SECRET not in f"{link}{told!r}{answer.body!r}"
        following = link.partition(">")[0].removeprefix("<") if link else None
    assert found == pages > 1


async def test_numbers_do_not_name_it(mirror: Mirror, hub: Hub) -> None:
    for name in ("team/secret", f"{hub.host}/secret/cached", "open/app"):
        await mirror.get(f"/v2/{name}/tags/list")
    answer = await mirror.get("/metrics")
    assert (answer.status, b"mirror_" in answer.body, b"secret" in answer.body) == (200, True, False)


async def test_a_hidden_repository_answers_as_one_that_is_not_there(mirror: Mirror, hub: Hub, tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "again")
    image = writer.image([b"team/secret"])
    layer = writer.blob(b"team/secret")
    requests = hub.count()
    for hidden, absent in (("team/secret", "team/absent"), (f"{hub.host}/secret/cached", "team/absent")):
        for rest in (
            *("tags/list", "manifests/1", f"manifests/{image.digest}", f"manifests/{image.digest.fallback_tag}"),
            *(f"blobs/{layer.digest}", f"referrers/{image.digest}", "_oci/ext/discover"),
        ):
            for method in ("GET", "HEAD"):
                got = await mirror.request(method, f"/v2/{hidden}/{rest}")
                wanted = await mirror.request(method, f"/v2/{absent}/{rest}")
                assert (got.status, wanted.status) == (404, 404), rest
                assert got.body.replace(hidden.encode(), absent.encode()) == wanted.body
    assert hub.count() == requests, "its upstream was asked for it"
    assert (await mirror.get(f"/v2/open/app/blobs/{layer.digest}")).status == 404
    assert (await mirror.get("/v2/open/app/tags/list")).json()["tags"] == ["1"]
