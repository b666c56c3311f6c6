"""Archives that the real tools wrote."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.sources.archive import read_archive
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.store.layer_hashes import hash_layers
from tests.sources import archives
from tests.sources.read_archives import BASE, LIMIT, TOP, at, check_bytes, manifest_of, names, only


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "app.tar"


def run(*command: str) -> None:
    """Run a real tool."""
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def layout_folder(tmp_path: Path) -> Path:
    descriptor, blobs = archives.image([BASE, TOP], compressed=True)
    for name, content in archives.layout([archives.named(descriptor, **{archives.REF_NAME: "1"})], blobs).items():
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(content)
    return tmp_path / "layout"


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry of crane's own, which keeps what it gets in memory."""
    command = ["crane", "registry", "serve", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            port = next(line for line in server.stderr if "serving on port" in line).split()[-1]
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def check_real(path: Path, expected: list[str]) -> Place:
    """A real tool's archive of the one image: all of it is there, with the config and diff_ids it was made with."""
    contents = read_archive(at(path), Namer(own_hosts=frozenset({"localhost"})))
    place = only(contents)
    assert place.problems == contents.problems == ()
    assert [name for entry in place.entries for name in names(entry)] == expected
    check_bytes(place)
    links = manifest_of(place, place.entries[0])
    assert links.config is not None
    assert links.config.digest == Digest.of(archives.config([BASE, TOP]))
    facts = hash_layers(str(path), contents.stamp, [claim.member for claim in contents.unverified], LIMIT)
    assert all(claim.holds(facts[claim.member]) for claim in contents.unverified)
    return place


@pytest.mark.client("skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_what_skopeo_writes_is_served(archive: Path, layout_folder: Path, transport: str) -> None:
    run("skopeo", "copy", "--insecure-policy", f"oci:{layout_folder}:1", f"{transport}:{archive}:team/app:1")
    check_real(archive, ["docker.io/team/app:1"])


@pytest.mark.client("podman")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_podman_saves_is_served(archive: Path, layout_folder: Path, form: str) -> None:
    # podman takes no run folder of more than 50 characters.
    with tempfile.TemporaryDirectory(dir="/tmp") as state:
        podman = ["podman", "--root", f"{state}/root", "--runroot", f"{state}/run", "--storage-driver", "vfs"]
        run(*podman, "pull", "--quiet", f"oci:{layout_folder}:1")
        run(*podman, "tag", Digest.of(archives.config([BASE, TOP])).hex, "quay.io/team/app:1")
        run(*podman, "save", "--quiet", "--format", form, "--output", str(archive), "quay.io/team/app:1")
    check_real(archive, ["quay.io/team/app:1"])


@pytest.mark.client("crane")
@pytest.mark.parametrize("form", ["tarball", "legacy"])
def test_what_crane_pulls_is_served(archive: Path, layout_folder: Path, registry: str, form: str) -> None:
    run("crane", "push", str(layout_folder), f"{registry}/team/app:1")
    run("crane", "pull", "--format", form, f"{registry}/team/app:1", str(archive))
    place = check_real(archive, [f"{registry}/team/app:1"])
    stored = {child.media_type for child in manifest_of(place, place.entries[0]).blobs[1:]}
    assert stored == {media_types.OCI_LAYER_GZIP if form == "tarball" else media_types.OCI_LAYER_TAR}
