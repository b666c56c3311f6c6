"""Which upstream a request means, and which requests cost no packet at all."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.content import LayoutWriter
from tests.hub import Hub, Status, eventually
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, HOST, blob_files, path, pull, pulling, upstream
from tests.serving import serving

UBUNTU = "library/ubuntu"


async def test_one_name_from_two_upstreams_through_every_way_to_choose(tmp_path: Path, hubs: Hubs) -> None:
    docker, quay = await hubs(), await hubs()
    images = {"docker.io": docker.image(UBUNTU, "1"), "quay.io": quay.image(UBUNTU, "1", files={"quay": b""})}
    plain = f"/v2/{UBUNTU}/manifests/1"
    async with pulling(tmp_path, {"docker.io": upstream(docker), "quay.io": upstream(quay)}) as mirror:
        for _ in range(2):
            for host, image in images.items():
                ways: list[tuple[str, dict[str, str]]] = [
                    (plain, {"OCI-REF-NAME": f"{host}/{UBUNTU}"}),
                    (plain, {"OCI-REF-NAME": f"{host}/{UBUNTU}:9"}),
                    (f"{plain}?oci-ref-name={host}/{UBUNTU}", {}),
                    (f"{plain}?ns={host}", {}),
                    (f"/v2/{host}/{UBUNTU}/manifests/1", {}),
                    (f"/{host}/v2/{UBUNTU}/manifests/1", {}),
                ]
                for target, headers in ways:
                    answer = await mirror.get(target, headers)
                    assert (answer.status, answer.body) == (200, image.content), target
                    by_path = "?" not in target and not headers
                    assert answer.headers.get("OCI-Namespace") == (None if by_path else host)
                    assert f'detail="{host}"' in answer.headers["Cache-Status"]
            assert (await mirror.get(plain)).body == images["docker.io"].content
            assert (await mirror.get("/v2/ubuntu/manifests/1?ns=index.docker.io")).body == images["docker.io"].content
        assert docker.count() == quay.count() == 1


async def test_links_keep_the_parameter_that_chose(tmp_path: Path, hubs: Hubs) -> None:
    docker, quay = await hubs(), await hubs()
    docker.image(UBUNTU, "docker")
    image = quay.image(UBUNTU, "a")
    quay.keep(UBUNTU, image, "b")
    async with pulling(tmp_path, {"docker.io": upstream(docker), "quay.io": upstream(quay)}) as mirror:
        for start in (f"/v2/{UBUNTU}/tags/list?n=1&ns=quay.io", f"/v2/quay.io/{UBUNTU}/tags/list?n=1"):
            found, target = [], start
            while target:
                answer = await mirror.get(target)
                found += answer.json()["tags"]
                target = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
            assert found == ["a", "b"]


CHEAP: list[tuple[str, list[tuple[str, str]]]] = [
    ("/v2/ubuntu/manifests/1?ns=quay.io", [("OCI-REF-NAME", "docker.io/library/ubuntu")]),
    ("/v2/quay.io/ubuntu/manifests/1?ns=docker.io", []),
    ("/quay.io/v2/ubuntu/manifests/1?ns=docker.io", []),
    ("/v2/ubuntu/manifests/1?ns=quay.io&ns=docker.io", []),
    ("/v2/ubuntu/manifests/1", [("OCI-REF-NAME", "quay.io/ubuntu"), ("OCI-REF-NAME", "docker.io/ubuntu")]),
    ("/v2/debian/manifests/1", [("OCI-REF-NAME", "quay.io/library/ubuntu")]),
    ("/v2/evil.example/app/manifests/1", []),
    ("/v2/app/manifests/1?ns=evil.example", []),
    ("/evil.example/v2/app/manifests/1", []),
    ("/v2/app/blobs/sha256:" + "0" * 64 + "?ns=evil.example", []),
    ("/v2/app/tags/list?ns=evil.example", []),
    ("/v2/app/referrers/sha256:" + "0" * 64 + "?ns=evil.example", []),
    # Names and tags outside the grammar never go upstream.
    ("/v2/quay.io/UPPER/manifests/1", []),
    ("/v2/quay.io/a/../b/manifests/1", []),
    ("/v2/quay.io/a/%2e%2e/manifests/1", []),
    ("/v2/quay.io/a%2Fb/manifests/1", []),
    ("/v2/quay.io/ubuntu/manifests/1+2", []),
    ("/v2/quay.io/ubuntu/manifests/" + "x" * 200, []),
    ("/v2/quay.io/ubuntu/manifests/.hidden", []),
    ("/v2/quay.io/ubuntu/manifests/sha256:short", []),
    ("/v2/quay.io/ubuntu/blobs/md5:" + "0" * 32, []),
    ("/v2/quay.io/ubuntu/manifests/%3Fquery", []),
]


async def test_what_contradicts_itself_or_is_nobodys_costs_no_packet(tmp_path: Path, hubs: Hubs) -> None:
    docker, quay = await hubs(), await hubs()
    async with pulling(tmp_path, {"docker.io": upstream(docker), "quay.io": upstream(quay)}) as mirror:
        for target, headers in CHEAP:
            for method in ("GET", "HEAD"):
                assert (await mirror.request(method, target, headers)).status in (400, 404), target
            for method in ("PUT", "POST", "PATCH", "DELETE"):
                assert (await mirror.request(method, target, headers)).status == 405
    assert docker.requests == quay.requests == []


async def test_without_default_host_plain_names_go_nowhere(tmp_path: Path, hub: Hub) -> None:
    hub.image(UBUNTU, "1")
    async with pulling(tmp_path, {"docker.io": upstream(hub)}, default_host=None) as mirror:
        assert (await mirror.get("/v2/ubuntu/manifests/1")).status == 404
    assert hub.requests == []


async def test_the_same_layer_from_a_second_host_costs_one_head_and_no_download(tmp_path: Path, hubs: Hubs) -> None:
    docker, quay = await hubs(), await hubs()
    layer = b"layer" * 100_000
    one = docker.image(APP, "1", layers=[layer])
    two = quay.image(APP, "1", layers=[layer], files={"other": b""})
    shared = one.layers[1]
    assert shared == two.layers[1]
    async with pulling(tmp_path, {"docker.io": upstream(docker), "quay.io": upstream(quay)}) as mirror:
        await pull(mirror, one, "1", host="docker.io")
        await pull(mirror, two, "1", host="quay.io")
        assert [entry.method for entry in quay.select(path=f"*/{shared}")] == ["HEAD"]
        asked = quay.count()
        await pull(mirror, two, "1", host="quay.io")
        assert quay.count() == asked
        # Two manifests, configs and layers of their own, and the one shared. Names come behind the last byte.
        await eventually(lambda: len(blob_files(mirror.cache)) == 7)


def layouts(folder: Path, name: str, tag: str, content: bytes) -> Path:
    layout = LayoutWriter(folder / name)
    layout.tag(layout.image([content]), tag).save()
    return folder


async def test_local_content_answers_first_and_its_upstream_completes_it(tmp_path: Path, hub: Hub) -> None:
    upstreams = {HOST: upstream(hub, unknown_ttl="0s")}
    roots = [await asyncio.to_thread(layouts, tmp_path / "layouts", f"{HOST}/{APP}", "1", b"local")]
    image, other = hub.image(APP, "1"), hub.image(APP, "2")
    async with serving(tmp_path / "mirror", {"upstreams": upstreams}, layouts=roots) as mirror:
        answer = await mirror.get(path("manifests", "1"))
        assert answer.body != image.content
        assert "detail" not in answer.headers["Cache-Status"]
        assert hub.requests == []
        await pull(mirror, other, "2")
        assert (await mirror.get(path("manifests", image.digest))).body == image.content
        hub.fault(Status(500))
        assert (await mirror.get(path("manifests", "1"))).body == answer.body
        assert (await mirror.get(path("manifests", "3"))).status == 502


async def test_a_plain_name_of_local_content_is_never_completed_by_a_strangers(tmp_path: Path, hub: Hub) -> None:
    hub.image("team/app", "2")
    strangers = hub.image("team/app", "1")
    roots = [await asyncio.to_thread(layouts, tmp_path / "layouts", "team/app", "1", b"local")]
    config: dict[str, Any] = {"upstreams": {"docker.io": upstream(hub)}}
    async with serving(tmp_path / "mirror", config, layouts=roots) as mirror:
        assert (await mirror.get("/v2/team/app/manifests/1")).status == 200
        for target in (
            "/v2/team/app/manifests/2",
            f"/v2/team/app/manifests/{strangers.digest}",
            f"/v2/team/app/blobs/{strangers.config}",
        ):
            assert (await mirror.get(target)).status == 404
        assert (await mirror.get("/v2/team/app/tags/list")).json()["tags"] == ["1"]
        assert hub.requests == []
        # Named in full, it is the upstream's.
        assert (await mirror.get("/v2/docker.io/team/app/manifests/1")).body == strangers.content
        assert (await mirror.get("/v2/team/app/manifests/2?ns=docker.io")).status == 200


async def test_denied_names_are_403_and_the_rule_is_for_the_log(
    tmp_path: Path, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    for repository in ("library/ok", "library/secret-thing", "team/app"):
        hub.image(repository, "1")
    rules = {"allow": ["library/*"], "deny": ["*/secret-*"]}
    caplog.set_level(logging.INFO)
    async with pulling(tmp_path, {HOST: upstream(hub, repositories=rules)}) as mirror:
        assert (await mirror.get(path("manifests", "1", repository="library/ok"))).status == 200
        asked = hub.count()
        for repository, rule in (("library/secret-thing", "deny: */secret-*"), ("team/app", "allow: none")):
            caplog.clear()
            for kind in ("manifests", "blobs", "tags", "referrers"):
                reference = "1" if kind == "manifests" else "sha256:" + "0" * 64
                answer = await mirror.get(path(kind, reference, repository=repository))
                assert (answer.status, answer.code) == (403, "DENIED")
                assert b"*" not in answer.body
                assert b"allow" not in answer.body
                assert b"rule" not in answer.body
            fields = [getattr(record, "fields", {}) for record in caplog.records]
            assert any(field.get("rule", "").startswith(rule) for field in fields)
        assert hub.count() == asked


async def test_an_upstreams_path_prefix_and_fail_over(tmp_path: Path, hubs: Hubs) -> None:
    first, second = await hubs(), await hubs(prefix="/proxy/hub")
    image = second.image(APP, "1")
    section = upstream(first)
    section["endpoints"] = [first.url, f"{second.url}/proxy/hub"]
    async with pulling(tmp_path, {HOST: section}) as mirror:
        await pull(mirror, image, "1")
        assert first.count() > 0
        await first.refuse()
        moved = second.image(APP, "2")
        await pull(mirror, moved, "2")
