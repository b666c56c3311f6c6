"""Layouts as each tool writes them: served, and pulled again, they give the digests that the tool wrote."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import sample
from tests.clients.commands import Commands, podman
from tests.server_process import MirrorProcess


@pytest.fixture
def layouts(tmp_path: Path) -> Path:
    """The folder that producers write into, and that is served then."""
    folder = tmp_path / "layouts"
    folder.mkdir()
    return folder


def listed(layout: Path) -> dict[str, str]:
    """What the layout's own `index.json` lists: tag (or "", where there is none) → digest."""
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {e.get("annotations", {}).get("org.opencontainers.image.ref.name", ""): e["digest"] for e in entries}


@contextlib.contextmanager
def served(layout: Path) -> Iterator[str]:
    """`host:port` of a mirror that serves the folder in which `layout` lies."""
    with MirrorProcess(layout.parents[1] / "mirror.log", "--layouts", str(layout.parent)) as mirror:
        yield mirror.host


def pulls_again(run: Commands, image: str, digest: str, again: Path) -> None:
    """Pull `image` whole into a fresh layout: the digest is kept, and every blob's bytes are what theirs says."""
    source = f"docker://{image}"
    run("skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", source, f"oci:{again}:again")
    assert listed(again) == {"again": digest}
    run("crane", "validate", "--remote", image)


@pytest.mark.client("skopeo", "crane")
def test_skopeo_copy(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout = layouts / "skopeo"
    for tag in ("latest", "1.0.0"):
        source = f"docker://{mirror}/hello:{tag}"
        run("skopeo", "copy", "--all", "--src-tls-verify=false", source, f"oci:{layout}:{tag}")
    assert listed(layout) == dict.fromkeys(("latest", "1.0.0"), sample.INDEX)
    with served(layout) as host:
        assert run("crane", "ls", f"{host}/skopeo").split() == ["1.0.0", "latest"]
        pulls_again(run, f"{host}/skopeo:latest", sample.INDEX, tmp_path / "again")


@pytest.mark.client("podman", "skopeo", "crane")
def test_podman_save(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout = layouts / "podman"
    command = podman(run.home)
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{mirror}/hello:latest")
    run(*command, "tag", f"{mirror}/hello:latest", "quay.io/team/saved:1.0", "localhost/mine:1.0")
    run(*command, "save", "--format=oci-dir", "--output", layout, "quay.io/team/saved:1.0")
    run(*command, "save", "--format=oci-dir", "--output", layout.with_name("plain"), "localhost/mine:1.0")
    ((name, digest),) = listed(layout).items()
    assert name == "quay.io/team/saved:1.0"
    with served(layout) as host:
        pulls_again(run, f"{host}/quay.io/team/saved:1.0", digest, tmp_path / "again")
        pulls_again(run, f"{host}/mine:1.0", digest, tmp_path / "plain")


@pytest.mark.client("podman", "skopeo", "crane")
def test_podman_save_of_what_was_pulled_from_a_mirror_keeps_that_mirror_in_its_name(
    mirror: str, run: Commands, layouts: Path, tmp_path: Path
) -> None:
    layout = layouts / "podman"
    command = podman(run.home)
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{mirror}/hello:latest")
    run(*command, "save", "--format=oci-dir", "--output", layout, f"{mirror}/hello:latest")
    ((name, digest),) = listed(layout).items()
    assert name == f"{mirror}/hello:latest"
    with served(layout) as host:
        # A reference has no colon in its path, so the port is written with an underscore.
        pulls_again(run, f"{host}/{mirror.replace(':', '_')}/hello:latest", digest, tmp_path / "again")


@pytest.mark.client("podman", "crane", "skopeo")
def test_names_that_begin_with_the_mirrors_own_are_what_stands_behind_it(
    mirror: str, run: Commands, layouts: Path, tmp_path: Path
) -> None:
    command = podman(run.home)
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{mirror}/hello:latest")
    run(*command, "save", "--format=oci-dir", "--output", layouts / "podman", f"{mirror}/hello:latest")
    image = f"{mirror}/quay.io/team/hello:latest"
    run("crane", "pull", "--format=oci", "--annotate-ref", image, layouts / "crane")
    config = tmp_path / "config.yaml"
    config.write_text(f"names: ['{mirror}']\nlayouts:\n  - path: {layouts}\n")
    with MirrorProcess(tmp_path / "mirror.log", "--config", str(config)) as again:
        ((_, digest),) = listed(layouts / "podman").items()
        pulls_again(run, f"{again.host}/hello:latest", digest, tmp_path / "again")
        pulls_again(run, f"{again.host}/quay.io/team/hello:latest", sample.INDEX, tmp_path / "quay")


@pytest.mark.client("crane", "skopeo")
def test_crane_pull(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout = layouts / "crane"
    run("crane", "pull", "--format=oci", f"{mirror}/hello:latest", layout)
    # It writes no name at all, and copies the index's own annotations to the entry.
    assert listed(layout) == {"": sample.INDEX}
    with served(layout) as host:
        pulls_again(run, f"{host}/crane@{sample.INDEX}", sample.INDEX, tmp_path / "again")


@pytest.mark.client("crane", "skopeo")
def test_crane_pull_with_the_reference_kept(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout = layouts / "crane"
    run("crane", "pull", "--format=oci", "--annotate-ref", f"{mirror}/quay.io/team/hello:latest", layout)
    assert listed(layout) == {f"{mirror}/quay.io/team/hello:latest": sample.INDEX}
    with served(layout) as host:
        name = f"{mirror.replace(':', '_')}/quay.io/team/hello"
        pulls_again(run, f"{host}/{name}:latest", sample.INDEX, tmp_path / "again")


@pytest.mark.client("regctl", "skopeo", "crane")
def test_regctl_image_export(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout, archive = layouts / "regctl", tmp_path / "exported.tar"
    layout.mkdir()
    run("regctl", "registry", "set", "--tls=disabled", mirror)
    run("regctl", "image", "export", "--name", "quay.io/team/exported:1.0", f"{mirror}/hello:latest", archive)
    run("tar", "--extract", "--file", archive, "--directory", layout)
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "quay.io/team/exported:1.0"
    with served(layout) as host:
        pulls_again(run, f"{host}/quay.io/team/exported:1.0", sample.INDEX, tmp_path / "again")


@pytest.mark.client("regctl", "skopeo", "crane")
def test_regctl_image_copy_with_its_referrers(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout = layouts / "copied"
    run("regctl", "registry", "set", "--tls=disabled", mirror)
    source, target = f"{mirror}/hello:latest", f"ocidir://{layout}:latest"
    run("regctl", "image", "copy", "--referrers", "--digest-tags", source, target)
    with served(layout) as host:
        pulls_again(run, f"{host}/copied:latest", sample.INDEX, tmp_path / "again")
        run("regctl", "registry", "set", "--tls=disabled", host)
        command = ("regctl", "artifact", "list", "--format", "{{json .Descriptors}}", f"{host}/copied:latest")
        assert [entry["digest"] for entry in json.loads(run(*command))] == [sample.SBOM]


@pytest.mark.client("umoci", "skopeo", "crane")
def test_umoci_new(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    assert mirror
    layout = layouts / "umoci"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:empty")
    with served(layout) as host:
        pulls_again(run, f"{host}/umoci:empty", listed(layout)["empty"], tmp_path / "again")


@pytest.mark.client("umoci", "skopeo", "crane")
def test_umoci_repack(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout, bundle = layouts / "umoci", tmp_path / "bundle"
    # umoci calls an index of several platforms ambiguous: give it this machine's image.
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{mirror}/hello:latest", f"oci:{layout}:1.0")
    run("umoci", "unpack", "--image", f"{layout}:1.0", bundle)
    (bundle / "rootfs" / "added").write_bytes(b"added")
    run("umoci", "repack", "--image", f"{layout}:2.0", bundle)
    digests = listed(layout)
    assert digests["1.0"] == sample.NATIVE.digest
    with served(layout) as host:
        for tag in ("1.0", "2.0"):
            pulls_again(run, f"{host}/umoci:{tag}", digests[tag], tmp_path / f"again-{tag}")


@pytest.mark.client("buildah", "skopeo", "crane")
def test_buildah_push(mirror: str, run: Commands, layouts: Path, tmp_path: Path) -> None:
    layout = layouts / "buildah"
    command = podman(run.home, name="buildah")
    run(*command, "pull", "--quiet", "--tls-verify=false", f"{mirror}/hello:latest")
    run(*command, "push", f"{mirror}/hello:latest", f"oci:{layout}:1.0")
    with served(layout) as host:
        pulls_again(run, f"{host}/buildah:1.0", listed(layout)["1.0"], tmp_path / "again")
