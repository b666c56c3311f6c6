"""Tags and referrers of an upstream: merged, paged, stale, and from what is cached at worst."""

import asyncio
from pathlib import Path

import pytest

from mirror.oci.media_types import OCI_INDEX
from mirror.sources import proxied_lists
from tests.content import LayoutWriter, encode
from tests.hub import BlackHole, EndlessPages, Hub, Image, Reset, Stall, Status, eventually
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, check_cache, forget_run, listed, path, pull, pulling, upstream
from tests.serving import serving

TAGS = path("tags", "")
ALWAYS = {"tag_ttl": "0s", "referrers_ttl": "0s", "unknown_ttl": "0s"}
NAME_UNKNOWN = encode({"errors": [{"code": "NAME_UNKNOWN", "message": ""}]})


async def test_tags_are_paged_upstream_through_all_pages_and_asked_for_once(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs(page_size=7)
    image = hub.image(APP)
    wanted = sorted(f"v{number}" for number in range(50))
    for tag in wanted:
        hub.keep(APP, image, tag)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(TAGS)).json() == {"name": f"{HOST}/{APP}", "tags": wanted}
        asked = len(hub.requests)
        assert asked == 8
        page = await mirror.get(f"{TAGS}?n=20&last=v10")
        assert page.json()["tags"] == [tag for tag in wanted if tag > "v10"][:20]
        assert 'rel="next"' in page.headers["Link"]
        assert len(hub.requests) == asked


async def test_lists_are_served_stale_while_the_upstream_is_gone(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    reference = hub.reference(APP, image, "application/vnd.test")
    referrers = path("referrers", image.digest)
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == ["1"]
        assert listed((await mirror.get(referrers)).body) == [reference.digest]
    await hub.refuse()
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        for target in (TAGS, f"{TAGS}?n=1", referrers, f"{referrers}?artifactType=application/vnd.test"):
            answer = await mirror.get(target)
            assert answer.status == 200
            assert "1" in answer.json().get("tags", []) or listed(answer.body) == [reference.digest]
            assert answer.headers["Cache-Status"].startswith("mirror; hit; ttl=-")
            assert "Age" in answer.headers


async def test_a_tag_that_was_pulled_since_the_list_was_had_is_in_it(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == ["1"]
        for tag in ("0", "2"):
            hub.keep(APP, image, tag)
            await pull(mirror, image, tag)
        asked = len(hub.requests)
        mirror.running.listener.registry._known.clear()
        assert (await mirror.get(TAGS)).json()["tags"] == ["0", "1", "2"]
        page = await mirror.get(f"{TAGS}?n=1")
        assert (page.json()["tags"], "Link" in page.headers) == (["0"], True)
        assert (await mirror.get(f"{TAGS}?last=0")).json()["tags"] == ["1", "2"]
        assert len(hub.requests) == asked
    await hub.refuse()
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS, stale_after="20s")}) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == ["0", "1", "2"], "also of a stale list"
        await hub.accept()
        del hub.repositories[APP].tags["0"]
        mirror.running.listener.registry._known.clear()
        assert (await mirror.get(TAGS)).json()["tags"] == ["1", "2"], "a list that is younger is believed"
        mirror.running.listener.registry._known.clear()
        hub.fault(Status(500))
        assert (await mirror.get(TAGS)).json()["tags"] == ["1", "2"]


async def test_a_tag_that_was_pulled_while_the_list_came_is_in_it(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs(page_size=1)
    image = hub.image(APP, "1")
    hub.keep(APP, image, "5")
    release = asyncio.Event()
    second = hub.fault(Stall(release, None), kind="tags", skip=1, times=1)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        asking = asyncio.create_task(mirror.get(TAGS))
        await eventually(lambda: second.hits)
        hub.keep(APP, image, "0")
        await pull(mirror, image, "0")
        release.set()
        assert (await asking).json()["tags"] == ["0", "1", "5"]
        mirror.running.listener.registry._known.clear()
        assert (await mirror.get(TAGS)).json()["tags"] == ["0", "1", "5"]


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500])
async def test_lists_never_had_are_answered_from_what_is_cached(tmp_path: Path, hub: Hub, status: int) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        await pull(mirror, image, "1")
        for kind in ("tags", "referrers"):
            hub.fault(Status(status, body=NAME_UNKNOWN), kind=kind)
        tags = await mirror.get(TAGS)
        assert (tags.status, tags.json()["tags"]) == (200, ["1"])
        assert "only what is cached" in tags.headers["Warning"]
        answer = await mirror.get(path("referrers", image.digest))
        assert (answer.status, listed(answer.body)) == (200, [])


async def test_lists_never_had_are_answered_soon_also_when_the_upstream_says_nothing(
    tmp_path: Path, hub: Hub
) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, first_byte_timeout="1h")}) as mirror:
        await pull(mirror, image, "1")
        hub.fault(BlackHole())
        async with asyncio.timeout(20):
            tags = await mirror.get(TAGS)
            referrers = await mirror.get(path("referrers", image.digest))
        assert (tags.status, tags.json()["tags"]) == (200, ["1"])
        assert (referrers.status, listed(referrers.body)) == (200, [])
        for answer in (tags, referrers):
            assert "only what is cached" in answer.headers["Warning"]


async def test_a_list_of_which_pages_come_is_waited_for(
    tmp_path: Path, hubs: Hubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than a busy machine needs for the first page.
    monkeypatch.setattr(proxied_lists, "CACHED_PATIENCE_SECONDS", 3.0)
    hub = await hubs(page_size=1)
    image = hub.image(APP, "1")
    hub.keep(APP, image, "2")
    release = asyncio.Event()
    async with pulling(tmp_path, {HOST: upstream(hub, first_byte_timeout="1h")}) as mirror:
        await pull(mirror, image, "1")
        second = hub.fault(Stall(release, None), kind="tags", skip=1)
        hub.fault(BlackHole(), kind="referrers")
        asking = asyncio.create_task(mirror.get(TAGS))
        await eventually(lambda: second.hits)
        # Its patience began later, and is over.
        assert "Warning" in (await mirror.get(path("referrers", image.digest))).headers
        release.set()
        answer = await asking
        assert answer.json()["tags"] == ["1", "2"]
        assert "Warning" not in answer.headers


async def test_a_404_never_empties_a_list_and_a_200_does(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    reference = hub.reference(APP, image, "application/vnd.test")
    target = path("referrers", image.digest)
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        assert listed((await mirror.get(target)).body) == [reference.digest]
        assert (await mirror.get(TAGS)).json()["tags"] == ["1"]
        hub.fault(Status(404), kind="referrers")
        hub.fault(Status(404), kind="tags")
        for asked in (target, TAGS):
            answer = await mirror.get(asked)
            assert reference.digest in answer.body.decode() or answer.json()["tags"] == ["1"]
            assert answer.headers["Cache-Status"].startswith("mirror; hit; ttl=-")
        hub.heal()
        del hub.repositories[APP].manifests[reference.digest]
        answer = await mirror.get(target)
        assert listed(answer.body) == []
        assert "Age" not in answer.headers


@pytest.mark.parametrize(
    ("status", "told"), [(401, 403), (403, 403), (404, 404), (410, 404), (429, 200), (500, 200), (503, 200)]
)
async def test_on_gone_refuse_counts_for_lists_too(tmp_path: Path, hub: Hub, status: int, told: int) -> None:
    image = hub.image(APP, "1")
    hub.reference(APP, image, "application/vnd.test")
    never_had = hub.image(APP, "2")
    async with pulling(tmp_path, {HOST: upstream(hub, on_gone="refuse", **ALWAYS)}) as mirror:
        for target in (TAGS, path("referrers", image.digest), path("manifests", "2")):
            assert (await mirror.get(target)).status == 200
        hub.fault(Status(status, body=NAME_UNKNOWN))
        for target in (TAGS, path("referrers", image.digest), path("referrers", never_had.digest)):
            assert (await mirror.get(target)).status == told, target


async def test_no_referrers_api_is_remembered_and_the_fallback_tag_answers(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs(current=True)
    image = hub.image(APP, "1")
    reference = hub.reference(APP, image, "application/vnd.test")
    target = path("referrers", image.digest)
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        for _ in range(3):
            answer = await mirror.get(target)
            assert listed(answer.body) == [reference.digest]
            assert "Age" not in answer.headers
            mirror.running.listener.registry._known.clear()
        assert hub.count(kind="referrers") == 1
        fallback = [entry.method for entry in hub.select(path=f"*/{image.digest.fallback_tag}")]
        assert fallback == ["GET", "HEAD", "HEAD"]
        another = hub.reference(APP, image, "application/vnd.other")
        assert set(listed((await mirror.get(target)).body)) == {reference.digest, another.digest}
        other = hub.image(APP, "2")
        assert listed((await mirror.get(path("referrers", other.digest))).body) == []
    await hub.refuse()
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        answer = await mirror.get(target)
        assert set(listed(answer.body)) == {reference.digest, another.digest}
        assert "Age" in answer.headers


async def test_a_fallback_tag_pulled_as_a_tag_answers_for_the_list_that_was_never_had(
    tmp_path: Path, hubs: Hubs
) -> None:
    hub = await hubs(current=True)
    image = hub.image(APP, "1")
    reference = hub.reference(APP, image, "application/vnd.test")
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        assert (await mirror.get(path("manifests", image.digest.fallback_tag))).status == 200
        await hub.refuse()
        answer = await mirror.get(path("referrers", image.digest))
        assert listed(answer.body) == [reference.digest]


async def test_one_unknown_repository_does_not_take_the_api_from_the_others(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    reference = hub.reference(APP, image, "application/vnd.test")
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        assert listed((await mirror.get(path("referrers", image.digest))).body) == [reference.digest]
        hub.fault(Status(404, body=b"not here"), path="*/other/*")
        await mirror.get(path("referrers", image.digest, repository="other"))
        hub.heal()
        second = hub.image(APP, "2")
        signature = hub.reference(APP, second, "application/vnd.test")
        assert listed((await mirror.get(path("referrers", second.digest))).body) == [signature.digest]


async def test_referrers_of_a_name_that_nobody_knows_are_404_and_of_others_empty(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(path("referrers", image.digest, repository="never/seen"))
        assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
        answer = await mirror.get(path("referrers", image.digest))
        assert (answer.status, answer.headers["Content-Type"], listed(answer.body)) == (200, OCI_INDEX, [])


async def test_referrers_are_fresh_for_their_own_time(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    target = path("referrers", image.digest)
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h", referrers_ttl="1s")}) as mirror:
        assert listed((await mirror.get(target)).body) == []
        reference = hub.reference(APP, image, "application/vnd.test")
        assert listed((await mirror.get(target)).body) == []
        assert hub.count(kind="referrers") == 1
        await asyncio.sleep(1.1)
        assert listed((await mirror.get(target)).body) == [reference.digest]


async def test_fallback_tags_are_asked_for_as_often_as_lists_are(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs(current=True)
    image = hub.image(APP, "1")
    hub.reference(APP, image, "application/vnd.test")
    target = path("referrers", image.digest)
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h", referrers_ttl="0s")}) as mirror:
        assert len(listed((await mirror.get(target)).body)) == 1
        hub.reference(APP, image, "application/vnd.other")
        assert len(listed((await mirror.get(target)).body)) == 2


def local(folder: Path, tag: str, content: bytes) -> Path:
    layout = LayoutWriter(folder / HOST / APP)
    layout.tag(layout.image([content]), tag).save()
    return folder


async def test_tags_of_both_sources_are_one_list(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "b")
    hub.image(APP, "c")
    layouts = [await asyncio.to_thread(local, tmp_path / "layouts", "a", b"local")]
    config = {"upstreams": {HOST: upstream(hub, **ALWAYS)}}
    async with serving(tmp_path / "mirror", config, layouts=layouts) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == ["a", "b", "c"]
        page = await mirror.get(f"{TAGS}?n=2")
        assert (page.json()["tags"], "Link" in page.headers) == (["a", "b"], True)
        hub.image(APP, "d")
        mirror.running.listener.registry._known.clear()
        assert (await mirror.get(TAGS)).json()["tags"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_one_source_failing_the_others_tags_are_told_with_a_warning(
    tmp_path: Path, hub: Hub, status: int
) -> None:
    hub.image(APP, "b")
    layouts = [await asyncio.to_thread(local, tmp_path / "layouts", "a", b"local")]
    config = {"upstreams": {HOST: upstream(hub, **ALWAYS)}}
    async with serving(tmp_path / "mirror", config, layouts=layouts) as mirror:
        hub.fault(Status(status, {"Retry-After": "1"}))
        answer = await mirror.get(TAGS)
        assert (answer.status, answer.json()["tags"]) == (200, ["a"])
        assert answer.headers["Warning"].startswith("299 - ")
        hub.heal()
        await asyncio.sleep(1.1)
        assert (await mirror.get(TAGS)).json()["tags"] == ["a", "b"]


async def test_a_name_that_comes_to_be_upstream_is_seen_beside_the_local_one(tmp_path: Path, hub: Hub) -> None:
    layouts = [await asyncio.to_thread(local, tmp_path / "layouts", "a", b"local")]
    config = {"upstreams": {HOST: upstream(hub, **ALWAYS)}}
    async with serving(tmp_path / "mirror", config, layouts=layouts) as mirror:
        answer = await mirror.get(TAGS)
        assert (answer.json()["tags"], "Warning" in answer.headers) == (["a"], False)
        hub.image(APP, "b")
        assert (await mirror.get(TAGS)).json()["tags"] == ["a", "b"]


async def test_endless_pages_end_and_a_list_that_leads_elsewhere_is_none(tmp_path: Path, hubs: Hubs) -> None:
    hub, elsewhere = await hubs(), await hubs(address="127.0.0.2")
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        hub.fault(EndlessPages())
        answer = await mirror.get(TAGS)
        assert (answer.status, answer.code) == (502, "UNAVAILABLE")
        assert len(hub.requests) <= 1001
        hub.heal()
        hub.fault(EndlessPages(elsewhere=f"{elsewhere.url}/v2/{APP}/tags/list?last=x"))
        assert (await mirror.get(TAGS)).status == 502
        assert elsewhere.requests == []
        hub.heal()
        assert (await mirror.get(TAGS)).json()["tags"] == ["1"]


async def test_lists_with_nonsense_in_them_cost_the_nonsense(tmp_path: Path, hub: Hub) -> None:
    image: Image = hub.image(APP, "1")
    good = {"mediaType": OCI_INDEX, "digest": image.digest, "size": 1}
    entries = encode({"manifests": [good, {"digest": 1}, None, good]})
    tags = encode({"tags": ["ok", "../../etc", 7, None, "x" * 200, "ok", "a\nb"]})
    async with pulling(tmp_path, {HOST: upstream(hub, **ALWAYS)}) as mirror:
        hub.fault(Status(200, {"Content-Type": "application/json"}, tags), kind="tags")
        hub.fault(Status(200, {"Content-Type": OCI_INDEX}, entries), kind="referrers")
        assert (await mirror.get(TAGS)).json()["tags"] == ["ok"]
        assert listed((await mirror.get(path("referrers", image.digest))).body) == [image.digest]
        for nonsense in (
            b"[" * 100_000,
            b"7",
            encode({"tags": 7, "manifests": 7}),
            encode({"tags": {}, "manifests": "a"}),
        ):
            hub.heal()
            hub.fault(Status(200, {}, nonsense))
            for target in (TAGS, path("referrers", image.digest)):
                answer = await mirror.get(target)
                assert answer.status == 200
        hub.heal()
        hub.fault(Status(200, {}, b"[" * 100_000))
        for target in (TAGS, path("referrers", image.digest)):
            answer = await mirror.get(target)
            assert (answer.status, "Age" in answer.headers) == (200, True)
        assert (await mirror.get(path("tags", "", repository="other"))).status == 502


async def test_lists_on_disk_that_cannot_be_read_are_asked_for_again(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    targets = (TAGS, path("referrers", image.digest))
    for content in (b"", b"{", b"[]", b'{"document": []}', b'{"document": {"tags": 1, "manifests": 2}}'):
        async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
            for target in targets:
                assert (await mirror.get(target)).status == 200, content
            for file in (mirror.cache / "names").rglob("_lists/*"):
                file.write_bytes(content)
        forget_run(tmp_path)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == ["1"]
        await check_cache(mirror.cache)


@pytest.mark.parametrize("content", [b"", b"{", b'{"document": {"tags": 1, "manifests": 2}}'])
async def test_lists_on_disk_that_cannot_be_read_are_as_if_never_had(
    tmp_path: Path, hub: Hub, content: bytes
) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for target in (path("manifests", "1"), TAGS, path("referrers", image.digest)):
            assert (await mirror.get(target)).status == 200
    for file in (mirror.cache / "names").rglob("_lists/*"):
        file.write_bytes(content)
    await hub.refuse()
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(TAGS)
        assert (answer.status, answer.json()["tags"]) == (200, ["1"])
        answer = await mirror.get(path("referrers", image.digest))
        assert (answer.status, listed(answer.body)) == (200, [])


async def test_what_a_list_says_is_not_what_the_cache_has(tmp_path: Path, hub: Hub) -> None:
    """A tag that is listed and was never pulled is not to be had while its upstream is gone."""
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(TAGS)).json()["tags"] == ["1"]
        hub.fault(Reset())
        assert (await mirror.get(path("manifests", "1"))).status == 502
