"""TLS with our own authority, client certificates, proxies; what the environment says counts for nothing."""

from pathlib import Path

import pytest

from mirror.upstream import Endpoint, TlsSettings, UpstreamClient, UpstreamSettings
from mirror.upstream.errors import BadAnswer, Refused
from tests.hub import Authority, Proxy, Redirect
from tests.hub.auth import basic_value
from tests.hub.fixtures import Hubs, Start
from tests.upstream.conftest import Connect, read_all


async def test_a_registry_of_our_own_authority_is_trusted_where_it_is_named(
    hubs: Hubs, connect: Connect, authority: Authority
) -> None:
    hub = await hubs(tls=authority.server_context())
    image = hub.image("a", "1")
    with pytest.raises(Refused, match="TLS"):
        await (await connect(hub)).get_manifest("a", "1")
    client = await connect(hub, tls=TlsSettings(ca=authority.ca))
    assert (await client.get_manifest("a", "1")).digest == image.digest
    insecure = await connect(hub, tls=TlsSettings(insecure=True))
    assert (await insecure.get_manifest("a", "1")).digest == image.digest


async def test_a_certificate_for_another_name_is_refused(hubs: Hubs, connect: Connect, authority: Authority) -> None:
    hub = await hubs(tls=authority.server_context(), address="127.0.0.2")
    hub.image("a", "1")
    with pytest.raises(Refused, match="TLS"):
        await (await connect(hub, tls=TlsSettings(ca=authority.ca))).get_manifest("a", "1")


async def test_plain_http_on_a_tls_port_is_refused(hubs: Hubs, connect: Connect, authority: Authority) -> None:
    hub = await hubs()
    client = await connect(Endpoint(f"https://{hub.host}"), tls=TlsSettings(ca=authority.ca))
    with pytest.raises(Refused, match="TLS"):
        await client.get_manifest("a", "1")


async def test_a_client_certificate_is_shown_to_the_registry_only(
    hubs: Hubs, connect: Connect, authority: Authority
) -> None:
    certificate, key = authority.issue("client")
    hub = await hubs(tls=authority.server_context(client_certificates=True))
    other = await hubs(tls=authority.server_context(client_certificates=True))
    digest = hub.blob("a", b"content")
    other.blob("a", b"content")
    with pytest.raises((Refused, BadAnswer)):
        await read_all(await connect(hub, tls=TlsSettings(ca=authority.ca)), "a", digest)
    client = await connect(hub, tls=TlsSettings(authority.ca, certificate, key))
    assert await read_all(client, "a", digest) == b"content"
    hub.fault(Redirect(f"{other.url}/v2/a/blobs/{digest}"))
    with pytest.raises((Refused, BadAnswer)):
        await read_all(client, "a", digest)
    assert other.requests == []


async def test_a_certificate_file_that_cannot_be_used_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    endpoints = (Endpoint("https://up.example"),)
    client = UpstreamClient(UpstreamSettings("up.example", endpoints, tls=TlsSettings(ca=tmp_path / "ca.pem")))
    with pytest.raises(OSError):
        await client.start()


async def test_a_proxy_carries_plain_requests_and_tunnels(
    start: Start, hubs: Hubs, connect: Connect, authority: Authority
) -> None:
    proxy = await start(Proxy())
    plain, secure = await hubs(), await hubs(tls=authority.server_context())
    for hub in (plain, secure):
        image = hub.image("a", "1")
        client = await connect(hub, proxy_url=proxy.url, tls=TlsSettings(ca=authority.ca))
        assert (await client.get_manifest("a", "1")).digest == image.digest
    assert proxy.seen == [f"GET {plain.url}/v2/a/manifests/1", f"CONNECT {secure.host}"]


async def test_user_and_password_of_a_proxy_go_to_the_proxy_only(
    start: Start, hubs: Hubs, connect: Connect, authority: Authority
) -> None:
    proxy = await start(Proxy())
    url = proxy.url.replace("//", "//someone:secret@")
    plain, secure = await hubs(), await hubs(tls=authority.server_context())
    for hub in (plain, secure):
        hub.image("a", "1")
        client = await connect(hub, proxy_url=url, tls=TlsSettings(ca=authority.ca))
        await client.get_manifest("a", "1")
        assert "secret" not in repr(client.settings)
    assert proxy.authorizations == [basic_value("someone", "secret")] * 2
    assert "Proxy-Authorization" not in secure.requests[0].headers


async def test_a_proxy_that_is_gone_is_refused(hubs: Hubs, connect: Connect, start: Start) -> None:
    hub, gone = await hubs(), await hubs()
    await gone.refuse()
    with pytest.raises(Refused, match="proxy") as error:
        await (await connect(hub, proxy_url=gone.url.replace("//", "//u:secret@"))).get_manifest("a", "1")
    assert "secret" not in str(error.value)
    assert hub.requests == []


async def test_the_environment_names_no_proxy(
    hubs: Hubs, connect: Connect, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, hub = await start(Proxy()), await hubs()
    hub.image("a", "1")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    await (await connect(hub)).get_manifest("a", "1")
    assert proxy.seen == []
