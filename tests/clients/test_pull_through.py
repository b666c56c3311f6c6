"""Every client pulls through the mirror: cold, warm, and with the registry behind it stopped."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.clients import sample
from tests.clients.commands import Commands, podman
from tests.clients.conftest import Containerd, MirroredDocker, Stored
from tests.clients.registries import PASSWORD, USER, Registry, basic_auth
from tests.clients.through import mirroring, quiet, upstream
from tests.clients.tokens import SignedTokens
from tests.hub import Basic, TokenService
from tests.hub.beside import Beside
from tests.server_process import MirrorProcess

DAEMONS = pytest.mark.xdist_group("daemons")
WORKERS = pytest.mark.parametrize("workers", [1, 2])
# Each kind of media types, each number of processes.
KINDS = pytest.mark.parametrize(("workers", "name"), [(2, "hello"), (1, "schema2")])


def pulls_thrice(registry: Registry, mirror: MirrorProcess, pull: Callable[[], str], digest: str) -> None:
    """Each time the same digest, and the registry's log shows no blob sent twice."""
    assert pull() == digest, "cold"
    sent = registry.blobs_sent()
    assert sent, "the registry's log says nothing of blobs: this test sees nothing"
    assert set(sent.values()) == {1}
    seen = len(registry.accesses())
    assert pull() == digest, "warm"
    assert registry.blobs_sent() == sent
    assert {access.method for access in registry.accesses()[seen:]} <= {"HEAD"}, "a tag that stands costs a HEAD"
    registry.stop()
    assert pull() == digest, "with the registry stopped"
    quiet(mirror)


@KINDS
@pytest.mark.client("skopeo")
def test_skopeo(registry: Registry, run: Commands, tmp_path: Path, workers: int, name: str) -> None:
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(registry.url)}, workers=workers) as mirror:
        copy = ["skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
        turns = iter(range(3))

        def pull() -> str:
            target = tmp_path / f"copied{next(turns)}"
            run(*copy, f"docker://{mirror.host}/docker.io/library/{name}:latest", f"dir:{target}")
            return Digest.of((target / "manifest.json").read_bytes())

        pulls_thrice(registry, mirror, pull, registry.digests[name])


@KINDS
@pytest.mark.client("crane")
def test_crane(registry: Registry, run: Commands, tmp_path: Path, workers: int, name: str) -> None:
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(registry.url)}, workers=workers) as mirror:
        image = f"{mirror.host}/docker.io/library/{name}:latest"
        turns = iter(range(3))

        def pull() -> str:
            target = tmp_path / f"layout{next(turns)}"
            run("crane", "pull", "--format", "oci", image, target)
            (entry,) = json.loads((target / "index.json").read_bytes())["manifests"]
            assert run("crane", "digest", image) == entry["digest"]
            run("crane", "validate", "--remote", image)
            return str(entry["digest"])

        pulls_thrice(registry, mirror, pull, registry.digests[name])


@pytest.mark.client("regctl")
def test_regctl_with_its_referrers(registry: Registry, run: Commands, tmp_path: Path) -> None:
    with mirroring(tmp_path / "mirror", {"quay.io": upstream(registry.url)}) as mirror:
        run("regctl", "registry", "set", "--tls=disabled", mirror.host)
        image = f"{mirror.host}/quay.io/team/hello:latest"
        turns = iter(range(3))

        def pull() -> str:
            target = f"{tmp_path}/layout{next(turns)}:latest"
            run("regctl", "image", "copy", "--referrers", "--digest-tags", image, f"ocidir://{target}")
            signature = f"{sample.INDEX.fallback_tag}.sig"
            found = run("regctl", "image", "digest", f"ocidir://{target.rpartition(':')[0]}:{signature}")
            assert found == sample.TAGS[signature]
            for place in (image, f"ocidir://{target}"):
                listed = run(
                    "regctl", "artifact", "list", "--format", "{{range .Descriptors}}{{.Digest}}{{end}}", place
                )
                assert listed == sample.SBOM
            return run("regctl", "image", "digest", f"ocidir://{target}")

        assert pull() == sample.INDEX, "cold"
        sent = registry.blobs_sent()
        assert set(sent.values()) == {1}
        assert pull() == sample.INDEX, "warm"
        assert registry.blobs_sent() == sent
        registry.stop()
        assert pull() == sample.INDEX, "with the registry stopped"
        quiet(mirror)


@KINDS
@pytest.mark.client("podman")
def test_podman_by_its_registries_conf(
    registry: Registry, run: Commands, tmp_path: Path, workers: int, name: str
) -> None:
    with mirroring(tmp_path / "mirror", {"docker.io": upstream(registry.url)}, workers=workers) as mirror:
        Path(run.environment["CONTAINERS_REGISTRIES_CONF"]).write_text(
            f"""[[registry]]
prefix = "docker.io"
location = "127.0.0.1:1"
[[registry.mirror]]
location = "{mirror.host}/docker.io"
insecure = true
"""
        )
        command = podman(run.home)
        image = f"docker.io/library/{name}:latest"

        def pull() -> str:
            run(*command, "pull", "--quiet", image)
            (found,) = json.loads(run(*command, "image", "inspect", image))
            run(*command, "image", "rm", "--force", image)
            return str(found["Digest"])

        pulls_thrice(registry, mirror, pull, registry.digests[name])


@DAEMONS
@KINDS
@pytest.mark.client("docker", "dockerd")
def test_docker_by_its_registry_mirror(
    registry: Registry, mirrored_docker: MirroredDocker, tmp_path: Path, workers: int, name: str
) -> None:
    docker = mirrored_docker.run
    listen = f"127.0.0.1:{mirrored_docker.port}"
    upstreams = {"docker.io": upstream(registry.url)}
    with mirroring(tmp_path / "mirror", upstreams, workers=workers, listen=listen) as mirror:

        def pull() -> str:
            docker("docker", "pull", "--quiet", name)
            (found,) = json.loads(docker("docker", "image", "inspect", name))
            docker("docker", "image", "rm", name)
            return str(found["RepoDigests"][0].rpartition("@")[2])

        pulls_thrice(registry, mirror, pull, registry.digests[name])


@DAEMONS
@pytest.mark.client("containerd", "ctr")
@pytest.mark.parametrize(("folder", "host"), [("_default", "docker.io"), ("own", "quay.io")])
def test_containerd_by_its_hosts_toml(
    registry: Registry, containerd: Containerd, tmp_path: Path, folder: str, host: str
) -> None:
    with mirroring(tmp_path / "mirror", {host: upstream(registry.url)}) as mirror:
        hosts = tmp_path / "hosts" / (host if folder == "own" else "_default") / "hosts.toml"
        hosts.parent.mkdir(parents=True)
        server = 'server = "http://127.0.0.1:1"\n' if folder == "own" else ""
        hosts.write_text(f'{server}[host."http://{mirror.host}"]\n  capabilities = ["pull", "resolve"]\n')
        image = f"{host}/{'library' if host == 'docker.io' else 'team'}/hello:latest"

        def pull() -> str:
            containerd("images", "pull", "--all-platforms", "--hosts-dir", tmp_path / "hosts", image)
            _, listed = containerd("images", "ls", f"name=={image}").splitlines()
            containerd("images", "rm", "--sync", image)
            return listed.split()[2]

        pulls_thrice(registry, mirror, pull, sample.INDEX)


@pytest.mark.client("crane")
@pytest.mark.parametrize("kind", ["basic", "token", "token for a user"])
def test_a_registry_that_asks_who_calls(stored: Stored, run: Commands, tmp_path: Path, kind: str) -> None:
    with Beside() as beside:
        user = Basic(USER, PASSWORD) if kind == "token for a user" else None
        own = {} if kind == "token" else {"username": USER, "password": PASSWORD}
        keys = {**own, "allow_anonymous": True, "insecure": True} if own else {}
        if kind == "basic":
            auth = basic_auth(tmp_path)
        else:
            issuer = SignedTokens(tmp_path, user)
            auth = issuer.auth(beside.open(TokenService(issuer)).realm)
            keys["realms"] = [auth["token"]["realm"].split("/")[2]]
        with (
            Registry(stored.command, tmp_path, stored.storage, auth) as registry,
            mirroring(tmp_path / "mirror", {"docker.io": upstream(registry.url, **keys)}) as mirror,
        ):
            run.refused("crane", "digest", f"{registry.host}/library/hello:latest")
            image = f"{mirror.host}/docker.io/library/hello:latest"

            def pull() -> str:
                run("crane", "validate", "--remote", image)
                return run("crane", "digest", image)

            pulls_thrice(registry, mirror, pull, sample.INDEX)
            assert PASSWORD not in mirror.log.read_text()


@WORKERS
@pytest.mark.client("crane")
def test_one_name_at_two_hosts_is_two_repositories_over_one_pool(
    stored: Stored, run: Commands, tmp_path: Path, workers: int
) -> None:
    with (
        Registry(stored.command, tmp_path, stored.storage) as docker,
        Registry(stored.command, tmp_path, stored.storage) as quay,
        mirroring(
            tmp_path / "mirror",
            {"docker.io": upstream(docker.url), "quay.io": upstream(quay.url)},
            workers=workers,
        ) as mirror,
    ):
        for host in ("docker.io", "quay.io", "docker.io", "quay.io"):
            image = f"{mirror.host}/{host}/library/hello:latest"
            assert run("crane", "digest", image) == sample.INDEX
            run("crane", "validate", "--remote", image)
        sent = docker.blobs_sent() + quay.blobs_sent()
        assert set(sent.values()) == {1}, "what one host gave, the other is asked for by HEAD only"
        assert not quay.blobs_sent()
        assert {access.method for access in quay.accesses() if "/blobs/" in access.path} == {"HEAD"}
        quay.stop()
        docker.stop()
        run("crane", "validate", "--remote", f"{mirror.host}/quay.io/library/hello:latest")
