"""Before the first scan has ended: what answers at once, what waits, and what says that it is incomplete."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from mirror.server import registry as registry_module
from mirror.server.access import Everyone
from mirror.server.http import Listener
from mirror.server.names import NameRules
from mirror.server.registry import Registry
from mirror.sources.local import LocalContent
from mirror.sources.merged import Content
from mirror.sources.place import Place
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import Root
from mirror.store.generated import GeneratedManifests
from mirror.store.remembered import RememberedNames
from tests.content import LayoutWriter
from tests.sources.scans import ToldScans


@asynccontextmanager
async def held(tmp_path: Path) -> AsyncIterator[tuple[ToldScans, str, aiohttp.ClientSession]]:
    scans = ToldScans()
    remembered = await asyncio.to_thread(RememberedNames, tmp_path / "remembered")
    local = LocalContent(scans, remembered, GeneratedManifests(tmp_path / "generated"))
    registry = Registry(Content(local, {}, None), NameRules(None), Everyone(), lambda: local.ready)
    try:
        async with Listener(registry, "127.0.0.1", 0) as listener, aiohttp.ClientSession() as session:
            local.start()
            yield scans, listener.url, session
    finally:
        await local.stop()


def places(folder: Path) -> Sequence[Place]:
    """What a scan of a layout `team/app` finds."""
    writer = LayoutWriter(folder / "layouts" / "team" / "app")
    writer.tag(writer.image(), "1").save()
    return Scanner([Root(str(folder / "layouts"))]).scan().places


async def status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


async def test_the_port_answers_and_requests_for_content_wait(tmp_path: Path) -> None:
    async with held(tmp_path) as (scans, url, session):
        assert await status(session, f"{url}/v2/") == 200
        assert await status(session, f"{url}/healthz") == 200
        assert await status(session, f"{url}/readyz") == 503
        assert await status(session, f"{url}/v2/team/app/blobs/nonsense%00") == 404
        asked = [
            asyncio.create_task(status(session, f"{url}/v2/team/app/{path}"))
            for path in ("manifests/1", "tags/list", "manifests/absent")
        ]
        done, _ = await asyncio.wait(asked, timeout=0.1)
        assert not done
        scans.tell(await asyncio.to_thread(places, tmp_path))
        assert await asyncio.gather(*asked) == [200, 200, 404]
        assert await status(session, f"{url}/readyz") == 200


async def test_the_catalogue_waits_a_while_and_then_says_that_it_is_incomplete(tmp_path: Path) -> None:
    assert registry_module.CATALOG_WAIT_SECONDS == 5
    async with held(tmp_path) as (scans, url, session):
        async with session.get(f"{url}/v2/_catalog") as answer:
            assert (answer.status, await answer.json()) == (200, {"repositories": []})
            assert answer.headers["Warning"].startswith("299 ")
        asked = asyncio.create_task(status(session, f"{url}/v2/_catalog"))
        scans.tell(await asyncio.to_thread(places, tmp_path))
        assert await asked == 200
        async with session.get(f"{url}/v2/_catalog") as answer:
            assert await answer.json() == {"repositories": ["team/app"]}
            assert "Warning" not in answer.headers


@pytest.mark.parametrize("path", ["manifests/1", "tags/list"])
async def test_a_client_that_leaves_while_it_waits_costs_nothing(tmp_path: Path, path: str) -> None:
    async with held(tmp_path) as (scans, url, session):
        with pytest.raises(TimeoutError):
            async with session.get(f"{url}/v2/team/app/{path}", timeout=aiohttp.ClientTimeout(0.05)):
                pass
        scans.tell(await asyncio.to_thread(places, tmp_path))
        assert await status(session, f"{url}/v2/team/app/{path}") == 200


async def test_a_name_found_nowhere_may_yet_turn_up_while_archives_are_unpacked(tmp_path: Path) -> None:
    async with held(tmp_path) as (scans, url, session):
        scans.tell([], unpacking=True)
        async with session.get(f"{url}/v2/team/app/manifests/1") as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"]
        scans.tell(await asyncio.to_thread(places, tmp_path))
        while (found := await status(session, f"{url}/v2/team/app/manifests/1")) != 200:
            assert found == 503, "never unknown, not even between unpacking and serving"
        assert await status(session, f"{url}/v2/never/heard/manifests/1") == 404
