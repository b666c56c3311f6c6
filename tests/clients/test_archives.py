"""Archives as each tool writes them, dropped into the folder of a running mirror and pulled with every client.

Which name a producer writes decides under which request its archive is reached: the table of `made`.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.clients import sample
from tests.clients.commands import Commands, podman
from tests.clients.conftest import Containerd
from tests.content import LayoutWriter, gzip_stored, image_config, tar
from tests.sample.make_sample import GREETING
from tests.server_process import MirrorProcess

DAEMONS = pytest.mark.xdist_group("daemons")
DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class Mirror:
    """A running mirror and the folder that it serves."""

    process: MirrorProcess
    folder: Path

    @property
    def host(self) -> str:
        return self.process.host

    def drop(self, archive: Path, name: str, *requests: str) -> None:
        """Bring an archive into the folder, in one step, and wait until the requests are answered."""
        part = self.folder / f".{name}"
        shutil.copyfile(archive, part)
        part.rename(self.folder / name)
        deadline = time.monotonic() + DEADLINE_SECONDS
        for request in requests:
            while self.process.status(f"/v2/{path(request)}") != 200:
                assert time.monotonic() < deadline, (request, self.process.events("skipped"))
                time.sleep(0.02)


def path(image: str) -> str:
    """`team/app:1` → `team/app/manifests/1`."""
    name, at, digest = image.partition("@")
    if at:
        return f"{name}/manifests/{digest}"
    name, _, tag = image.rpartition(":")
    return f"{name}/manifests/{tag}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Mirror]:
    """A mirror of an empty folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    config = tmp_path / "config.yaml"
    config.write_text(f"refresh: 100ms\nlayouts: [{{path: {folder}}}]\ncache: {{path: {tmp_path / 'cache'}}}\n")
    with MirrorProcess(tmp_path / "served.log", "--config", str(config)) as process:
        yield Mirror(process, folder)


@dataclass(frozen=True)
class Daemons:
    """Clients that pull through a daemon."""

    docker: Commands
    containerd: Containerd


@pytest.fixture
def both(docker: Commands, containerd: Containerd) -> Daemons:
    return Daemons(docker, containerd)


def config_and_layers(run: Commands, image: str) -> tuple[Digest, list[str]]:
    """The digest of the config of this machine's image, and its diff_ids, as the mirror serves them."""
    config = run.output("crane", "config", "--platform", f"linux/{sample.ARCHITECTURE}", image)
    return Digest.of(config), json.loads(config)["rootfs"]["diff_ids"]


DIFF_IDS = json.loads(sample.read(sample.NATIVE.config))["rootfs"]["diff_ids"]


def pulls_with_podman(run: Commands, image: str) -> None:
    command = podman(run.home)
    assert run(*command, "pull", "--quiet", "--tls-verify=false", image) == sample.NATIVE.config.hex


def pulls_everywhere(run: Commands, host: str, image: str) -> None:
    """crane, podman and skopeo get this machine's sample, whole."""
    full = f"{host}/{image}"
    # Not `crane validate`: it takes every layer for gzip. Pulling checks each digest.
    run("crane", "pull", "--format=oci", "--platform", f"linux/{sample.ARCHITECTURE}", full, run.home / "crane")
    assert config_and_layers(run, full) == (sample.NATIVE.config, DIFF_IDS)
    pulls_with_podman(run, full)
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{full}", f"dir:{run.home}/copied")


def pulls_with_docker(docker: Commands, image: str) -> None:
    docker("docker", "pull", image)
    (found,) = json.loads(docker("docker", "image", "inspect", image))
    assert found["Id"] == sample.NATIVE.config
    assert found["RootFS"]["Layers"] == DIFF_IDS
    assert docker("docker", "run", "--rm", "--network=none", image) == GREETING.strip()
    docker("docker", "image", "rm", image)


def pulls_with_containerd(containerd: Containerd, image: str, name: str) -> None:
    containerd("images", "pull", "--plain-http", image)
    assert containerd("run", "--rm", image, name) == GREETING.strip()
    containerd("images", "rm", "--sync", image)


def index_of(archive: Path, run: Commands) -> list[dict[str, object]]:
    """What the `index.json` of an archive lists."""
    listed = json.loads(run("tar", "--extract", "--to-stdout", "--file", archive, "index.json"))["manifests"]
    assert isinstance(listed, list)
    return listed


def crane_tarball(run: Commands, source: str, out: Path) -> str:
    run("crane", "pull", f"{source}/hello:latest", out)
    # The name is the one it was pulled by, the mirror's host and port included.
    return f"{source.replace(':', '_')}/hello:latest"


def skopeo_docker_archive(run: Commands, source: str, out: Path) -> str:
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{source}/hello", f"docker-archive:{out}:team/app:1")
    return "docker.io/team/app:1"


def skopeo_oci_archive(run: Commands, source: str, out: Path) -> str:
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{source}/hello", f"oci-archive:{out}:1.0")
    return "made:1.0"


def podman_docker_archive(run: Commands, source: str, out: Path) -> str:
    _podman(run, source, out, "docker-archive", "quay.io/team/app:1")
    return "quay.io/team/app:1"


def podman_plain(run: Commands, source: str, out: Path) -> str:
    _podman(run, source, out, "docker-archive", "localhost/mine:1")
    return "mine:1"


def podman_oci_archive(run: Commands, source: str, out: Path) -> str:
    _podman(run, source, out, "oci-archive", "quay.io/team/app:1")
    return "quay.io/team/app:1"


def _podman(run: Commands, source: str, out: Path, form: str, name: str) -> None:
    command = podman(run.home)
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{source}/hello:latest")
    run(*command, "tag", f"{source}/hello:latest", name)
    run(*command, "save", "--quiet", f"--format={form}", "--output", out, name)
    run(*command, "rmi", "--force", sample.NATIVE.config.hex)


def buildah_oci_archive(run: Commands, source: str, out: Path) -> str:
    command = podman(run.home, name="buildah")
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{source}/hello:latest")
    run(*command, "push", f"{source}/hello:latest", f"oci-archive:{out}:2.0")
    return "made:2.0"


def regctl_export(run: Commands, source: str, out: Path) -> str:
    run("regctl", "registry", "set", "--tls=disabled", source)
    run("regctl", "image", "export", "--name", "quay.io/team/exported:1.0", f"{source}/hello:latest", out)
    return "quay.io/team/exported:1.0"


def crane_oci(run: Commands, source: str, out: Path) -> str:
    layout = out.with_name("layout")
    run("crane", "pull", "--format=oci", f"{source}/hello:latest", layout)
    run("tar", "--create", "--file", out, "--directory", layout, ".")
    # It writes no name: the archive's own, by digest.
    return f"made@{sample.INDEX}"


Producer = Callable[[Commands, str, Path], str]
SAVED: list[Producer] = [crane_tarball, skopeo_docker_archive, podman_docker_archive, podman_plain]
LAYOUTS: list[Producer] = [skopeo_oci_archive, podman_oci_archive, buildah_oci_archive]
WHOLE: list[Producer] = [regctl_export, crane_oci]


def by_name(producer: Producer) -> str:
    return producer.__name__


@pytest.mark.client("crane", "skopeo", "podman", "buildah")
@pytest.mark.parametrize("producer", SAVED, ids=by_name)
def test_saved_images_keep_config_and_diff_ids(
    mirror: str, served: Mirror, run: Commands, tmp_path: Path, producer: Producer
) -> None:
    image = producer(run, mirror, tmp_path / "made.tar")
    served.drop(tmp_path / "made.tar", "made.tar", image)
    pulls_everywhere(run, served.host, image)


@pytest.mark.client("crane", "skopeo", "podman", "buildah", "tar")
@pytest.mark.parametrize("producer", LAYOUTS, ids=by_name)
def test_archives_of_layouts_keep_their_own_digests(
    mirror: str, served: Mirror, run: Commands, tmp_path: Path, producer: Producer
) -> None:
    archive = tmp_path / "made.tar"
    image = producer(run, mirror, archive)
    served.drop(archive, "made.tar", image)
    # They recompress on their way in: the digest is the archive's, not the registry's.
    assert [run("crane", "digest", f"{served.host}/{image}")] == [one["digest"] for one in index_of(archive, run)]
    pulls_everywhere(run, served.host, image)


@pytest.mark.client("crane", "regctl", "podman", "skopeo", "tar")
@pytest.mark.parametrize("producer", WHOLE, ids=by_name)
def test_archives_of_all_platforms_keep_the_digest_of_the_registry(
    mirror: str, served: Mirror, run: Commands, tmp_path: Path, producer: Producer
) -> None:
    image = producer(run, mirror, tmp_path / "made.tar")
    served.drop(tmp_path / "made.tar", "made.tar", image)
    assert run("crane", "digest", f"{served.host}/{image}") == sample.INDEX
    for architecture, one in sample.IMAGES.items():
        found = run("crane", "digest", "--platform", f"linux/{architecture}", f"{served.host}/{image}")
        assert found == one.digest
    pulls_everywhere(run, served.host, image)


@DAEMONS
@pytest.mark.client("docker", "dockerd", "containerd", "ctr", "crane", "skopeo", "podman", "buildah", "regctl")
@pytest.mark.parametrize("producer", [*SAVED, *LAYOUTS, *WHOLE], ids=by_name)
def test_docker_and_containerd_pull_every_archive(
    mirror: str, served: Mirror, run: Commands, both: Daemons, producer: Producer
) -> None:
    archive = run.home / "made.tar"
    image = producer(run, mirror, archive)
    served.drop(archive, "made.tar", image)
    pulls_with_docker(both.docker, f"{served.host}/{image}")
    pulls_with_containerd(both.containerd, f"{served.host}/{image}", producer.__name__.replace("_", "-"))


@pytest.mark.client("crane", "podman", "skopeo")
def test_several_images_in_one_archive(mirror: str, served: Mirror, run: Commands, tmp_path: Path) -> None:
    command = podman(run.home)
    writer = LayoutWriter(tmp_path / "other")
    layer = tar({"hello": b"other"})
    config = image_config([layer], {"architecture": sample.ARCHITECTURE, "os": "linux"})
    writer.tag(writer.image([gzip_stored(layer)], config=config), "1").save()
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{mirror}/hello:latest")
    run(*command, "pull", "--quiet", f"oci:{writer.path}:1")
    names = ["quay.io/team/app:1", "quay.io/team/app:1.0.0", "localhost/mine:1"]
    for name in names:
        run(*command, "tag", f"{mirror}/hello:latest", name)
    other = json.loads(run(*command, "images", "--format=json"))
    (second,) = [one["Id"] for one in other if one["Id"] != sample.NATIVE.config.hex]
    run(*command, "tag", second, "quay.io/team/second:1")
    archive = tmp_path / "made.tar"
    run(*command, "save", "--quiet", "--multi-image-archive", "--output", archive, *names, "quay.io/team/second:1")
    served.drop(archive, "made.tar", "quay.io/team/app:1", "mine:1", "quay.io/team/second:1")
    assert run("crane", "ls", f"{served.host}/quay.io/team/app").split() == ["1", "1.0.0"]
    for image in ("quay.io/team/app:1.0.0", "mine:1"):
        assert config_and_layers(run, f"{served.host}/{image}") == (sample.NATIVE.config, DIFF_IDS)
    run("crane", "pull", "--format=oci", f"{served.host}/quay.io/team/second:1", run.home / "second")


@DAEMONS
@pytest.mark.client("docker", "dockerd", "containerd", "ctr", "podman", "crane", "skopeo")
def test_docker_save_and_every_client(
    mirror: str, served: Mirror, run: Commands, both: Daemons, tmp_path: Path
) -> None:
    both.docker("docker", "pull", f"{mirror}/hello:latest")
    names = ["team/saved:1", "quay.io/team/saved:2", "legacy:3"]
    for name in names:
        both.docker("docker", "tag", f"{mirror}/hello:latest", name)
    archive = tmp_path / "made.tar"
    both.docker("docker", "save", "--output", archive, *names)
    both.docker("docker", "image", "rm", *names, f"{mirror}/hello:latest")
    # A name without a host is docker.io's, as Docker reads it, and a plain request means it too.
    reached = ["team/saved:1", "docker.io/team/saved:1", "quay.io/team/saved:2", "library/legacy:3", "legacy:3"]
    served.drop(archive, "made.tar", *reached)
    for image in ("team/saved:1", "quay.io/team/saved:2", "legacy:3"):
        assert config_and_layers(run, f"{served.host}/{image}") == (sample.NATIVE.config, DIFF_IDS)
    pulls_everywhere(run, served.host, "team/saved:1")
    pulls_with_docker(both.docker, f"{served.host}/team/saved:1")
    pulls_with_containerd(both.containerd, f"{served.host}/legacy:3", "saved")


@DAEMONS
@pytest.mark.client("containerd", "ctr", "docker", "dockerd", "crane", "podman", "skopeo")
def test_ctr_images_export_and_every_client(
    mirror: str, served: Mirror, run: Commands, both: Daemons, tmp_path: Path
) -> None:
    image = f"{mirror}/hello:latest"
    both.containerd("images", "pull", "--plain-http", "--all-platforms", image)
    both.containerd("images", "tag", image, "quay.io/team/exported:1")
    archive = tmp_path / "made.tar"
    both.containerd("images", "export", "--all-platforms", archive, "quay.io/team/exported:1")
    both.containerd("images", "rm", "--sync", image, "quay.io/team/exported:1")
    exported = "quay.io/team/exported:1"
    served.drop(archive, "made.tar", exported)
    assert run("crane", "digest", f"{served.host}/{exported}") == sample.INDEX
    pulls_everywhere(run, served.host, exported)
    pulls_with_docker(both.docker, f"{served.host}/{exported}")
    pulls_with_containerd(both.containerd, f"{served.host}/{exported}", "exported")


@DAEMONS
@pytest.mark.client("docker", "dockerd", "containerd", "ctr", "crane", "podman", "skopeo")
def test_two_archives_of_one_tag_give_each_client_its_platform(
    mirror: str, served: Mirror, run: Commands, both: Daemons, tmp_path: Path
) -> None:
    image = "quay.io/team/app:1"
    for architecture in sample.IMAGES:
        out = tmp_path / f"{architecture}.tar"
        source = ("--src-tls-verify=false", "--override-arch", architecture, f"docker://{mirror}/hello:latest")
        run("skopeo", "copy", *source, f"docker-archive:{out}:{image}")
        served.drop(out, out.name, image)
    full = f"{served.host}/{image}"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while "manifests" not in json.loads(run("crane", "manifest", full)):
        assert time.monotonic() < deadline
    index = run("crane", "digest", full)
    for architecture, one in sample.IMAGES.items():
        config = run.output("crane", "config", "--platform", f"linux/{architecture}", full)
        assert Digest.of(config) == one.config
    run("crane", "pull", "--format=oci", full, run.home / "crane")
    pulls_with_podman(run, full)
    pulls_with_docker(both.docker, full)
    pulls_with_containerd(both.containerd, full, "coalesced")
    other = next(architecture for architecture in sample.IMAGES if architecture != sample.ARCHITECTURE)
    (served.folder / f"{other}.tar").unlink()
    while run("crane", "digest", full) == index:
        assert time.monotonic() < deadline + DEADLINE_SECONDS
    assert config_and_layers(run, full) == (sample.NATIVE.config, DIFF_IDS)


@pytest.mark.client("crane", "podman", "skopeo")
def test_the_mirrors_own_host_in_an_archive_is_what_stands_behind_it(
    mirror: str, run: Commands, tmp_path: Path
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    run("crane", "pull", f"{mirror}/hello:latest", folder / "tarball.tar")
    _podman(run, mirror, folder / "saved.tar", "oci-archive", f"{mirror}/quay.io/team/app:1")
    config = tmp_path / "config.yaml"
    config.write_text(f"names: ['{mirror}']\nlayouts: [{{path: {folder}}}]\n")
    with MirrorProcess(tmp_path / "own.log", "--config", str(config)) as own:
        for image in ("hello:latest", "quay.io/team/app:1"):
            assert config_and_layers(run, f"{own.host}/{image}") == (sample.NATIVE.config, DIFF_IDS)
        assert own.events("skipped") == []


TAGS = ["1.0.0", "1.0.1", "1.1.0+oci", "2.0.0-preview.1", "latest"]


@pytest.mark.client("crane", "skopeo", "tar")
def test_every_tag_of_the_conformance_set_of_package_origin_pulls_from_one_tar(
    served: Mirror, run: Commands, tmp_path: Path
) -> None:
    writer = LayoutWriter(tmp_path / "layout")
    digests = {}
    for tag in TAGS:
        layer = tar({"version": tag.encode()})
        config = image_config([layer], {"architecture": sample.ARCHITECTURE, "os": "linux"})
        image = writer.image([gzip_stored(layer)], config=config)
        digests[tag] = image.digest
        writer.tag(image, tag)
    writer.save()
    archive = tmp_path / "tools.tar"
    run("tar", "--create", "--file", archive, "--directory", writer.path, ".")
    served.drop(archive, "tools.tar", *(f"tools:{tag}" for tag in TAGS))
    assert run("crane", "ls", f"{served.host}/tools").splitlines() == TAGS
    listed = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{served.host}/tools"))
    assert listed["Tags"] == TAGS
    for tag, digest in digests.items():
        # Clients write no `+`: they have it as `_`, or go by digest.
        asked = f"{served.host}/tools:{tag.replace('+', '_')}"
        assert run("crane", "digest", asked) == digest
        run("crane", "validate", "--remote", asked)
        for written in (tag, tag.replace("+", "%2B"), tag.replace("+", "%2b")):
            assert served.process.status(f"/v2/tools/manifests/{written}") == 200
    with contextlib.suppress(FileNotFoundError):
        archive.unlink()
