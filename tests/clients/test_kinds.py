"""Other kinds of images than the sample: Docker's media types, nested indexes, other JSON styles."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci import media_types
from mirror.oci.digest import Digest
from tests.clients.commands import Commands, podman
from tests.clients.conftest import CONTROL, Containerd
from tests.clients.sample import ARCHITECTURE
from tests.content import LayoutWriter, Style, gzip_stored, image_config, tar
from tests.sample import executable
from tests.server_process import MirrorProcess

TEXT = "schema 2\n"
PLATFORM = {"architecture": ARCHITECTURE, "os": "linux"}


@dataclass(frozen=True)
class Kinds:
    """A mirror's `host:port`, and the digests behind the tags of its repository `kinds`."""

    host: str
    tags: dict[str, Digest]
    config: Digest

    def image(self, tag: str) -> str:
        return f"{self.host}/kinds:{tag}"


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinds]:
    if CONTROL:
        pytest.skip("the control does not hold these")
    folder = tmp_path_factory.mktemp("kinds")
    writer = LayoutWriter(folder / "layouts" / "kinds")
    assemble = {"amd64": executable.amd64, "arm64": executable.arm64}[ARCHITECTURE]
    layer = tar({"hello": assemble(TEXT.encode())})
    config = image_config([layer], PLATFORM, Entrypoint=["/hello"])
    image = writer.image(
        [gzip_stored(layer)],
        config=config,
        layer_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
        platform=PLATFORM,
        style=Style.INDENTED,
        docker=True,
    )
    one = writer.index([image], docker=True, style=Style.TRAILING_NEWLINE)
    # Compressed, because `crane validate` takes every layer for gzip.
    plain = writer.image(
        [gzip_stored(layer)], config=config, layer_type=media_types.OCI_LAYER_GZIP, platform=PLATFORM
    )
    found = {
        "schema2": image,
        "list": one,
        "nested": writer.index([writer.index([plain], style=Style.INDENTED)]),
        "1.0.0+build": plain,
    }
    for tag, descriptor in found.items():
        writer.tag(descriptor, tag)
    writer.save(style=Style.INDENTED)
    with MirrorProcess(folder / "mirror.log", "--layouts", str(folder / "layouts")) as mirror:
        digests = {tag: descriptor.digest for tag, descriptor in found.items()}
        yield Kinds(mirror.host, digests, Digest.parse(json.loads(writer.content(image))["config"]["digest"]))


@pytest.mark.client("crane")
@pytest.mark.parametrize("tag", ["schema2", "list", "nested"])
def test_crane_finds_each_kind_valid(kinds: Kinds, run: Commands, tag: str) -> None:
    assert run("crane", "digest", kinds.image(tag)) == kinds.tags[tag]
    run("crane", "validate", "--remote", kinds.image(tag))


@pytest.mark.client("crane")
def test_a_client_that_cannot_write_a_plus_asks_with_an_underscore(kinds: Kinds, run: Commands) -> None:
    assert "1.0.0+build" in run("crane", "ls", f"{kinds.host}/kinds").splitlines()
    assert run("crane", "digest", kinds.image("1.0.0_build")) == kinds.tags["1.0.0+build"]


@pytest.mark.client("skopeo")
@pytest.mark.parametrize("tag", ["schema2", "list"])
def test_skopeo_keeps_docker_media_types(kinds: Kinds, run: Commands, tmp_path: Path, tag: str) -> None:
    copied = tmp_path / "copied"
    source = f"docker://{kinds.image(tag)}"
    run("skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"dir:{copied}")
    assert Digest.of((copied / "manifest.json").read_bytes()) == kinds.tags[tag]


@pytest.mark.client("podman")
@pytest.mark.parametrize("tag", ["schema2", "list"])
def test_podman_pulls_docker_media_types(kinds: Kinds, run: Commands, tag: str) -> None:
    command = podman(run.home)
    pulled = run(*command, "pull", "--quiet", "--tls-verify=false", kinds.image(tag))
    assert pulled == kinds.config.hex
    (found,) = json.loads(run(*command, "image", "inspect", kinds.image(tag)))
    assert found["Digest"] == kinds.tags[tag]


@pytest.mark.xdist_group("daemons")
@pytest.mark.client("docker", "dockerd")
@pytest.mark.parametrize("tag", ["schema2", "list"])
def test_docker_pulls_and_runs_docker_media_types(kinds: Kinds, docker: Commands, tag: str) -> None:
    image = kinds.image(tag)
    assert f"Digest: {kinds.tags[tag]}" in docker("docker", "pull", image)
    (found,) = json.loads(docker("docker", "image", "inspect", image))
    assert found["Id"] == kinds.config
    assert docker("docker", "run", "--rm", "--network=none", image) == TEXT.strip()
    docker("docker", "image", "rm", image)


@pytest.mark.xdist_group("daemons")
@pytest.mark.client("containerd", "ctr")
@pytest.mark.parametrize("tag", ["schema2", "list", "nested"])
def test_containerd_pulls_and_runs_each_kind(kinds: Kinds, containerd: Containerd, tag: str) -> None:
    image = kinds.image(tag)
    containerd("images", "pull", "--plain-http", image)
    _, listed = containerd("images", "ls", f"name=={image}").splitlines()
    assert listed.split()[2] == kinds.tags[tag]
    assert containerd("run", "--rm", image, f"kind-{tag}") == TEXT.strip()
    containerd("images", "rm", "--sync", image)
