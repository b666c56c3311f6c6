"""An upstream that means harm, through the whole mirror: nothing leaks, nothing grows without bound."""

import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from mirror.oci import media_types
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from tests.content import encode
from tests.hub import (
    Authority,
    Basic,
    Bearer,
    EndlessHeaders,
    Hub,
    Image,
    Oversized,
    Redirect,
    Status,
    TokenIssuer,
    TokenService,
    eventually,
)
from tests.hub.fixtures import Hubs, Start
from tests.pull_through.asking import APP, HOST, blob_files, check_cache, path, pulling, upstream

USER = Basic("user-name", "pass-word-7f3a")
KEYS = {"username": USER.username, "password": USER.password, "allow_anonymous": True, "insecure": True}
GIB = 1 << 30


async def test_a_realm_on_another_host_gets_no_credentials(tmp_path: Path, hubs: Hubs, start: Start) -> None:
    evil = await start(TokenService(TokenIssuer(USER), address="127.0.0.2"))
    hub = await hubs(auth=Bearer(evil.issuer, realm=evil.realm))
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, **KEYS)}) as mirror:
        for kind in ("manifests", "tags", "referrers", "blobs"):
            answer = await mirror.get(path(kind, "1" if kind == "manifests" else "sha256:" + "0" * 64))
            assert (answer.status, answer.code) == (403, "DENIED")
    assert evil.requests == []


async def test_a_redirect_carries_no_credentials_to_another_host(tmp_path: Path, hubs: Hubs) -> None:
    evil = await hubs(address="127.0.0.2")
    hub = await hubs(auth=USER)
    hub.image(APP, "1")
    evil.image(APP, "1")
    hub.fault(Redirect(f"{evil.url}/v2/{APP}/manifests/1"), kind="manifest")
    async with pulling(tmp_path, {HOST: upstream(hub, **KEYS)}) as mirror:
        assert (await mirror.get(path("tags", ""))).status == 200
        await mirror.get(path("manifests", "1"))
    assert "Authorization" in hub.requests[-1].headers
    assert evil.requests
    assert not [entry for entry in evil.requests if "Authorization" in entry.headers]


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "file:///etc/passwd", "//", "http://", "\x7f"],
)
async def test_a_redirect_to_where_we_do_not_go_is_a_clear_error(tmp_path: Path, hub: Hub, location: str) -> None:
    image = hub.image(APP, "1")
    hub.fault(Redirect(location))
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for target in (path("manifests", "1"), path("blobs", image.config), path("tags", "")):
            began = time.monotonic()
            answer = await mirror.get(target)
            assert (answer.status, answer.code) == (502, "UNAVAILABLE")
            assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "127.1.2.3", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "x.localhost"]
)
async def test_an_upstream_elsewhere_leads_nobody_to_this_machine(
    tmp_path: Path, hubs: Hubs, outer_address: str, name: str
) -> None:
    hub, inside = await hubs(address=outer_address), await hubs()
    image = inside.image(APP, "1", layers=[b"a secret of this machine" * 100_000])
    reference = inside.reference(APP, image, "application/vnd.test")
    asked = {
        path("manifests", "1"): "manifests/1",
        path("manifests", reference.digest): f"manifests/{reference.digest}",
        path("blobs", image.config): f"blobs/{image.config}",
        path("blobs", image.layers[1]): f"blobs/{image.layers[1]}",
        path("tags", ""): "tags/list",
        path("referrers", image.digest): f"referrers/{image.digest}",
    }
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for target, there in asked.items():
            rule = hub.fault(Redirect(f"http://{name}:{inside.port}/v2/{APP}/{there}"))
            for method in ("HEAD", "GET"):
                answer = await mirror.request(method, target)
                assert answer.status == 502, (method, target)
                if method == "GET":
                    assert answer.code == "UNAVAILABLE"
            assert rule.hits
            hub.heal()
        assert blob_files(mirror.cache) == []
    assert inside.requests == []


async def test_an_upstream_elsewhere_may_lead_to_other_hosts(tmp_path: Path, hubs: Hubs, outer_address: str) -> None:
    """What the refusals above would not show: that it is the address that they are about."""
    hub, cdn = await hubs(address=outer_address), await hubs(address=outer_address)
    image = cdn.image(APP, "1")
    hub.fault(Redirect(f"{cdn.url}/v2/{APP}/manifests/1"))
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(path("manifests", "1"))).body == image.content


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_redirect_from_https_to_plain_http_is_followed_by_insecure_only(
    tmp_path: Path, hubs: Hubs, authority: Authority, insecure: bool
) -> None:
    hub, plain = await hubs(tls=authority.server_context()), await hubs()
    image = plain.image(APP, "1")
    hub.fault(Redirect(f"{plain.url}/v2/{APP}/manifests/1"), kind="manifest")
    hub.fault(Redirect(f"{plain.url}/v2/{APP}/blobs/{image.config}"), kind="blob")
    async with pulling(tmp_path, {HOST: upstream(hub, ca=str(authority.ca), insecure=insecure)}) as mirror:
        for target in (path("manifests", "1"), path("blobs", image.config)):
            answer = await mirror.get(target)
            assert answer.status == (200 if insecure else 502)
            assert insecure or answer.code == "UNAVAILABLE"
    assert (plain.requests == []) == (not insecure)


@pytest.mark.parametrize("fault", [Oversized(10 * GIB), Oversized(10 * GIB, chunked=True), EndlessHeaders()])
async def test_what_does_not_end_is_not_read_to_its_end(
    tmp_path: Path, hub: Hub, fault: Oversized | EndlessHeaders
) -> None:
    image = hub.image(APP, "1")
    hub.fault(fault)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        targets = [path("manifests", "1"), path("manifests", image.digest), path("referrers", image.digest)]
        for target in targets:
            answer = await mirror.get(target)
            assert (answer.status, answer.code) == (502, "UNAVAILABLE"), target
        assert blob_files(mirror.cache) == []
    assert sum(entry.bytes_sent for entry in hub.requests[:2]) < 64 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


BOMBS = {
    "brackets": b"[" * 4_000_000,
    "nested objects": b'{"a":' * 800_000,
    "a number without end": b'{"schemaVersion":' + b"9" * 4_000_000 + b"}",
    "infinity": b'{"manifests":[{"digest":"sha256:' + b"0" * 64 + b'","size":1e999}]}',
    "no UTF-8": b"\xff\xfe" * 1000,
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"x"',
    "a web page": b"<!doctype html>" * 100,
    "no descriptors": b'{"manifests":[1,2,3]}',
    "negative size": b'{"layers":[{"digest":"sha256:' + b"0" * 64 + b'","size":-1}]}',
    "a digest that climbs": b'{"layers":[{"digest":"sha256:../../etc/passwd","size":1}]}',
    "lone surrogates": b'{"config":{"digest":"\\ud800","size":1}}',
}


async def test_json_that_harms_is_an_error_and_not_stored(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for name, content in BOMBS.items():
            hub.heal()
            image = b"layers" in content or b"config" in content
            media_type = media_types.OCI_MANIFEST if image else media_types.OCI_INDEX
            hub.fault(Status(200, {"Content-Type": media_type}, content), kind="manifest")
            answer = await mirror.get(path("manifests", "1"))
            assert (answer.status, answer.code) == (502, "UNAVAILABLE"), name
        assert blob_files(mirror.cache) == []
        hub.heal()
        assert (await mirror.get(path("manifests", "1"))).status == 200


async def test_a_manifest_of_the_largest_kind_is_served(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    entry = {"mediaType": media_types.OCI_MANIFEST, "digest": image.digest, "size": len(image.content)}
    many = encode({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry] * 26_000})
    assert len(many) < 4 * 1024 * 1024
    hub.keep(APP, Image(media_types.OCI_INDEX, many, {}), "many")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for tag in ("many", "1"):
            assert (await mirror.get(path("manifests", tag))).status == 200
        await check_cache(mirror.cache)


async def test_an_index_that_lists_what_nobody_here_can_check_is_served_with_all_else(
    tmp_path: Path, hub: Hub
) -> None:
    image = hub.image(APP, "1")
    digest = "blake3:" + "0" * 64
    other = {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "size": 1}
    index = encode({"mediaType": media_types.OCI_INDEX, "manifests": [other, image.descriptor()]})
    hub.keep(APP, Image(media_types.OCI_INDEX, index, {}), "both")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(path("manifests", "both"))
        assert (answer.status, answer.body) == (200, index)
        assert (await mirror.get(path("manifests", image.digest))).body == image.content
        refused = await mirror.get(path("manifests", digest))
        assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
        await check_cache(mirror.cache)


async def test_a_head_that_lies_changes_nothing(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await mirror.get(path("manifests", "1"))
        for headers in (
            {"Docker-Content-Digest": "sha256:" + "0" * 64},
            {"Docker-Content-Digest": "nonsense"},
            {"Docker-Content-Digest": "x" * 7000},
            {"Content-Type": "text/html"},
        ):
            hub.heal()
            hub.fault(Status(200, headers), method="HEAD")
            mirror.running.listener.registry._known.clear()
            answer = await mirror.get(path("manifests", "1"))
            assert (answer.status, answer.body) == (200, image.content)
            assert answer.headers["Content-Type"] == media_types.OCI_MANIFEST


async def test_a_manifest_under_a_digest_that_is_not_its_own_is_not_kept(tmp_path: Path, hub: Hub) -> None:
    image, other = hub.image(APP, "1"), hub.image(APP, "2")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for headers in ({}, {"Docker-Content-Digest": str(image.digest)}):
            hub.heal()
            content_type = {"Content-Type": other.media_type}
            hub.fault(Status(200, {**content_type, **headers}, other.content), kind="manifest")
            answer = await mirror.get(path("manifests", image.digest))
            assert (answer.status, answer.code) == (502, "UNAVAILABLE")
        assert blob_files(mirror.cache) == []


async def test_a_size_that_head_lied_about_does_not_stand_in_the_way_of_the_blob(tmp_path: Path, hub: Hub) -> None:
    content = b"blob" * 1000
    digest = hub.blob(APP, content)
    hub.fault(Status(200, body=b"x" * 17), kind="blob", method="HEAD")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.head(path("blobs", digest))).headers["Content-Length"] == "17"
        answer = await mirror.get(path("blobs", digest))
        assert (answer.status, answer.body) == (200, content)
        await eventually(lambda: blob_files(mirror.cache))
        assert (await mirror.head(path("blobs", digest))).headers["Content-Length"] == "4000"


async def test_a_blob_asked_for_as_a_manifest_is_not_read_into_memory(tmp_path: Path, hub: Hub) -> None:
    digest = hub.blob(APP, b"x" * (MAX_MANIFEST_BYTES + 1))
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        assert (await mirror.get(path("blobs", digest))).status == 200
        await eventually(lambda: blob_files(mirror.cache))
        # Were it read, and the HEAD believed, it would be found to be no manifest.
        hub.fault(Status(200), kind="manifest", method="HEAD")
        answer = await mirror.get(path("manifests", digest))
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
        assert hub.count("GET", kind="manifest") == 1


async def test_names_that_somebody_made_up_leave_nothing(tmp_path: Path, hub: Hub) -> None:
    """Many registries say MANIFEST_UNKNOWN also of repositories that they do not have."""
    unknown = encode({"errors": [{"code": "MANIFEST_UNKNOWN", "message": ""}]})
    hub.fault(Status(404, body=unknown), path="*/made-up/*")
    digest = "sha256:" + "1" * 64
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for number in range(5):
            name = f"made-up/name{number}"
            assert (await mirror.get(path("manifests", "1", repository=name))).status == 404
            assert (await mirror.get(path("manifests", digest, repository=name))).status == 404
            assert (await mirror.get(path("blobs", digest, repository=name))).status == 404
            answer = await mirror.get(path("referrers", digest, repository=name))
            assert (answer.status, answer.json()["manifests"]) == (200, [])
        assert (await mirror.get("/v2/_catalog")).json() == {"repositories": []}
    assert [file for file in (tmp_path / "cache" / "names").rglob("*") if file.is_file()] == []
    with closing(sqlite3.connect(tmp_path / "cache" / "index.db")) as database:
        assert database.execute("SELECT count(*) FROM uses").fetchone() == (0,)
