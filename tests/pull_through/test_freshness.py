"""When the upstream is asked, and what is answered when it is not."""

import asyncio
import contextlib
import gc
import re
import sqlite3
import time
from pathlib import Path

import pytest

from mirror.oci.errors import Unknown
from mirror.store.cache import Cache
from mirror.store.lists import TAGS
from tests.hub import BlackHole, Hub, NoDigest, Redirect, Reset, Stall, Status, eventually
from tests.hub.content import build_image
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, check_cache, forget_run, path, pull, pulling, upstream
from tests.running import wait_until
from tests.serving import Mirror

TAG = path("manifests", "1")


def passed(mirror: Mirror) -> None:
    """What was remembered for a moment is over: answers are given again unasked for a second at most."""
    mirror.running.listener.registry._known.clear()


async def test_a_warm_tag_costs_no_request_within_its_time_and_one_head_after_it(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}) as mirror:
        await pull(mirror, image, "1")
        asked = len(hub.requests)
        for number in range(1000):
            if number % 100 == 0:
                passed(mirror)
            answer = await (mirror.head if number % 2 else mirror.get)(TAG)
            assert answer.status == 200
            assert answer.headers["Cache-Status"] == f'mirror; hit; detail="{HOST}"'
        assert len(hub.requests) == asked
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1s")}) as mirror:
        await asyncio.sleep(1.1)
        answers = await asyncio.gather(*(mirror.get(TAG) for _ in range(50)))
        assert {answer.body for answer in answers} == {image.content}
        assert [entry.method for entry in hub.requests[asked:]] == ["HEAD"]


async def test_what_is_given_again_at_once_is_a_hit_and_counted_as_one(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for target in (TAG, path("tags", "")):
            said = [(await ask(target)).headers["Cache-Status"] for ask in (mirror.get, mirror.get, mirror.head)]
            hit = f'mirror; hit; detail="{HOST}"'
            assert said == [f'mirror; fwd=uri-miss; stored; detail="{HOST}"', hit, hit], target
        numbers = (await mirror.get("/metrics")).body.decode()
        assert 'mirror_cache_answers_total{verdict="hit"} 4.0' in numbers
        assert 'mirror_cache_answers_total{verdict="miss"} 2.0' in numbers


async def test_a_moved_tag_costs_a_head_and_a_get(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        before = await mirror.get(TAG)
        moved = hub.image(APP, "1", files={"new": b""})
        asked = len(hub.requests)
        answer = await mirror.get(TAG)
        assert answer.body == moved.content
        assert answer.headers["Cache-Status"].startswith("mirror; fwd=stale; stored")
        assert [entry.method for entry in hub.requests[asked:]] == ["HEAD", "GET"]
        # The one before stays, by its digest, unasked.
        asked = len(hub.requests)
        old = before.headers["Docker-Content-Digest"]
        assert (await mirror.get(path("manifests", old))).body == before.body
        assert len(hub.requests) == asked


@pytest.mark.parametrize("status", [400, 405, 406, 501])
async def test_where_head_is_refused_get_revalidates(tmp_path: Path, hub: Hub, status: int) -> None:
    image = hub.image(APP, "1")
    hub.fault(Status(status), method="HEAD")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
        assert "Age" not in (await mirror.get(TAG)).headers
        moved = hub.image(APP, "1", files={"new": b""})
        answer = await mirror.get(TAG)
        assert (answer.body, "Age" in answer.headers) == (moved.content, False)


@pytest.mark.parametrize("status", [403, 404])
async def test_where_a_redirect_leads_to_what_is_for_get_only_get_revalidates(
    tmp_path: Path, hubs: Hubs, status: int
) -> None:
    """As signed URLs are: else a tag that can be pulled would never move."""
    hub, store = await hubs(), await hubs()
    store.image(APP, "1")
    store.fault(Status(status), method="HEAD")
    hub.fault(Redirect(f"{store.url}/v2/{APP}/manifests/1"), kind="manifest")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        assert (await mirror.get(TAG)).status == 200
        moved = store.image(APP, "1", files={"new": b""})
        answer = await mirror.get(TAG)
        assert (answer.body, "Age" in answer.headers) == (moved.content, False)


async def test_an_upstream_that_tells_no_digest_is_asked_by_get(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    hub.fault(NoDigest())
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await mirror.get(TAG)
        moved = hub.image(APP, "1", files={"new": b""})
        assert (await mirror.get(TAG)).body == moved.content
        await check_cache(mirror.cache)


async def test_digests_are_never_revalidated(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
        asked = len(hub.requests)
        for target in [path("manifests", image.digest), *(path("blobs", digest) for digest in image.blobs)]:
            for ask in (mirror.get, mirror.head, mirror.get):
                passed(mirror)
                answer = await ask(target)
                assert answer.status == 200
                assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert len(hub.requests) == asked


async def test_a_cold_head_of_a_tag_is_enough_to_have_it_offline(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.head(TAG)
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(image.content)))
        assert [entry.method for entry in hub.requests] == ["GET"]
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}, offline=True) as mirror:
        assert (await mirror.get(TAG)).body == image.content
        assert (await mirror.get(path("manifests", image.digest))).body == image.content
    assert len(hub.requests) == 1


async def test_offline_contacts_nobody(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    layer = image.layers[0]
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        await mirror.get(TAG)
        await mirror.get(path("blobs", image.config))
    asked = len(hub.requests)
    keys = upstream(hub, tag_ttl="0s", offline=True)
    async with pulling(tmp_path, {HOST: keys}) as mirror:
        answer = await mirror.get(TAG)
        assert (answer.status, answer.body) == (200, image.content)
        assert answer.headers["Cache-Status"].startswith("mirror; hit; ttl=-")
        assert (await mirror.get(path("blobs", image.config))).status == 200
        tags = await mirror.get(path("tags", ""))
        assert (tags.json()["tags"], tags.headers["Warning"][:5]) == (["1"], "299 -")
        assert (await mirror.get(path("referrers", image.digest))).json()["manifests"] == []
        for target in [path("blobs", layer), path("manifests", "2"), path("tags", "", repository="other")]:
            for ask in (mirror.get, mirror.head):
                answer = await ask(target)
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) > 0
    assert len(hub.requests) == asked


async def test_zero_means_asked_each_time_also_when_the_last_time_went_wrong(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    targets = (TAG, path("tags", ""), path("referrers", image.digest))
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", referrers_ttl="0s")}) as mirror:
        for target in targets:
            before = await mirror.get(target)
            hub.fault(Status(500))
            answer = await mirror.get(target)
            assert (answer.status, answer.body, "Age" in answer.headers) == (200, before.body, True)
            hub.heal()
            asked = len(hub.requests)
            for _ in range(3):
                answer = await mirror.get(target)
                assert (answer.status, answer.body, "Age" in answer.headers) == (200, before.body, False)
            assert len(hub.requests) == asked + 3


async def test_a_slow_upstream_is_waited_for_once_and_its_answer_comes_later(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", stale_after="100ms")}) as mirror:
        await pull(mirror, image, "1")
        moved = hub.image(APP, "1", files={"new": b""})
        release = asyncio.Event()
        hub.fault(Stall(release, None), method="HEAD")
        asked = len(hub.requests)
        for _ in range(5):
            passed(mirror)
            assert (await mirror.get(TAG)).body == image.content
        assert len(hub.requests) == asked + 1
        release.set()
        await eventually(lambda: hub.count("GET", "*/manifests/1") == 2)
        hub.fault(BlackHole())

        async def came() -> bool:
            passed(mirror)
            return (await mirror.get(TAG)).body == moved.content

        async with asyncio.timeout(10):
            while not await came():
                pass


async def test_a_copy_too_old_to_be_served_does_not_cut_the_waiting_short(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    keys = upstream(hub, tag_ttl="0s", stale_for="0s", stale_after="50ms")
    async with pulling(tmp_path, {HOST: keys}) as mirror:
        await pull(mirror, image, "1")
        release = asyncio.Event()
        hub.fault(Stall(release, None), method="HEAD", times=1)
        asking = asyncio.create_task(mirror.get(TAG))
        await eventually(lambda: hub.count("HEAD") == 1)
        await asyncio.sleep(0.2)
        release.set()
        answer = await asking
        assert (answer.status, answer.body) == (200, image.content)
        hub.fault(Reset())
        assert (await mirror.get(TAG)).status == 502


async def test_stale_for_ends_what_may_be_served_stale(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", stale_for="1h")}) as mirror:
        await pull(mirror, image, "1")
        await mirror.get(path("tags", ""))
        hub.fault(Status(500))
        assert (await mirror.get(TAG)).status == 200
    forget_run(tmp_path)
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", stale_for="1ms")}) as mirror:
        for target in (TAG, path("tags", "")):
            assert ((await mirror.get(target)).status, (await mirror.get(target)).code) == (502, "UNAVAILABLE")
        # What a digest names is not stale, however old.
        assert (await mirror.get(path("manifests", image.digest))).status == 200


async def test_on_gone_refuse_lets_the_upstreams_refusal_count_and_nothing_else(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    keys = upstream(hub, tag_ttl="0s", unknown_ttl="0s", on_gone="refuse")
    async with pulling(tmp_path, {HOST: keys}) as mirror:
        await pull(mirror, image, "1")
        for status, told in [(401, 403), (403, 403), (404, 404), (410, 404), (429, 200), (500, 200), (503, 200)]:
            hub.heal()
            passed(mirror)
            hub.fault(Status(status, {"Retry-After": "1"} if status == 429 else {}))
            assert (await mirror.get(TAG)).status == told, status
            if status == 429:
                await asyncio.sleep(1.1)


async def test_on_gone_refuse_counts_also_for_what_was_unknown_before(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    keys = upstream(hub, tag_ttl="0s", unknown_ttl="0s", on_gone="refuse")
    absent = path("manifests", "absent")
    async with pulling(tmp_path, {HOST: keys}) as mirror:
        assert (await mirror.get(absent)).status == 404
        hub.fault(Status(403))
        answer = await mirror.get(absent)
        assert (answer.status, answer.code) == (403, "DENIED")
        hub.heal()
        hub.fault(Status(500))
        answer = await mirror.get(absent)
        assert (answer.status, "Age" in answer.headers) == (404, True)


async def test_unknown_is_remembered_for_a_moment_and_believed_while_nobody_can_be_asked(
    tmp_path: Path, hub: Hub
) -> None:
    hub.image(APP, "1")
    absent = path("manifests", "sha256-" + "0" * 64 + ".sig")
    async with pulling(tmp_path, {HOST: upstream(hub, unknown_ttl="1h")}) as mirror:
        for _ in range(20):
            answer = await mirror.get(absent)
            assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        assert len(hub.requests) == 1
    async with pulling(tmp_path, {HOST: upstream(hub, unknown_ttl="0s")}) as mirror:
        assert (await mirror.get(absent)).status == 404
        assert (await mirror.get(path("blobs", "sha256:" + "1" * 64))).status == 404
        hub.fault(Status(500))
        for target in (absent, path("blobs", "sha256:" + "1" * 64)):
            answer = await mirror.get(target)
            assert answer.status == 404
            assert answer.headers["Cache-Status"].startswith("mirror; hit; ttl=-")
            assert "Age" in answer.headers
        assert (await mirror.get(path("manifests", "never-asked"))).status == 502
    asked = len(hub.requests)
    async with pulling(tmp_path, {HOST: upstream(hub, unknown_ttl="0s")}, offline=True) as mirror:
        for target in (absent, path("blobs", "sha256:" + "1" * 64)):
            answer = await mirror.get(target)
            assert (answer.status, "Age" in answer.headers) == (404, True)
        assert (await mirror.get(path("manifests", "never-asked"))).status == 503
    assert len(hub.requests) == asked


async def test_what_was_unknown_is_so_soon_also_when_the_upstream_says_nothing(tmp_path: Path, hub: Hub) -> None:
    """cosign asks for three tags that are not there: it must not hang on each until a time-out."""
    hub.image(APP, "1")
    targets = [path("manifests", "absent"), path("tags", "", repository="absent")]
    keys = upstream(hub, unknown_ttl="0s", stale_after="50ms", first_byte_timeout="1h")
    async with pulling(tmp_path, {HOST: keys}) as mirror:
        for target in targets:
            assert (await mirror.get(target)).status == 404
        hub.fault(BlackHole())
        for target in targets:
            async with asyncio.timeout(10):
                answer = await mirror.get(target)
            assert (answer.status, "Age" in answer.headers) == (404, True)
            assert answer.headers["Cache-Status"].startswith("mirror; hit; ttl=-")


async def test_unknown_names_hold_on_to_nothing(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, unknown_ttl="1h")}) as mirror:
        for _ in range(50):
            assert (await mirror.get(path("manifests", "absent"))).status == 404

        def frames() -> int:
            total = 0
            for error in (found for found in gc.get_objects() if isinstance(found, Unknown)):
                trace = error.__traceback__
                while trace is not None:
                    total, trace = total + 1, trace.tb_next
            return total

        gc.collect()
        assert frames() < 20


async def test_a_rate_limit_is_kept_and_cached_content_flows(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
        hub.fault(Status(429, {"Retry-After": "2"}), times=1)
        await mirror.get(path("manifests", "2"))
        asked = len(hub.requests)
        await pull(mirror, image, "1")
        answer = await mirror.get(path("manifests", "3"))
        assert (answer.status, answer.code) == (503, "UNAVAILABLE")
        assert 1 <= int(answer.headers["Retry-After"]) <= 2
        assert len(hub.requests) == asked
        await asyncio.sleep(2.1)
        assert (await mirror.get(path("manifests", "4"))).status == 404
        assert len(hub.requests) == asked + 1


async def test_an_upstream_that_asks_for_patience_fails_once_and_is_left_alone(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
        hub.fault(Status(503, {"Retry-After": "9"}), times=1)
        answer = await mirror.get(path("manifests", "2"))
        assert (answer.status, answer.code, "Retry-After" in answer.headers) == (502, "UNAVAILABLE", False)
        asked = len(hub.requests)
        for target in (path("manifests", "3"), path("blobs", "sha256:" + "0" * 64), path("tags", "", repository="b")):
            answer = await mirror.get(target)
            assert (answer.status, answer.code) == (503, "UNAVAILABLE")
            assert 1 <= int(answer.headers["Retry-After"]) <= 9
        await pull(mirror, image, "1")
        assert len(hub.requests) == asked


async def test_what_was_tried_is_told_as_it_failed_and_what_was_not_as_not_tried(tmp_path: Path, hub: Hub) -> None:
    hub.fault(Status(500))
    async with pulling(tmp_path, {HOST: upstream(hub) | {"retries": 3}}) as mirror:
        statuses = []
        for number in range(10):
            asked = len(hub.requests)
            answer = await mirror.get(path("manifests", str(number)))
            was_tried = len(hub.requests) > asked
            assert (answer.status, "Retry-After" in answer.headers) == ((502, False) if was_tried else (503, True))
            statuses.append(answer.status)
        # The second one's first try is the fifth failure in a row: from there on, for a while, nobody tries.
        assert statuses[:2] == [502, 502]
        assert 503 in statuses


async def test_a_tag_called_tags_is_a_tag(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "tags")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        for _ in range(5):
            passed(mirror)
            tag, found = await asyncio.gather(mirror.get(path("manifests", "tags")), mirror.get(path("tags", "")))
            assert (tag.status, tag.body) == (200, image.content)
            assert found.json()["tags"] == ["tags"]


async def test_what_was_fetched_in_the_future_is_asked_for(tmp_path: Path, hub: Hub) -> None:
    """A clock that was wrong and has been put right: nobody waits until it is that late."""
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}) as mirror:
        await pull(mirror, image, "1")
        assert (await mirror.get(path("tags", ""))).json()["tags"] == ["1"]
    await asyncio.to_thread(_fetch_later, mirror.cache, time.time() + 1e7)
    moved = hub.image(APP, "1", files={"new": b""})
    hub.keep(APP, moved, "2")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}) as mirror:
        assert (await mirror.get(TAG)).body == moved.content
        assert (await mirror.get(path("tags", ""))).json()["tags"] == ["1", "2"]
        asked = len(hub.requests)
        assert (await mirror.get(TAG)).body == moved.content
        assert len(hub.requests) == asked
    await asyncio.to_thread(_fetch_later, mirror.cache, time.time() + 1e7)
    await hub.refuse()
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="1h")}) as mirror:
        answer = await mirror.get(TAG)
        assert (answer.status, answer.body) == (200, moved.content)
        assert re.fullmatch(r'mirror; hit; ttl=-\d+; detail="registry.test"', answer.headers["Cache-Status"])


def _fetch_later(folder: Path, at: float) -> None:
    with Cache(folder, None).opened() as kept:
        for name in kept.names.iterate():
            repository = kept.names.repository(name)
            for tag, record in repository.records()[0].items():
                repository.put_tag(tag, record.descriptor, fetched_at=at)
            tags = repository.list(TAGS)
            assert tags is not None
            repository.put_list(TAGS, tags.document, at)


async def test_two_mirrors_on_one_cache_see_what_the_other_learnt(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    keys = {HOST: upstream(hub, tag_ttl="1h")}
    shared = {"cache": {"path": str(tmp_path / "shared")}}
    async with pulling(tmp_path / "a", keys, **shared) as one, pulling(tmp_path / "b", keys, **shared) as two:
        await pull(one, image, "1")
        asked = len(hub.requests)
        await pull(two, image, "1")
        assert len(hub.requests) == asked
        moved = hub.keep(APP, build_image({"new": b""}), "2")
        await pull(two, moved, "2")
        asked = len(hub.requests)
        await pull(one, moved, "2")
        assert len(hub.requests) == asked


async def test_one_mirrors_revalidation_is_the_others_too(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    keys = {HOST: upstream(hub, tag_ttl="2s")}
    shared = {"cache": {"path": str(tmp_path / "shared")}}
    async with pulling(tmp_path / "a", keys, **shared) as one, pulling(tmp_path / "b", keys, **shared) as two:
        await pull(one, image, "1")
        await pull(two, image, "1")
        await asyncio.sleep(2.1)
        asked = len(hub.requests)
        began = time.time()
        await one.get(TAG)
        index = tmp_path / "shared" / "index.db"
        await asyncio.to_thread(wait_until, lambda: checked_at(index) > began, "the other one can know")
        await two.get(TAG)
        assert len(hub.requests) == asked + 1


def checked_at(index: Path) -> float:
    """When a tag was last checked, as the mirrors over one cache tell each other."""
    with contextlib.closing(sqlite3.connect(index)) as database:
        checked: float = database.execute("SELECT coalesce(max(checked), 0) FROM uses").fetchone()[0]
        return checked


async def test_one_cold_question_at_a_time(tmp_path: Path, hubs: Hubs) -> None:
    hub = await hubs()
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answers = await asyncio.gather(*(mirror.get(TAG) for _ in range(40)))
        assert {(answer.status, answer.body) for answer in answers} == {(200, image.content)}
        assert len(hub.requests) == 1
