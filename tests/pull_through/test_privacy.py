"""A digest belongs to who has it; a secret to nobody but its host."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from mirror.config import ConfigError
from mirror.oci import media_types
from mirror.oci.digest import Digest
from tests.content import encode
from tests.hub import Basic, Bearer, Cdn, Hub, Image, NoLength, Oversized, Stall, Status, TokenIssuer, eventually
from tests.hub.auth import basic_value
from tests.hub.fixtures import Hubs, Start
from tests.pull_through.asking import APP, HOST, files_with, path, pull, pulling, upstream
from tests.serving import Mirror

PRIVATE, PUBLIC = "private.test", "public.test"
BIG = 3 * 1024 * 1024


def every_way(digest: str, host: str, repository: str) -> list[tuple[str, str, dict[str, str]]]:
    """Method, target and headers of everything that could give a digest away."""
    blob = path("blobs", digest, host=host, repository=repository)
    manifest = path("manifests", digest, host=host, repository=repository)
    return [
        ("HEAD", blob, {}),
        ("GET", blob, {}),
        ("GET", blob, {"Range": "bytes=0-0"}),
        ("GET", blob, {"If-None-Match": f'"{digest}"'}),
        ("GET", blob, {"Range": "bytes=999999999-"}),
        ("HEAD", manifest, {}),
        ("GET", manifest, {}),
        ("GET", manifest, {"If-None-Match": f'"{digest}"'}),
    ]


async def refused_every_way(mirror: Mirror, digest: str, host: str, repository: str) -> None:
    for method, target, headers in every_way(digest, host, repository):
        async with asyncio.timeout(5):
            answer = await mirror.request(method, target, headers)
        assert answer.status == 404, (method, target, headers)


def is_asking() -> bool:
    """Whether something is being proven or written of what a repository has."""
    return any(task.get_name().startswith("asking") for task in asyncio.all_tasks())


async def test_what_came_through_one_repository_is_not_given_through_another(tmp_path: Path, hubs: Hubs) -> None:
    private, public = await hubs(), await hubs()
    image = private.image(APP, "1", layers=[b"secret" * 1000])
    public.image("other", "1")
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    async with pulling(tmp_path, hosts) as mirror:
        await pull(mirror, image, "1", host=PRIVATE)
        for digest in (image.digest, *image.blobs):
            for host, repository in ((PUBLIC, "other"), (PUBLIC, APP), (PRIVATE, "other")):
                await refused_every_way(mirror, digest, host, repository)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_running_fill_is_not_joined_by_who_may_not_have_it(tmp_path: Path, hubs: Hubs, workers: int) -> None:
    private, public = await hubs(), await hubs()
    secret = b"secret" * (BIG // 6)
    digest = private.blob(APP, secret)
    public.image(APP, "1")
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    shared = {"cache": {"path": str(tmp_path / "shared")}}
    release = asyncio.Event()
    private.fault(Stall(release, BIG // 2), kind="blob", method="GET")
    async with pulling(tmp_path / "a", hosts, **shared) as one, pulling(tmp_path / "b", hosts, **shared) as two:
        target = path("blobs", digest, host=PRIVATE)
        filling = asyncio.create_task(one.get(target))
        part = tmp_path / "shared" / "parts" / digest.fallback_tag
        await eventually(lambda: part.exists() and part.stat().st_size >= BIG // 2)
        other = one if workers == 1 else two
        await refused_every_way(other, digest, PUBLIC, APP)
        await refused_every_way(other, digest, PRIVATE, "other")
        release.set()
        assert (await filling).body == secret
        await refused_every_way(other, digest, PUBLIC, APP)
        assert (await other.get(target)).body == secret
    assert private.count("GET", kind="blob", path=f"*/{APP}/*") == 1


@pytest.mark.parametrize("first", ["GET", "HEAD"])
async def test_a_running_fill_is_not_joined_once_the_digest_was_forgotten(
    tmp_path: Path, hub: Hub, first: str
) -> None:
    """That its upstream answered at the fill's beginning is no proof for who comes when neither knows it any more."""
    digest = hub.blob(APP, b"secret" * (BIG // 6))
    release = asyncio.Event()
    hub.fault(Stall(release, BIG // 2), kind="blob", method="GET")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        filling = asyncio.create_task(mirror.get(path("blobs", digest)))
        links = mirror.cache / "names" / HOST / APP / "_links"
        await eventually(lambda: links.exists() and not is_asking())
        await asyncio.to_thread(links.unlink)
        del hub.repositories[APP].blobs[digest]
        async with asyncio.timeout(5):
            assert (await mirror.request(first, path("blobs", digest))).status == 404
        await refused_every_way(mirror, digest, HOST, APP)
        release.set()
        assert (await filling).status == 200


async def test_a_manifest_that_mentions_a_private_digest_opens_nothing(tmp_path: Path, hubs: Hubs) -> None:
    private, public = await hubs(), await hubs()
    image = private.image(APP, "1", layers=[b"secret" * 1000])
    secret = image.layers[1]
    size = len(image.blobs[secret])
    layer = {"mediaType": media_types.OCI_LAYER_TAR, "digest": secret, "size": size}
    config = public.blob("evil", b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {"mediaType": media_types.OCI_EMPTY, "digest": config, "size": 2},
        "layers": [layer],
    }
    public.keep("evil", Image(media_types.OCI_MANIFEST, encode(document), {}), "1")
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [image.descriptor()]}
    public.keep("evil", Image(media_types.OCI_INDEX, encode(index), {}), "2")
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    async with pulling(tmp_path, hosts) as mirror:
        await pull(mirror, image, "1", host=PRIVATE)
        for tag in ("1", "2"):
            assert (await mirror.get(path("manifests", tag, host=PUBLIC, repository="evil"))).status == 200
        for digest in (secret, image.digest):
            await refused_every_way(mirror, digest, PUBLIC, "evil")


@pytest.mark.parametrize("head_first", [False, True])
async def test_an_upstream_that_answers_everything_with_its_page_has_nothing(
    tmp_path: Path, hubs: Hubs, head_first: bool
) -> None:
    private, public = await hubs(), await hubs()
    image = private.image(APP, "1", layers=[b"secret" * 1000])
    page = {"Content-Type": "text/html"}
    public.fault(Status(200, page, b"<html>welcome</html>"), path="*/v2/*")
    ways = [way for digest in (image.digest, *image.blobs) for way in every_way(digest, PUBLIC, APP)]
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    async with pulling(tmp_path, hosts) as mirror:
        if head_first:  # what it says of a blob that nobody has yet is no proof later on either
            for method, target, headers in ways:
                if method == "HEAD":
                    await mirror.request(method, target, headers)
        await pull(mirror, image, "1", host=PRIVATE)
        for method, target, headers in ways:
            answer = await mirror.request(method, target, headers)
            assert answer.status in (404, 502), (method, target, headers)


async def test_a_running_fill_is_not_joined_through_an_upstream_that_answers_everything(
    tmp_path: Path, hubs: Hubs
) -> None:
    private, public = await hubs(), await hubs()
    digest = private.blob(APP, b"secret" * (BIG // 6))
    public.fault(Status(200, {"Content-Type": "text/html"}, b"<html>welcome</html>"), path="*/v2/*")
    release = asyncio.Event()
    private.fault(Stall(release, BIG // 2), kind="blob", method="GET")
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    async with pulling(tmp_path, hosts) as mirror:
        filling = asyncio.create_task(mirror.get(path("blobs", digest, host=PRIVATE)))
        part = mirror.cache / "parts" / digest.fallback_tag
        await eventually(lambda: part.exists() and part.stat().st_size >= BIG // 2)
        for method, target, headers in every_way(digest, PUBLIC, APP):
            async with asyncio.timeout(5):
                answer = await mirror.request(method, target, headers)
            assert answer.status in (404, 502), (method, target, headers)
        release.set()
        assert (await filling).status == 200


@pytest.mark.parametrize("name_it", [False, True], ids=["no digest", "another digest"])
async def test_a_head_that_does_not_name_the_manifest_is_no_proof(tmp_path: Path, hubs: Hubs, name_it: bool) -> None:
    private, public = await hubs(), await hubs()
    image = private.image(APP, "1")
    headers = {"Content-Type": media_types.OCI_MANIFEST}
    if name_it:
        headers["Docker-Content-Digest"] = Digest.of(b"another")
    public.fault(Status(200, headers), kind="manifest", method="HEAD")
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    async with pulling(tmp_path, hosts) as mirror:
        await pull(mirror, image, "1", host=PRIVATE)
        target = path("manifests", image.digest, host=PUBLIC)
        assert (await mirror.get(target)).status == 404
        # Who has it, and says nonsense to HEAD only, is believed by its bytes.
        public.keep(APP, image, "1")
        assert (await mirror.get(path("manifests", "1", host=PUBLIC))).status == 200


async def test_a_head_that_lies_about_the_size_does_not_hide_the_blob(tmp_path: Path, hubs: Hubs) -> None:
    one, other = await hubs(), await hubs()
    digest = one.blob(APP, b"the same" * 100)
    other.blob(APP, b"the same" * 100)
    other.fault(Status(200, {}, b""), kind="blob", method="HEAD")
    async with pulling(tmp_path, {PRIVATE: upstream(one), PUBLIC: upstream(other)}) as mirror:
        assert (await mirror.get(path("blobs", digest, host=PRIVATE))).status == 200
        answer = await mirror.get(path("blobs", digest, host=PUBLIC))
        assert (answer.status, answer.body) == (200, b"the same" * 100)


async def test_a_wrong_head_opens_nothing_while_the_upstream_cannot_be_asked(tmp_path: Path, hubs: Hubs) -> None:
    private, public = await hubs(), await hubs()
    image = private.image(APP, "1")
    hosts = {PRIVATE: upstream(private), PUBLIC: upstream(public)}
    async with pulling(tmp_path, hosts) as mirror:
        await pull(mirror, image, "1", host=PRIVATE)
        for status in (401, 403, 500, 429):
            public.heal()
            public.fault(Status(status))
            for digest in (image.digest, image.config):
                for method, target, headers in every_way(digest, PUBLIC, APP):
                    assert (await mirror.request(method, target, headers)).status in (403, 404, 502, 503)


async def test_no_secret_is_told_to_anybody(
    tmp_path: Path, hubs: Hubs, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    user = Basic("user-name", "pass-word-7f3a")
    hub = await hubs(auth=Bearer(TokenIssuer(user)))
    image = hub.image(APP, "1")
    keys = {"username": user.username, "password": user.password, "allow_anonymous": True, "insecure": True}
    told: list[str] = []
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s", **keys)}) as mirror:
        await pull(mirror, image, "1")
        for fault in (None, Status(401), Status(403), Status(404), Status(500, body=b"pass-word-7f3a")):
            hub.heal()
            if fault is not None:
                hub.fault(fault)
            for target in (
                path("manifests", "1"),
                path("manifests", "2"),
                path("tags", ""),
                "/metrics",
                "/v2/_catalog",
            ):
                answer = await mirror.get(target)
                told += [str(dict(answer.headers)), answer.body.decode()]
        hub.heal()
        answer = await mirror.get(path("blobs", image.config))
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert (await mirror.get(path("manifests", image.digest))).headers["Cache-Control"].startswith("private")
    assert any("Bearer" in entry.headers.get("Authorization", "") for entry in hub.requests)
    secrets = [user.password, "secret-token-", basic_value(user.username, user.password).removeprefix("Basic ")]
    logged = [record.getMessage() + str(vars(record)) for record in caplog.records]
    out, err = capfd.readouterr()
    for secret in secrets:
        assert not [text for text in (*told, *logged, out, err) if secret in text]
        assert not list(files_with(tmp_path / "cache", secret))


async def test_signed_urls_of_a_cdn_are_told_to_nobody(
    tmp_path: Path, hubs: Hubs, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    cdn = await start(Cdn())
    hub = await hubs(cdn=cdn)
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        cdn.fault(Status(500))
        answer = await mirror.get(path("blobs", image.config))
        assert answer.status == 502
        assert b"signature" not in answer.body
        cdn.heal()
        await pull(mirror, image, "1")
    assert not list(files_with(tmp_path / "cache", "secret-signature"))
    mine = [str(vars(record)) for record in caplog.records if record.name.startswith("mirror")]
    assert not [text for text in mine if "secret-signature" in text]


async def test_credentials_without_a_word_for_it_are_refused(tmp_path: Path, hub: Hub) -> None:
    keys = {"username": "user", "password": "pass-word"}
    with pytest.raises(ConfigError) as caught:
        async with pulling(tmp_path, {HOST: upstream(hub, **keys)}):
            pass
    assert "allow_anonymous" in str(caught.value)
    assert "pass-word" not in str(caught.value)


async def test_who_lists_a_digest_and_answers_without_a_length_does_not_have_it(tmp_path: Path, hubs: Hubs) -> None:
    """Nor while it comes for somebody else, without a length either."""
    private, public = await hubs(), await hubs()
    image = private.image(APP, "1", layers=[b"secret" * BIG])
    digest = image.layers[-1]
    public.keep("other", Image(image.media_type, image.content, {}), "1")
    release = asyncio.Event()
    private.fault(NoLength(release, BIG), method="GET", kind="blob")
    public.fault(Status(200), method="HEAD", kind="blob")
    public.fault(Oversized(100, chunked=True), method="GET", kind="blob")
    async with pulling(tmp_path, {PRIVATE: upstream(private), PUBLIC: upstream(public)}) as mirror:
        assert (await mirror.get(path("manifests", "1", host=PRIVATE))).status == 200
        assert (await mirror.get(path("manifests", "1", host=PUBLIC, repository="other"))).status == 200
        async with mirror.session.get(mirror.url + path("blobs", digest, host=PRIVATE)) as coming:
            await coming.content.readexactly(1000)
            taken = await mirror.get(path("blobs", digest, host=PUBLIC, repository="other"))
            assert (taken.status, taken.code) == (502, "UNAVAILABLE")
            release.set()
            assert len(await coming.read()) == len(image.blobs[digest]) - 1000
        taken = await mirror.get(path("blobs", digest, host=PUBLIC, repository="other"))
        assert (taken.status, taken.code) == (502, "UNAVAILABLE")


async def test_forgetting_what_is_listed_in_the_pool_does_not_open_it(tmp_path: Path, hub: Hub) -> None:
    """What is in the pool and linked nowhere, as after `cache forget`, is asked for again."""
    content = b"blob"
    digest = Digest.of(content)
    hub.blob(APP, content)
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(path("blobs", digest))).status == 200
        assert json.loads((await mirror.get(path("tags", ""))).body)["tags"] == []
        for file in (mirror.cache / "names").rglob("_links"):
            file.unlink()
        del hub.repositories[APP].blobs[digest]
        assert (await mirror.get(path("blobs", digest))).status == 404
