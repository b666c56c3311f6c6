"""What clients tell people when the mirror says no."""

import pytest

from tests.clients import sample
from tests.clients.commands import Commands, podman

DAEMONS = pytest.mark.xdist_group("daemons")


@pytest.mark.client("crane", "skopeo", "podman")
def test_a_tag_that_is_not_there_is_said_to_be_unknown(server: str, run: Commands) -> None:
    image = f"{server}/hello:none"
    assert "MANIFEST_UNKNOWN" in run.refused("crane", "manifest", image)
    assert "manifest unknown" in run.refused("skopeo", "inspect", "--tls-verify=false", f"docker://{image}")
    assert "manifest unknown" in run.refused(*podman(run.home), "pull", "--quiet", "--tls-verify=false", image)


@DAEMONS
@pytest.mark.client("docker", "dockerd")
def test_docker_says_that_a_tag_is_unknown(server: str, docker: Commands) -> None:
    assert "manifest unknown" in docker.refused("docker", "pull", f"{server}/hello:none")


@pytest.mark.client("crane")
def test_a_repository_that_is_not_there_is_said_to_be_unknown(mirror: str, run: Commands) -> None:
    assert "NAME_UNKNOWN" in run.refused("crane", "ls", f"{mirror}/none")


@pytest.mark.client("crane", "skopeo", "podman")
def test_a_push_is_told_that_the_registry_is_read_only(mirror: str, run: Commands) -> None:
    image = f"{mirror}/pushed:1"
    layout = f"oci:{sample.LAYOUT}:latest"
    assert "read-only" in run.refused("skopeo", "copy", "--dest-tls-verify=false", layout, f"docker://{image}")
    assert "read-only" in run.refused("crane", "push", sample.LAYOUT, image, "--index")
    command = podman(run.home)
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{mirror}/hello:latest")
    assert "read-only" in run.refused(*command, "push", "--tls-verify=false", f"{mirror}/hello:latest", image)


@DAEMONS
@pytest.mark.client("docker", "dockerd")
def test_docker_push_is_told_that_the_registry_is_read_only(mirror: str, docker: Commands) -> None:
    docker("docker", "pull", f"{mirror}/hello:1.0.0")
    docker("docker", "tag", f"{mirror}/hello:1.0.0", f"{mirror}/pushed:1")
    assert "read-only" in docker.refused("docker", "push", f"{mirror}/pushed:1")
    docker("docker", "image", "rm", f"{mirror}/hello:1.0.0", f"{mirror}/pushed:1")
