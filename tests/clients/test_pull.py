"""Every client pulls the sample, and says the digests that the sample's files have."""

import hashlib
import json

import pytest

from tests.clients import sample
from tests.clients.commands import Commands, podman
from tests.clients.conftest import Containerd
from tests.sample.make_sample import GREETING, SPDX

DAEMONS = pytest.mark.xdist_group("daemons")


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.client("skopeo")
def test_skopeo_inspects_the_image_and_lists_its_tags(server: str, run: Commands) -> None:
    found = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{server}/hello:latest"))
    assert found["Digest"] == sample.INDEX
    assert found["RepoTags"] == sorted(sample.TAGS)
    assert found["Layers"] == [sample.NATIVE.layer]
    listed = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{server}/hello"))
    assert listed["Tags"] == sorted(sample.TAGS)


@pytest.mark.client("skopeo")
@pytest.mark.parametrize("tag", sample.TAGS)
def test_skopeo_gets_the_exact_bytes_of_every_tag(server: str, run: Commands, tag: str) -> None:
    raw = run.output("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{server}/hello:{tag}")
    assert raw == sample.read(sample.TAGS[tag])


@pytest.mark.client("crane")
def test_crane_gets_manifest_tags_digests_and_blobs(server: str, run: Commands) -> None:
    assert run.output("crane", "manifest", f"{server}/hello:latest") == sample.read(sample.INDEX)
    assert run("crane", "digest", f"{server}/hello:latest") == sample.INDEX
    for architecture, image in sample.IMAGES.items():
        chosen = run("crane", "digest", "--platform", f"linux/{architecture}", f"{server}/hello:1.0.0")
        assert chosen == image.digest
    assert run("crane", "ls", f"{server}/hello").splitlines() == sorted(sample.TAGS)
    assert sha256(run.output("crane", "blob", f"{server}/hello@{sample.NATIVE.layer}")) == sample.NATIVE.layer
    assert "hello" in run("crane", "catalog", server).splitlines()


@pytest.mark.client("crane")
def test_crane_finds_every_blob_of_every_platform_valid(server: str, run: Commands) -> None:
    run("crane", "validate", "--remote", f"{server}/hello:latest")


@pytest.mark.client("regctl")
def test_regctl_gets_manifest_tags_and_config(server: str, run: Commands) -> None:
    run("regctl", "registry", "set", "--tls=disabled", server)
    raw = run.output("regctl", "manifest", "get", "--format", "raw-body", f"{server}/hello:latest")
    assert raw == sample.read(sample.INDEX)
    assert run("regctl", "image", "digest", f"{server}/hello:latest") == sample.INDEX
    assert run("regctl", "tag", "ls", f"{server}/hello").splitlines() == sorted(sample.TAGS)
    config = json.loads(run("regctl", "image", "config", "--platform", "linux/arm64", f"{server}/hello:latest"))
    assert config["architecture"] == "arm64"


@pytest.mark.client("regctl")
def test_regctl_finds_the_sbom_of_the_image(server: str, run: Commands) -> None:
    run("regctl", "registry", "set", "--tls=disabled", server)
    image = f"{server}/hello:latest"
    listed = json.loads(run("regctl", "artifact", "list", "--format", "{{json .Descriptors}}", image))
    assert [(entry["digest"], entry["artifactType"]) for entry in listed] == [(sample.SBOM, SPDX)]
    document = json.loads(run("regctl", "artifact", "get", "--subject", image, "--filter-artifact-type", SPDX))
    assert document["packages"][0]["checksums"][0]["checksumValue"] == sample.INDEX.hex


@pytest.mark.client("podman")
def test_podman_pulls_the_image(server: str, run: Commands) -> None:
    command = podman(run.home)
    image = f"{server}/hello:latest"
    assert run(*command, "pull", "--quiet", "--tls-verify=false", image) == sample.NATIVE.config.hex
    (found,) = json.loads(run(*command, "image", "inspect", image))
    assert found["Digest"] == sample.INDEX
    assert found["Id"] == sample.NATIVE.config.hex
    assert f"{server}/hello@{sample.INDEX}" in found["RepoDigests"]


@pytest.mark.client("buildah")
def test_buildah_pulls_the_image(server: str, run: Commands) -> None:
    command = podman(run.home, name="buildah")
    image = f"{server}/hello:latest"
    assert run(*command, "pull", "--quiet", "--tls-verify=false", image) == sample.NATIVE.config.hex
    (listed,) = json.loads(run(*command, "images", "--json"))
    assert listed["digest"] == sample.INDEX


@DAEMONS
@pytest.mark.client("docker", "dockerd")
@pytest.mark.parametrize("reference", [":latest", f"@{sample.INDEX}"])
def test_docker_pulls_the_image_and_runs_it(server: str, docker: Commands, reference: str) -> None:
    image = f"{server}/hello{reference}"
    assert f"Digest: {sample.INDEX}" in docker("docker", "pull", image)
    (found,) = json.loads(docker("docker", "image", "inspect", image))
    assert found["Id"] == sample.NATIVE.config
    assert found["RepoDigests"] == [f"{server}/hello@{sample.INDEX}"]
    assert docker("docker", "run", "--rm", "--network=none", image) == GREETING.strip()
    docker("docker", "image", "rm", image)


@DAEMONS
@pytest.mark.client("containerd", "ctr")
def test_containerd_pulls_every_platform_and_runs_the_image(server: str, containerd: Containerd) -> None:
    image = f"{server}/hello:latest"
    containerd("images", "pull", "--plain-http", "--all-platforms", image)
    _, listed = containerd("images", "ls", f"name=={image}").splitlines()
    assert listed.split()[2] == sample.INDEX
    content = set(containerd("content", "ls", "--quiet").split())
    for one in sample.IMAGES.values():
        assert {one.digest, one.config, one.layer} <= content
    assert containerd("run", "--rm", image, "greeting") == GREETING.strip()
    containerd("images", "rm", "--sync", image)


@DAEMONS
@pytest.mark.client("containerd", "ctr")
def test_containerd_pulls_by_digest(server: str, containerd: Containerd) -> None:
    image = f"{server}/hello@{sample.INDEX}"
    containerd("images", "pull", "--plain-http", image)
    _, listed = containerd("images", "ls", f"name=={image}").splitlines()
    assert listed.split()[2] == sample.INDEX
    containerd("images", "rm", "--sync", image)
