"""A `docker save` archive of Docker 25+ that somebody unpacked: its RepoTags count there too."""

import json
from pathlib import Path

from mirror.oci.names import DOCKER_HUB, Name, Repository
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import Root
from mirror.sources.snapshot import Snapshot
from tests.content import LayoutWriter

APP = Name(DOCKER_HUB, Repository("team/app"))


def unpacked(folder: Path, repo_tag: str | None) -> None:
    writer = LayoutWriter(folder)
    image = writer.image([b"layer"])
    config = json.loads(writer.content(image))["config"]["digest"].removeprefix("sha256:")
    annotations = {"io.containerd.image.name": "docker.io/team/app:1", "org.opencontainers.image.ref.name": "1"}
    writer.add(image, annotations)
    writer.save()
    if repo_tag is not None:
        item = {"Config": f"blobs/sha256/{config}", "RepoTags": [repo_tag], "Layers": []}
        (folder / "manifest.json").write_text(json.dumps([item]))


def scanned(tmp_path: Path) -> Snapshot:
    return Snapshot.of(Scanner([Root(str(tmp_path))]).scan().places)


def test_a_repo_tag_without_a_host_names_none(tmp_path: Path) -> None:
    unpacked(tmp_path / "x", "team/app:1")
    assert scanned(tmp_path).repositories[APP].plain


def test_without_a_manifest_json_the_annotation_names_its_host(tmp_path: Path) -> None:
    unpacked(tmp_path / "x", None)
    assert not scanned(tmp_path).repositories[APP].plain


def test_a_manifest_json_of_another_program_changes_nothing(tmp_path: Path) -> None:
    unpacked(tmp_path / "x", None)
    (tmp_path / "x" / "manifest.json").write_text('{"name": "an app for the browser"}')
    assert list(scanned(tmp_path).repositories) == [APP]
