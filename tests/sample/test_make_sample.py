"""The sample is what its script writes, and runs where it says that it runs."""

import json
import platform
import subprocess
from pathlib import Path

import pytest

from mirror.oci.manifest import ManifestLinks
from tests.content import LINUX_AMD64, LINUX_ARM64, REF_NAME
from tests.sample import executable
from tests.sample.make_sample import GREETING, REPOSITORY, TAGS, write_sample

COMMITTED = Path(__file__).parents[2] / "layouts"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_committed_sample_is_what_the_script_writes(tmp_path: Path) -> None:
    once, again = _files(write_sample(tmp_path / "once")), _files(write_sample(tmp_path / "again"))
    assert once == again
    assert once == _files(COMMITTED / REPOSITORY)


def test_the_sample_fits_the_repository() -> None:
    assert sum(map(len, _files(COMMITTED).values())) < 100 * 1024


def test_the_sample_shows_tags_an_index_blobs_and_referrers() -> None:
    layout = COMMITTED / REPOSITORY
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    tags = {entry["annotations"][REF_NAME]: entry["digest"] for entry in entries if "annotations" in entry}
    image = tags["latest"]
    assert set(tags) == {*TAGS, image.replace(":", "-"), image.replace(":", "-") + ".sig"}
    (sbom,) = [entry["digest"] for entry in entries if "annotations" not in entry]

    def links(digest: str) -> ManifestLinks:
        return ManifestLinks.parse((layout / "blobs" / digest.replace(":", "/")).read_bytes())

    platforms = [child.platform for child in links(image).manifests]
    assert platforms == [LINUX_AMD64, LINUX_ARM64]
    assert links(sbom).subject == image
    assert links(sbom).artifact_type == "application/spdx+json"
    (listed,) = links(tags[image.replace(":", "-")]).manifests
    assert (listed.digest, listed.artifact_type) == (sbom, "application/spdx+json")


def _run(program: bytes, path: Path, *interpreter: str) -> tuple[int, str]:
    path.write_bytes(program)
    path.chmod(0o755)
    done = subprocess.run([*interpreter, str(path)], capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86-64 executable")
def test_the_amd64_executable_greets_and_exits_0(tmp_path: Path) -> None:
    assert _run(executable.amd64(GREETING.encode()), tmp_path / "hello") == (0, GREETING)


@pytest.mark.client("qemu-aarch64-static")
def test_the_arm64_executable_greets_and_exits_0(tmp_path: Path) -> None:
    assert _run(executable.arm64(GREETING.encode()), tmp_path / "hello", "qemu-aarch64-static") == (0, GREETING)
