"""How an upstream is talked to, by every key of the configuration that says so, through the whole mirror."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hub import Authority, Basic, Bearer, BlackHole, Drip, Hub, Image, Proxy, Stall, Status, TokenService
from tests.hub.fixtures import Hubs, Start
from tests.hub.waiting import eventually
from tests.pull_through.asking import APP, HOST, path, pull, pulling, upstream

USER = Basic("someone", "secret-swordfish")
# Over plain http, and for everybody: both have to be said.
CONSENT = {"insecure": True, "allow_anonymous": True}


def _in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"username": USER.username, "password": USER.password}


def _in_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("UP_USER", USER.username)
    monkeypatch.setenv("UP_PASSWORD", USER.password)
    return {"username": "${UP_USER}", "password": "${UP_PASSWORD}"}


def _in_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (folder / "password").write_text(f"{USER.password}\n")
    return {"username": USER.username, "password_file": "password"}


def _by_docker_login(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    auth = base64.b64encode(f"{USER.username}:{USER.password}".encode()).decode()
    (folder / "docker.json").write_text(json.dumps({"auths": {HOST: {"auth": auth}}}))
    return {"docker_config": "docker.json"}


def _from_a_helper(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    program = folder / "docker-credential-tests"
    answer = json.dumps({"Username": USER.username, "Secret": USER.password})
    # It answers only the host that was meant, on its input, with no argument but the verb.
    program.write_text(f"#!/bin/sh\nread host\n[ \"$host $*\" = '{HOST} get' ] && echo '{answer}'\n")
    program.chmod(0o755)
    return {"credential_helper": "tests"}


@pytest.mark.parametrize("place", [_in_place, _in_the_environment, _in_a_file, _by_docker_login, _from_a_helper])
async def test_credentials_open_an_upstream_wherever_they_stand(
    tmp_path: Path, hubs: Hubs, monkeypatch: pytest.MonkeyPatch, place: Any
) -> None:
    hub = await hubs(auth=USER)
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, **CONSENT, **place(tmp_path, monkeypatch))}) as mirror:
        await pull(mirror, image, "1")
    async with pulling(tmp_path / "anonymous", {HOST: upstream(hub)}) as mirror:
        answer = await mirror.get(path("manifests", "1"))
        assert (answer.status, answer.code) == (403, "DENIED")


async def test_a_token_that_the_registry_takes_as_it_is(tmp_path: Path, hubs: Hubs) -> None:
    bearer = Bearer()
    bearer.issuer.tokens["secret-direct"] = (frozenset({f"repository:{APP}:pull"}), float("inf"))
    hub = await hubs(auth=bearer)
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, token="secret-direct", **CONSENT)}) as mirror:
        await pull(mirror, image, "1")
    assert hub.count(kind="token") == 0


async def test_a_realm_that_is_listed_is_asked_for_tokens(tmp_path: Path, hubs: Hubs, start: Start) -> None:
    service = await start(TokenService(address="127.0.0.2"))
    hub = await hubs(auth=Bearer(service.issuer, service.realm))
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, realms=[service.host])}) as mirror:
        await pull(mirror, image, "1")
    assert service.requests


async def test_authorities_and_certificates_of_our_own(tmp_path: Path, hubs: Hubs, authority: Authority) -> None:
    certificate, key = authority.issue("client")
    hub = await hubs(tls=authority.server_context(client_certificates=True))
    image = hub.image(APP, "1")
    keys = {"ca": str(authority.ca), "client_cert": str(certificate), "client_key": str(key)}
    async with pulling(tmp_path, {HOST: upstream(hub, **keys, allow_anonymous=True)}) as mirror:
        await pull(mirror, image, "1")
        answer = await mirror.get(path("manifests", image.digest))
        assert answer.headers["Cache-Control"].startswith("private"), "a certificate opens what others may not see"
    async with pulling(tmp_path / "unknown", {HOST: upstream(hub, ca=str(authority.ca))}) as mirror:
        assert (await mirror.get(path("manifests", "1"))).status == 502


@pytest.mark.parametrize("insecure", [True, False])
async def test_a_certificate_that_nobody_vouches_for_is_taken_by_insecure_only(
    tmp_path: Path, hubs: Hubs, authority: Authority, insecure: bool
) -> None:
    hub = await hubs(tls=authority.server_context())
    hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, insecure=insecure)}) as mirror:
        assert (await mirror.get(path("manifests", "1"))).status == (200 if insecure else 502)


async def test_everything_goes_through_the_proxy(tmp_path: Path, hubs: Hubs, start: Start) -> None:
    proxy, hub = await start(Proxy()), await hubs()
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub, proxy=proxy.url)}) as mirror:
        await pull(mirror, image, "1")
    assert len(proxy.seen) == len(hub.requests) > 0


async def test_time_runs_out_where_the_configuration_says(tmp_path: Path, hub: Hub) -> None:
    image = hub.image(APP, "1")
    hub.fault(BlackHole(), kind="tags")
    hub.fault(Stall(asyncio.Event(), 10), kind="manifest")
    hub.fault(Drip(400), kind="blob")
    # The time for a connection is no part of it.
    keys = {"connect_timeout": "1h", "first_byte_timeout": "200ms", "idle_timeout": "200ms"}
    async with pulling(tmp_path, {HOST: upstream(hub, **keys)}) as mirror:
        for target in (path("tags", ""), path("manifests", "1")):
            began = time.monotonic()
            answer = await mirror.get(target)
            assert (answer.status, answer.code) == (504, "UNAVAILABLE")
            # Far below what stands where nothing is configured.
            assert time.monotonic() - began < 20
        # A blob has no time to be whole in: as long as bytes come, they are waited for.
        assert (await mirror.get(path("blobs", image.config))).body == image.blobs[image.config]


async def test_a_passing_failure_is_retried_as_often_as_configured(tmp_path: Path, hub: Hub) -> None:
    hub.image(APP, "1")
    for retries, status in ((1, 502), (2, 200)):
        hub.fault(Status(500), times=2)
        async with pulling(tmp_path / str(retries), {HOST: upstream(hub) | {"retries": retries}}) as mirror:
            assert (await mirror.get(path("manifests", "1"))).status == status
        hub.heal()


async def test_no_more_connections_than_configured_carry_blobs_and_manifests_do_not_wait(
    tmp_path: Path, hub: Hub
) -> None:
    release = asyncio.Event()
    digests = [hub.blob(APP, b"%d" % number * 1_100_000) for number in range(4)]
    hub.image(APP, "1")
    hub.fault(Stall(release, 0), kind="blob")
    async with pulling(tmp_path, {HOST: upstream(hub, max_connections=2)}) as mirror:
        asking = [asyncio.create_task(mirror.get(path("blobs", digest))) for digest in digests]
        await eventually(lambda: hub.count(kind="blob") == 2)
        assert (await mirror.get(path("manifests", "1"))).status == 200
        assert hub.count(kind="blob") == 2
        release.set()
        assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert hub.count(kind="blob") == 4


async def test_endpoints_are_asked_for_what_they_are_good_for(tmp_path: Path, hubs: Hubs) -> None:
    """`resolve`: tags and lists; `pull`: digests and blobs. Each below its own path."""
    naming, giving = await hubs(prefix="/names"), await hubs(prefix="/proxy/bytes")
    image: Image = naming.image(APP, "1")
    giving.keep(APP, image, "1")
    section = upstream(naming)
    section["endpoints"] = [
        {"url": f"{naming.url}/names", "capabilities": ["resolve"]},
        {"url": f"{giving.url}/proxy/bytes", "capabilities": ["pull"]},
    ]
    async with pulling(tmp_path, {HOST: section}) as mirror:
        await pull(mirror, image, "1")
        assert (await mirror.get(path("tags", ""))).json()["tags"] == ["1"]
        assert (await mirror.get(path("referrers", image.digest))).status == 200
        other = giving.image(APP, files={"other": b""})
        assert (await mirror.get(path("manifests", other.digest))).status == 200
    assert {entry.kind for entry in naming.requests} == {"manifest", "tags", "referrers"}
    assert {entry.path for entry in naming.select(kind="manifest")} == {f"/names/v2/{APP}/manifests/1"}
    assert {entry.kind for entry in giving.requests} == {"manifest", "blob"}
    assert {entry.path for entry in giving.select(kind="manifest")} == {
        f"/proxy/bytes/v2/{APP}/manifests/{other.digest}"
    }
