"""The hub itself, by real HTTP: what the other tests stand on."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from yarl import URL

from tests.hub import Bearer, Cdn, Corrupt, Hub, RedirectLoop, Reset, Status, Truncate, WrongLength
from tests.hub.fixtures import Hubs, Start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_kept_image_pulls_with_its_digest(hub: Hub, http: aiohttp.ClientSession) -> None:
    image = hub.image("team/app", "1")
    async with http.get(f"{hub.url}/v2/team/app/manifests/1") as answer:
        assert await answer.read() == image.content
        assert answer.headers["Docker-Content-Digest"] == image.digest
    async with http.get(f"{hub.url}/v2/team/app/blobs/{image.layers[0]}", headers={"Range": "bytes=2-"}) as answer:
        assert answer.status == 206
        assert await answer.read() == image.blobs[image.layers[0]][2:]
    assert hub.count("GET", "/v2/team/app/blobs/*") == 1
    assert hub.select(kind="blob")[0].bytes_sent == len(image.blobs[image.layers[0]]) - 2


async def test_tags_come_in_pages(hubs: Hubs, http: aiohttp.ClientSession) -> None:
    hub = await hubs(page_size=2)
    for number in range(5):
        hub.image("a", str(number))
    async with http.get(f"{hub.url}/v2/a/tags/list") as answer:
        assert (await answer.json())["tags"] == ["0", "1"]
        assert answer.headers["Link"] == '</v2/a/tags/list?n=2&last=1>; rel="next"'


async def test_referrers_are_an_api_or_a_fallback_tag(hubs: Hubs, http: aiohttp.ClientSession) -> None:
    complete, current = await hubs(), await hubs(current=True)
    for hub in (complete, current):
        subject = hub.image("a", "1")
        signature = hub.reference("a", subject, "application/sig")
    async with http.get(f"{complete.url}/v2/a/referrers/{subject.digest}") as answer:
        assert [entry["digest"] for entry in (await answer.json(content_type=None))["manifests"]] == [
            signature.digest
        ]
    async with http.get(f"{current.url}/v2/a/referrers/{subject.digest}") as answer:
        assert answer.status == 404
    async with http.get(f"{current.url}/v2/a/manifests/{subject.digest.fallback_tag}") as answer:
        assert json.loads(await answer.read())["manifests"][0]["artifactType"] == "application/sig"


async def test_a_cdn_url_expires(start: Start, hubs: Hubs, http: aiohttp.ClientSession) -> None:
    cdn = await start(Cdn())
    hub = await hubs(cdn=cdn)
    digest = hub.blob("a", b"content")
    async with http.get(f"{hub.url}/v2/a/blobs/{digest}", allow_redirects=False) as answer:
        location = answer.headers["Location"]
    async with http.get(URL(location, encoded=True)) as answer:
        assert await answer.read() == b"content"
    cdn.expire_all()
    async with http.get(URL(location, encoded=True)) as answer:
        assert answer.status == 403


async def test_faults_hit_as_often_as_they_say(hub: Hub, http: aiohttp.ClientSession) -> None:
    url = f"{hub.url}/v2/a/blobs/{hub.blob('a', b'0123456789')}"
    hub.fault(Status(503, {"Retry-After": "7"}), kind="blob", times=1)
    hub.fault(Corrupt(3), kind="blob", times=1)
    async with http.get(url) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    async with http.get(url) as answer:
        assert await answer.read() == b"012\xcc456789"
    async with http.get(url) as answer:
        assert await answer.read() == b"0123456789"


@pytest.mark.parametrize("fault", [Truncate(4), WrongLength(5), Reset()])
async def test_a_cut_is_seen_by_the_client(
    hub: Hub, http: aiohttp.ClientSession, fault: Truncate | WrongLength | Reset
) -> None:
    url = f"{hub.url}/v2/a/blobs/{hub.blob('a', b'0123456789')}"
    hub.fault(fault)
    with pytest.raises(aiohttp.ClientError):
        async with http.get(url) as answer:
            await answer.read()


async def test_a_refusing_hub_comes_back_on_the_same_port(hub: Hub, http: aiohttp.ClientSession) -> None:
    url = f"{hub.url}/v2/"
    await hub.refuse()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(url)
    await hub.accept()
    async with http.get(url) as answer:
        assert answer.status == 200


async def test_a_redirect_loop_does_not_end(hub: Hub, http: aiohttp.ClientSession) -> None:
    hub.fault(RedirectLoop(fresh=True))
    with pytest.raises(aiohttp.TooManyRedirects):
        await http.get(f"{hub.url}/v2/")


@pytest.mark.parametrize("current", [True, False])
async def test_artifact_manifests_are_refused_by_a_current_registry(
    hubs: Hubs, http: aiohttp.ClientSession, current: bool
) -> None:
    hub = await hubs(current=current)
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    body = json.dumps({"mediaType": kind, "artifactType": "a/b", "blobs": []})
    async with http.put(f"{hub.url}/v2/a/manifests/x", data=body, headers={"Content-Type": kind}) as answer:
        assert answer.status == (400 if current else 201)
        assert (b"MANIFEST_INVALID" in await answer.read()) is current


async def test_bandwidth_is_shared_by_all_connections(hubs: Hubs, http: aiohttp.ClientSession) -> None:
    hub = await hubs(bytes_per_second=4 * 2**20)
    url = f"{hub.url}/v2/a/blobs/{hub.blob('a', bytes(2 * 2**20))}"

    async def fetch() -> int:
        async with http.get(url) as answer:
            return len(await answer.read())

    started = asyncio.get_running_loop().time()
    assert sum(await asyncio.gather(fetch(), fetch())) == 4 * 2**20
    assert asyncio.get_running_loop().time() - started >= 0.75  # a second's worth, of which a fifth may come at once


def skopeo(hub: Hub) -> list[str]:
    options = ["--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"]
    return ["skopeo", "copy", *options, f"docker://{hub.host}/a:1", f"docker://{hub.host}/copied:2"]


def crane(hub: Hub) -> list[str]:
    return ["crane", "copy", "--insecure", f"{hub.host}/a:1", f"{hub.host}/copied:2"]


def regctl(hub: Hub) -> list[str]:
    host = ["--host", f"reg={hub.host},tls=disabled"]
    return ["regctl", *host, "image", "copy", f"{hub.host}/a:1", f"{hub.host}/copied:2"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(skopeo, marks=pytest.mark.client("skopeo")),
        pytest.param(crane, marks=pytest.mark.client("crane")),
        pytest.param(regctl, marks=pytest.mark.client("regctl")),
    ],
)
@pytest.mark.parametrize("auth", [None, "bearer"])
async def test_real_clients_pull_and_push(hubs: Hubs, command: Callable[[Hub], list[str]], auth: str | None) -> None:
    hub = await hubs(auth=Bearer() if auth else None)
    image = hub.image("a", "1", layers=[b"x" * 100_000])
    done = await asyncio.to_thread(subprocess.run, command(hub), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert hub.repositories["copied"].tags["2"] == image.digest
    assert hub.repositories["copied"].blobs == image.blobs
