"""Clients that were told to ask the mirror instead of another host, each in its own way of naming that host."""

import json
from pathlib import Path

import pytest

from tests.clients import sample
from tests.clients.commands import Commands, podman
from tests.clients.conftest import Containerd
from tests.sample.make_sample import GREETING

DAEMONS = pytest.mark.xdist_group("daemons")
QUAY = "quay.io/team/hello:latest"
# Nobody listens there: whoever does not ask the mirror fails.
NOWHERE = "127.0.0.1:1"


@DAEMONS
@pytest.mark.client("docker", "dockerd")
def test_docker_pulls_an_official_image_through_its_registry_mirror(mirror: str, docker: Commands) -> None:
    assert mirror
    assert f"Digest: {sample.INDEX}" in docker("docker", "pull", "hello:latest")
    (found,) = json.loads(docker("docker", "image", "inspect", "hello:latest"))
    assert found["RepoDigests"] == [f"hello@{sample.INDEX}"]
    assert docker("docker", "run", "--rm", "--network=none", "hello:latest") == GREETING.strip()
    docker("docker", "image", "rm", "hello:latest")


@DAEMONS
@pytest.mark.client("containerd", "ctr")
def test_containerd_names_the_host_by_ns(mirror: str, containerd: Containerd, tmp_path: Path) -> None:
    hosts = tmp_path / "quay.io" / "hosts.toml"
    hosts.parent.mkdir()
    hosts.write_text(f'server = "http://{NOWHERE}"\n[host."http://{mirror}"]\n  capabilities = ["pull", "resolve"]\n')
    containerd("images", "pull", "--hosts-dir", tmp_path, QUAY)
    _, listed = containerd("images", "ls", f"name=={QUAY}").splitlines()
    assert listed.split()[2] == sample.INDEX
    containerd("images", "rm", "--sync", QUAY)


@pytest.mark.client("podman")
def test_podman_names_the_host_by_path(mirror: str, run: Commands) -> None:
    Path(run.environment["CONTAINERS_REGISTRIES_CONF"]).write_text(
        f"""[[registry]]
prefix = "quay.io"
location = "{NOWHERE}"
[[registry.mirror]]
location = "{mirror}/quay.io"
insecure = true
"""
    )
    command = podman(run.home)
    assert run(*command, "pull", "--quiet", QUAY) == sample.NATIVE.config.hex
    (found,) = json.loads(run(*command, "image", "inspect", QUAY))
    assert found["Digest"] == sample.INDEX


@pytest.mark.client("crane")
@pytest.mark.parametrize("name", ["quay.io/team/hello", "docker.io/library/hello", "docker.io/hello"])
def test_crane_names_the_host_by_path(mirror: str, run: Commands, name: str) -> None:
    assert run("crane", "digest", f"{mirror}/{name}:latest") == sample.INDEX
    run("crane", "validate", "--remote", f"{mirror}/{name}:latest")
