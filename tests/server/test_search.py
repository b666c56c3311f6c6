"""`/v2/_mirror/search` over local and cached content, as it comes and goes."""

import asyncio
import base64
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.times import parse_time_ms
from tests.content import LINUX_AMD64, LINUX_ARM64, LayoutWriter
from tests.hub.fixtures import Hubs
from tests.serving import DEADLINE_SECONDS, Mirror, serving

SEARCH = "/v2/_mirror/search"
HELM = "application/vnd.cncf.helm.config.v1+json"
SPDX = "application/spdx+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
CREATED = {"org.opencontainers.image.created": "2024-05-06T07:08:09+02:00"}


async def search(mirror: Mirror, query: str = "") -> dict[str, Any]:
    answer = await mirror.get(f"{SEARCH}?{query}" if query else SEARCH)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json"), answer.body
    assert "Warning" not in answer.headers
    found: dict[str, Any] = answer.json()
    assert set(found) == {"total", "items"}
    return found


async def becomes(mirror: Mirror, query: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first answer for which the condition holds: the index follows what changes."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition(found := await search(mirror, query)):  # noqa: ASYNC110 there is no event for it
            await asyncio.sleep(0.05)
    return found


def write_layout(root: Path) -> dict[str, Any]:
    """`team/app` with an image for two platforms, an SBOM and a signature of it, a chart; `old` of Docker's kind."""
    writer = LayoutWriter(root / "team" / "app")
    amd = writer.image([b"amd"], platform=LINUX_AMD64)
    arm = writer.image([b"arm"], platform=LINUX_ARM64)
    index = writer.index([amd, arm], annotations=CREATED)
    chart = writer.image([b"chart"], config={}, config_type=HELM, annotations={"team": "blue"})
    sbom = writer.attachment(b"{}", SPDX, index)
    signature = writer.image([b"signed"], layer_type=SIMPLE_SIGNING)
    writer.tag(index, "1.0").tag(chart, "chart-0.1").tag(signature, f"{index.digest.fallback_tag}.sig")
    writer.add(sbom).save()
    old = LayoutWriter(root / "old")
    old.tag(old.image([b"docker"], docker=True), "1").save()
    return {"amd": amd, "arm": arm, "index": index, "chart": chart, "sbom": sbom, "signature": signature}


async def test_local_content_is_found_by_what_it_is(tmp_path: Path) -> None:
    written = write_layout(tmp_path / "layouts")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        everything = await search(mirror)
        assert everything["total"] == len(everything["items"]) == 7
        (item,) = (await search(mirror, "q=team/app:1.0"))["items"]
        first_seen = item.pop("first_seen")
        assert parse_time_ms(first_seen) is not None
        size = item.pop("size")
        assert size > written["index"].size + written["amd"].size + written["arm"].size
        assert item == {
            "name": "team/app",
            "tag": "1.0",
            "digest": written["index"].digest,
            "mediaType": media_types.OCI_INDEX,
            "artifactType": None,
            "type": "oci-image",
            "platforms": ["linux/amd64", "linux/arm64/v8"],
            "created": "2024-05-06T05:08:09Z",
            "annotations": CREATED,
        }
        for query, wanted in {
            "type=helm-chart": ["chart"],
            f"type={HELM}": ["chart"],
            "type=sbom": ["sbom"],
            f"type={SPDX}": ["sbom"],
            "type=signature": ["signature"],
            "kind=artifact&sort=size": ["chart", "sbom", "signature"],
            "annotation=team=blue": ["chart"],
            f"digest={written['arm'].digest}": ["arm"],
            "platform=linux/arm64&kind=version": ["index"],
            "created_since=2024-05-06T05:08:09Z&created_until=2024-05-06T05:08:10Z": ["index"],
            f"until={first_seen}&digest={written['index'].digest}": [],
            f"since={first_seen}&digest={written['index'].digest}": ["index"],
        }.items():
            found = await search(mirror, query)
            digests = {item["digest"] for item in found["items"]}
            assert digests == {written[key].digest for key in wanted}, query
            assert found["total"] == len(found["items"])
        repositories = await search(mirror, "kind=repository")
        assert [item["name"] for item in repositories["items"]] == ["old", "team/app"]
        assert (await search(mirror, "type=docker-image"))["items"][0]["name"] == "old"


async def test_pages_are_linked_and_keep_their_search(tmp_path: Path) -> None:
    write_layout(tmp_path / "layouts")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        whole = [item["digest"] for item in (await search(mirror, "sort=version&order=desc"))["items"]]
        target: str | None = f"{SEARCH}?sort=version&order=desc&n=2"
        found, pages = [], 0
        while target is not None:
            answer = await mirror.get(target)
            assert answer.json()["total"] == 7
            found += [item["digest"] for item in answer.json()["items"]]
            link = re.fullmatch(r'<(/v2/_mirror/search\?[^>]+)>; rel="next"', answer.headers.get("Link", ""))
            target, pages = (link[1] if link else None), pages + 1
        assert (found, pages) == (whole, 4)
        none = await mirror.get(f"{SEARCH}?n=0")
        assert (none.json(), "Link" in none.headers) == ({"total": 7, "items": []}, False)
        assert (await search(mirror, "n=99999999999999999999999"))["total"] == 7


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (f"{SEARCH}?n=1&ns=quay.io&q=%2Fapp", f"{SEARCH}?n=1&ns=quay.io&q=/app&cursor="),
        (f"{SEARCH}?oci-ref-name=quay.io/a&n=1", f"{SEARCH}?oci-ref-name=quay.io/a&n=1&cursor="),
        (f"/quay.io{SEARCH}?n=1&annotation=a%26b=c", f"/quay.io{SEARCH}?n=1&annotation=a%26b%3Dc&cursor="),
    ],
)
async def test_a_link_keeps_how_the_mirror_was_asked(tmp_path: Path, target: str, kept: str) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    image = writer.image(annotations={"a&b": "c"})
    writer.tag(image, "1").tag(image, "2").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        first = await mirror.get(target)
        link = first.headers["Link"]
        assert link.startswith(f"<{kept}")
        second = await mirror.get(link.partition(">")[0].removeprefix("<"))
        assert [one.json()["items"][0]["tag"] for one in (first, second)] == ["1", "2"]


async def test_a_page_ends_before_long_annotations_make_it_endless(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    for number in range(5):
        writer.tag(writer.image([b"%d" % number], annotations={"long": f"{number}" * 1_500_000}), str(number))
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        following, pages = SEARCH, []
        while following:
            answer = await mirror.get(following)
            assert (answer.status, answer.json()["total"], len(answer.body) < 5_000_000) == (200, 5, True)
            pages.append([item["tag"] for item in answer.json()["items"]])
            following = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert pages == [["0", "1"], ["2", "3"], ["4"]]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        *(("q=%00", "q"), ("q=" + "x" * 600, "q"), ("kind=thing", "kind"), ("kind=", "kind"), ("type=elf", "type")),
        *(("type=", "type"), ("platform=linux", "platform"), ("platform=a/b/c/d", "platform")),
        *(("annotation=team", "annotation"), ("annotation==x", "annotation"), ("digest=sha256:ab", "digest")),
        *(("since=yesterday", "since"), ("since=2024-01-01", "since"), ("until=2024-13-01T00:00:00Z", "until")),
        *(("created_since=0000-01-01T00:00:00Z", "created_since"), ("created_until=", "created_until")),
        *(("sort=age", "sort"), ("order=up", "order"), ("n=-1", "n"), ("n=x", "n"), ("n=%C2%B2", "n")),
        *(("cursor=x", "cursor"), ("cursor=", "cursor"), ("cursor=WzEsMl0", "cursor"), ("cursor=%ff", "cursor")),
        *(("n=1&n=2", "n"), ("sicne=2024-01-01T00:00:00Z", "sicne")),
    ],
)
async def test_a_bad_parameter_is_named(mirror: Mirror, query: str, parameter: str) -> None:
    answer = await mirror.get(f"{SEARCH}?{query}")
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert answer.json()["errors"][0]["detail"]["parameter"] == parameter


async def test_a_cursor_of_another_search_is_refused(mirror: Mirror) -> None:
    answer = await mirror.get(f"{SEARCH}?n=1")
    cursor = re.search(r"cursor=([^>]*)>", answer.headers["Link"])
    assert cursor is not None
    assert (await mirror.get(f"{SEARCH}?n=5&cursor={cursor[1]}")).status == 200
    refused = await mirror.get(f"{SEARCH}?n=1&sort=size&cursor={cursor[1]}")
    assert refused.json()["errors"][0]["detail"]["parameter"] == "cursor"


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        *(("date", [2**70, "a", "", ""]), ("size", [-(2**70), "a", "", ""]), ("date", [1.5, "a", "", ""])),
        *(("name", ["\ud800", "", ""]), ("name", ["a", None, ""]), ("name", ["a", ""]), ("name", [{}, "", ""])),
    ],
)
async def test_a_forged_cursor_is_refused_by_name(mirror: Mirror, sort: str, key: list[Any]) -> None:
    """What belongs to the search is no secret; what follows it may be anything."""
    answer = await mirror.get(f"{SEARCH}?sort={sort}&n=1")
    cursor = re.search(r"cursor=([^>]*)>", answer.headers["Link"])
    assert cursor is not None
    fingerprint, *_ = json.loads(base64.urlsafe_b64decode(f"{cursor[1]}==="))
    text = json.dumps([fingerprint, *key], separators=(",", ":")).encode()
    forged = base64.urlsafe_b64encode(text).decode().rstrip("=")
    refused = await mirror.get(f"{SEARCH}?sort={sort}&n=1&cursor={forged}")
    assert (refused.status, refused.code) == (400, "UNSUPPORTED")
    assert refused.json()["errors"][0]["detail"]["parameter"] == "cursor"


async def test_what_is_pulled_through_is_found_since_when_it_was_fetched(hubs: Hubs, tmp_path: Path) -> None:
    hub = await hubs()
    index = hub.multi_platform("team/app", "1.0")
    hub.image("team/app", "not-pulled")
    config = {"default_host": None, "upstreams": {hub.host: {"endpoints": [hub.url]}}}
    async with serving(tmp_path / "mirror", config) as mirror:
        assert (await search(mirror))["total"] == 0
        assert (await mirror.get(f"/v2/{hub.host}/team/app/manifests/1.0")).status == 200
        found = await becomes(mirror, "", lambda found: found["total"] > 0)
        (item,) = found["items"]
        assert (item["name"], item["tag"], item["digest"]) == (f"{hub.host}/team/app", "1.0", index.digest)
        assert item["platforms"] == ["linux/amd64", "linux/arm64"]
    # The files know since when; the index does not have to.
    for file in (tmp_path / "mirror" / "cache").glob("search.db*"):
        file.unlink()
    async with serving(tmp_path / "mirror", config) as mirror:
        (again,) = (await search(mirror))["items"]
        assert again == item
    async with serving(tmp_path / "mirror", {"default_host": None}) as mirror:
        # Its upstream is not configured any more: it is not served, and not found.
        assert (await search(mirror))["total"] == 0


async def test_content_comes_changes_and_goes_and_is_first_seen_once(tmp_path: Path) -> None:
    layouts = tmp_path / "layouts"
    write_layout(layouts)
    async with serving(tmp_path / "mirror", layouts=[layouts]) as mirror:
        before = await search(mirror)
        writer = LayoutWriter(layouts / "new")
        image = writer.image([b"new"])
        writer.tag(image, "1").save()
        await mirror.refresh()
        (new,) = (await becomes(mirror, "q=new", lambda found: found["total"] == 1))["items"]
        assert new["digest"] == image.digest
        assert new["first_seen"] >= max(item["first_seen"] for item in before["items"])
        shutil.move(layouts / "new", tmp_path / "away")
        await mirror.refresh()
        await becomes(mirror, "q=new", lambda found: found["total"] == 0)
        shutil.move(tmp_path / "away", layouts / "new")
        await mirror.refresh()
        (same,) = (await becomes(mirror, "q=new", lambda found: found["total"] == 1))["items"]
        assert same == new
        after = await search(mirror)
    async with serving(tmp_path / "mirror", layouts=[layouts]) as mirror:
        assert await search(mirror) == after


@pytest.mark.parametrize("created", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+00:01", "soon"])
async def test_one_odd_manifest_does_not_keep_others_from_being_found(tmp_path: Path, created: str) -> None:
    """A date outside of the calendar, texts that are none, a size beyond all disks."""
    writer = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    odd = {"org.opencontainers.image.created": created, "\ud800": "\udfff", "\0": "a\0b", "": ""}
    image = writer.image([b"odd"], annotations=odd, platform={"os": "a,b", "architecture": "\ud800"})
    huge = {"mediaType": "application/x", "digest": Digest.of(b"huge"), "size": 2**70}
    artifact = {"mediaType": media_types.OCI_ARTIFACT, "artifactType": "a/\ud800", "blobs": [huge]}
    writer.tag(image, "1").tag(writer.manifest(artifact), "2").tag(writer.image([b"plain"]), "3").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        for query in (
            "",
            "sort=date&order=desc",
            "sort=size",
            "kind=repository",
            "created_since=2000-01-01T00:00:00Z",
        ):
            found = await search(mirror, query)
            assert (found["total"] > 0) == ("created" not in query)
        everything = {item["tag"]: item for item in (await search(mirror))["items"]}
        assert everything.keys() == {"1", "2", "3"}
        assert everything["1"]["created"] is None


async def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    write_layout(tmp_path / "layouts")
    file = tmp_path / "mirror" / "cache" / "search.db"
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        before = await search(mirror)
    file.write_bytes(b"no database" * 1000)
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        found = await search(mirror)
    assert [item["digest"] for item in found["items"]] == [item["digest"] for item in before["items"]]
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (7,)
    connection.close()


async def test_a_tag_from_several_places_is_one_row_of_what_is_served(tmp_path: Path) -> None:
    for name, platform in (("a", LINUX_AMD64), ("b", LINUX_ARM64)):
        writer = LayoutWriter(tmp_path / "layouts" / name)
        writer.tag(writer.image([name.encode()], platform=platform), "quay.io/team/app:1.0").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        served = await mirror.get("/v2/quay.io/team/app/manifests/1.0")
        (item,) = (await search(mirror, "kind=version"))["items"]
        assert item["digest"] == served.headers["Docker-Content-Digest"]
        assert item["platforms"] == ["linux/amd64", "linux/arm64/v8"]
        assert (await search(mirror))["total"] == 3


async def test_clients_are_told_of_search(mirror: Mirror) -> None:
    features = (await mirror.get("/v2/_mirror/features")).json()["endpoints"]["search"]
    assert (features["default_n"], features["max_n"]) == (100, 1000)
    assert set(features["types"]) == {
        *("oci-image", "docker-image", "helm-chart", "wasm", "cnab", "sbom", "signature", "attestation")
    }
    headed = await mirror.head(SEARCH)
    assert (headed.status, headed.body) == (200, b"")
