"""What clients were seen to do, each thing by itself: by the client where it can be made to, else on a socket."""

import contextlib
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.bench.crowd import MIB
from tests.bench.fills import part_bytes
from tests.clients.commands import Commands, podman
from tests.clients.conftest import Containerd, MirroredDocker, Stored
from tests.clients.registries import Registry
from tests.clients.sample import ARCHITECTURE
from tests.clients.through import mirroring, quiet, upstream
from tests.content import tar
from tests.hub import Corrupt, Hub, Image, Reset, Status, Truncate, WrongLength
from tests.hub.beside import Beside
from tests.hub.faults import Fault
from tests.running import Reply, get, wait_until

DAEMONS = pytest.mark.xdist_group("daemons")
WORKERS = pytest.mark.parametrize("workers", [1, 2])
FAULTS = [Truncate(0), Truncate(20), Corrupt(20), WrongLength(5), Reset(), Status(503)]


@pytest.fixture
def beside() -> Iterator[Beside]:
    with Beside() as running:
        yield running


@pytest.fixture
def hub(beside: Beside) -> Hub:
    return beside.open(Hub())


def image_of(hub: Hub, name: str = "library/hello") -> Image:
    return hub.multi_platform(name, "latest", (ARCHITECTURE, "riscv64"))


@pytest.mark.client("skopeo")
@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_skopeo_never_sees_a_small_blob_come_wrong(hub: Hub, run: Commands, tmp_path: Path, fault: Fault) -> None:
    image = image_of(hub)
    rule = hub.fault(fault, kind="blob", times=1)
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(hub.url)}) as mirror:
        copy = ["skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
        run(*copy, f"docker://{mirror.host}/library/hello:latest", f"dir:{tmp_path}/copied")
    assert rule.hits == 1
    assert Digest.of((tmp_path / "copied" / "manifest.json").read_bytes()) == image.digest


@pytest.mark.client("podman")
@pytest.mark.parametrize("fault", [Truncate(20), Corrupt(20)], ids=repr)
def test_podman_never_sees_a_small_blob_come_wrong(hub: Hub, run: Commands, tmp_path: Path, fault: Fault) -> None:
    image_of(hub)
    rule = hub.fault(fault, kind="blob", times=1)
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(hub.url)}) as mirror:
        run(*podman(run.home), "pull", "--quiet", "--tls-verify=false", f"{mirror.host}/library/hello:latest")
    assert rule.hits == 1


@DAEMONS
@pytest.mark.client("containerd", "ctr")
@pytest.mark.parametrize("fault", [Truncate(20), Corrupt(20)], ids=repr)
def test_containerd_never_sees_a_small_blob_come_wrong(
    hub: Hub, containerd: Containerd, tmp_path: Path, fault: Fault
) -> None:
    image_of(hub)
    rule = hub.fault(fault, kind="blob", times=1)
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(hub.url)}) as mirror:
        name = f"{mirror.host}/library/hello:latest"
        containerd("images", "pull", "--plain-http", name)
        containerd("images", "rm", "--sync", name)
    assert rule.hits == 1


@WORKERS
def test_docker_by_a_second_name_goes_straight_to_the_blobs(hub: Hub, tmp_path: Path, workers: int) -> None:
    (layer, content) = next(iter(hub.image("library/first", "latest").blobs.items()))
    hub.blob("library/second", content)
    hub.blob("library/other", b"something else")
    with mirroring(tmp_path, {"docker.io": upstream(hub.url)}, workers=workers) as mirror:
        # Nothing was asked before, not even a manifest.
        assert get(mirror.host, f"/v2/library/first/blobs/{layer}").body == content
        for _ in range(4):
            found = get(mirror.host, f"/v2/library/second/blobs/{layer}")
            assert (found.status, found.body) == (200, content)
        assert get(mirror.host, f"/v2/library/other/blobs/{layer}").status == 404
        assert get(mirror.host, f"/v2/library/other/blobs/{layer}", method="HEAD").status == 404
    assert hub.count("GET", "*/second/blobs/*") == 0
    assert hub.count("GET", "*/blobs/*") == 1
    assert hub.count("HEAD", "*/second/blobs/*") <= workers


@DAEMONS
@pytest.mark.client("docker", "dockerd")
def test_docker_goes_on_by_range_where_a_killed_mirror_left_it(
    beside: Beside, mirrored_docker: MirroredDocker, tmp_path: Path
) -> None:
    # So slowly that the mirror is dead long before it has all, also on a machine that is busy.
    hub = beside.open(Hub(bytes_per_second=5e6))
    layer = tar({"big": random.Random(1).randbytes(30 * MIB)})
    image = hub.image("library/resumed", "latest", layers=[layer], architecture=ARCHITECTURE)
    keys = {"listen": f"127.0.0.1:{mirrored_docker.port}"}
    upstreams = {"docker.io": upstream(hub.url)}
    with ThreadPoolExecutor(1) as threads:
        with mirroring(tmp_path, upstreams, **keys) as mirror:
            pulling = threads.submit(mirrored_docker.run, "docker", "pull", "--quiet", "resumed")
            wait_until(lambda: part_bytes(tmp_path) > 8 * MIB, "a part of the layer is there")
            mirror.kill()
        with mirroring(tmp_path, upstreams, **keys) as mirror:
            pulling.result()
            numbers = get(mirror.host, "/metrics").body.decode()
    (found,) = json.loads(mirrored_docker.run("docker", "image", "inspect", "resumed"))
    mirrored_docker.run("docker", "image", "rm", "resumed")
    assert found["RepoDigests"][0].endswith(image.digest)
    assert 'mirror_requests_total{endpoint="blob",method="GET",status="206"}' in numbers
    first, *others = hub.select("GET", f"*/blobs/{image.layers[1]}")
    assert "Range" not in first.headers
    # The fill's own, and perhaps what docker asked for while the fill was still reading what it had.
    assert {"Range" in one.headers for one in others} == {True}
    assert sum(one.bytes_sent for one in (first, *others)) < 1.5 * len(layer)


def is_stale(reply: Reply) -> bool:
    return "age" in reply.headers and "; hit; ttl=-" in reply.headers["cache-status"]


@WORKERS
@pytest.mark.parametrize("current", [False, True], ids=["referrers API", "none"])
def test_cosign_asks_referrers_twice_and_then_tags_that_are_not_there(
    beside: Beside, tmp_path: Path, workers: int, current: bool
) -> None:
    hub = beside.open(Hub(current=current))
    image = image_of(hub)
    tags = [f"{image.digest.fallback_tag}{end}" for end in ("", ".sig", ".att", ".sbom")]
    keys = {"unknown_ttl": "10ms"}
    with mirroring(tmp_path, {"docker.io": upstream(hub.url, **keys)}, workers=workers) as mirror:

        def ask() -> list[Reply]:
            """Each on a connection of its own, so that any of the workers may get it."""
            base = "/v2/library/hello"
            replies = [get(mirror.host, f"{base}/manifests/latest")]
            replies += [get(mirror.host, f"{base}/referrers/{image.digest}") for _ in range(2)]
            return replies + [get(mirror.host, f"{base}/manifests/{tag}") for tag in tags]

        def statuses() -> list[int]:
            return [reply.status for reply in ask()]

        expected = [200, 200, 200, 404, 404, 404, 404]

        def told_to_all() -> bool:
            """Whether each worker can know what was said to be unknown, whichever of them asked."""
            with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "index.db")) as index:
                (count,) = index.execute("SELECT count(*) FROM unknowns").fetchone()
                return bool(count == len(tags))

        assert statuses() == expected
        wait_until(told_to_all, "it is written what is unknown")
        beside.run(hub.refuse())
        for _ in range(4):
            again = ask()
            assert [reply.status for reply in again] == expected
            assert all(is_stale(reply) for reply in again)
            assert json.loads(again[1].body)["manifests"] == []


@pytest.mark.client("cosign")
@WORKERS
def test_cosign_verifies_and_misses_signatures_with_the_upstream_gone(
    registry: Registry, stored: Stored, run: Commands, tmp_path: Path, workers: int
) -> None:
    storage = shutil.copytree(stored.storage, tmp_path / "signed")
    cosign = Commands({**run.environment, "COSIGN_PASSWORD": "secret"})
    insecure = ["--allow-http-registry", "--allow-insecure-registry"]
    key = tmp_path / "key"
    cosign("cosign", "generate-key-pair", f"--output-key-prefix={key}")
    with Registry(stored.command, tmp_path, storage) as signed:
        old_way = ["--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false"]
        image = f"{signed.host}/library/hello@{stored.digests['hello']}"
        cosign("cosign", "sign", "--yes", "--key", f"{key}.key", *old_way, *insecure, image)
        upstreams = {"docker.io": upstream(signed.url), "quay.io": upstream(registry.url)}
        with mirroring(tmp_path / "mirror", upstreams, workers=workers) as mirror:
            verify = ["cosign", "verify", "--key", f"{key}.pub", "--private-infrastructure=true", *insecure]
            signed_before = signed.blobs_sent()
            for stage in ("cold", "warm", "gone"):
                if stage == "gone":
                    sent = signed.blobs_sent() - signed_before
                    assert sent
                    assert set(sent.values()) == {1}, "what was there already was not fetched again"
                    signed.stop()
                    registry.stop()
                cosign(*verify, f"{mirror.host}/docker.io/library/hello:latest")
                complaint = cosign.refused(*verify, f"{mirror.host}/quay.io/team/hello:latest")
                assert "signature" in complaint, stage
                assert "UNAVAILABLE" not in complaint, stage


@pytest.mark.client("regctl")
def test_regctl_asks_for_referrers_of_referrers(beside: Beside, hub: Hub, run: Commands, tmp_path: Path) -> None:
    image = image_of(hub)
    sbom = hub.reference("library/hello", image, "application/spdx+json")
    signature = hub.reference("library/hello", sbom, "application/vnd.example.signature")
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(hub.url)}) as mirror:
        run("regctl", "registry", "set", "--tls=disabled", mirror.host)
        name = f"{mirror.host}/docker.io/library/hello"
        turns = iter(range(2))

        def found() -> None:
            tree = run("regctl", "artifact", "tree", f"{name}:latest")
            assert sbom.digest in tree
            assert signature.digest in tree
            target = f"ocidir://{tmp_path}/copied{next(turns)}"
            run("regctl", "image", "copy", "--referrers", f"{name}:latest", f"{target}:latest")
            for digest in (image.digest, sbom.digest, signature.digest):
                assert run("regctl", "manifest", "head", f"{target}@{digest}") == digest

        found()
        beside.run(hub.refuse())
        found()


@pytest.mark.client("helm")
def test_helm_asks_with_an_underscore_for_a_version_with_a_plus(
    registry: Registry, run: Commands, tmp_path: Path
) -> None:
    chart = tmp_path / "chart"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: app\nversion: 1.1.0+oci\n")
    run("helm", "package", "--destination", tmp_path, chart)
    packed = tmp_path / "app-1.1.0+oci.tgz"
    run("helm", "push", "--plain-http", packed, f"oci://{registry.host}/charts")
    before = len(registry.accesses())
    with mirroring(tmp_path / "mirror", {"quay.io": upstream(registry.url)}) as mirror:
        turns = iter(range(4))

        def pulls(version: str = "1.1.0+oci") -> None:
            folder = tmp_path / f"pulled{next(turns)}"
            folder.mkdir()
            source = f"oci://{mirror.host}/quay.io/charts/app"
            run("helm", "pull", "--plain-http", "--destination", folder, "--version", version, source)
            assert (folder / packed.name).read_bytes() == packed.read_bytes()

        pulls()
        # A range: helm looks through the list of tags.
        pulls(">=1.0.0")
        assert any(access.path.endswith("/manifests/1.1.0_oci") for access in registry.accesses()[before:])
        sent = registry.blobs_sent()
        assert sent
        assert set(sent.values()) == {1}, "the second pull took nothing from it"
        registry.stop()
        pulls()
        pulls(">=1.0.0")
        assert registry.blobs_sent() == sent
        assert get(mirror.host, "/v2/quay.io/charts/app/manifests/1.1.0%2Boci").status == 404
        quiet(mirror)


@WORKERS
def test_links_keep_what_names_the_host(hub: Hub, tmp_path: Path, workers: int) -> None:
    for number in range(5):
        hub.image("team/app", f"v{number}")
    with mirroring(tmp_path, {"quay.io": upstream(hub.url)}, workers=workers) as mirror:
        for start, namespace in (
            ("/v2/team/app/tags/list?n=2&ns=quay.io", "quay.io"),
            ("/v2/team/app/tags/list?n=2&oci-ref-name=quay.io%2Fteam%2Fapp", "quay.io"),
            ("/v2/quay.io/team/app/tags/list?n=2", None),
            ("/quay.io/v2/team/app/tags/list?n=2", None),
        ):
            target: str | None = start
            tags: list[str] = []
            pages = 0
            while target is not None:
                reply = get(mirror.host, target)
                assert reply.status == 200
                assert reply.headers.get("oci-namespace") == namespace
                tags += json.loads(reply.body)["tags"]
                pages += 1
                link = reply.headers.get("link")
                target = link.partition("<")[2].partition(">")[0] if link else None
            assert pages == 3
            assert tags == [f"v{number}" for number in range(5)]
        named = {"OCI-REF-NAME": "quay.io/team/app"}
        reply = get(mirror.host, "/v2/app/manifests/v1", headers=named)
        assert (reply.status, reply.headers["oci-namespace"]) == (200, "quay.io")
        assert "OCI-REF-NAME" in reply.headers["vary"]
