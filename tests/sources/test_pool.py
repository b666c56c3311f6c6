"""One pool of bytes across layouts and archives; entries without names; packages that are no images."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from tests.content import LayoutWriter, encode
from tests.sources import archives
from tests.sources.archives import layer, sha256, tar_of
from tests.sources.local_folder import LocalFolder, named, root

BASE, TOP = layer("base"), layer("top")
APP = "quay.io/team/app"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def folder(tmp_path: Path, files: Path) -> Iterator[LocalFolder]:
    with LocalFolder(tmp_path / "cache", root(files)) as made:
        yield made


def as_archive(writer: LayoutWriter, path: Path) -> Path:
    """The saved layout as a tar, in place of its folder."""
    found = {str(file.relative_to(writer.path)): file.read_bytes() for file in sorted(writer.path.rglob("*.*"))}
    found |= {str(f.relative_to(writer.path)): f.read_bytes() for f in sorted(writer.path.rglob("*")) if f.is_file()}
    return archives.write(path, found)


def app(tag: str = f"{APP}:1") -> dict[str, bytes]:
    descriptor, blobs = archives.image([BASE, TOP])
    return archives.layout([archives.named(descriptor, **{archives.REF_NAME: tag})], blobs)


@pytest.mark.parametrize("broken", ["a.tar", "b.tar", "c.tar"])
def test_bytes_that_rotted_in_one_archive_are_had_from_another(files: Path, folder: LocalFolder, broken: str) -> None:
    descriptor, blobs = archives.image([BASE, TOP])
    manifest = next(content for name, content in blobs.items() if descriptor["digest"][7:] in name)
    whole = tar_of(app())
    rotten = whole.replace(manifest, manifest.replace(b"schemaVersion", b"schemaVersiom"))
    assert rotten != whole
    for name in ("a.tar", "b.tar", "c.tar"):
        (files / name).write_bytes(rotten if name == broken else whole)
    assert folder.look().digest(APP, "1") == descriptor["digest"]
    assert folder.digest(APP, descriptor["digest"]) == descriptor["digest"]


def test_blobs_of_an_archive_that_is_being_rewritten_are_had_from_another(files: Path, folder: LocalFolder) -> None:
    for name in ("a.tar", "b.tar", "c.tar"):
        (files / name).write_bytes(tar_of(app()))
    folder.look()
    for name in ("a.tar", "c.tar"):
        (files / name).write_bytes(b"")
    assert folder.blob(APP, Digest.of(TOP)) == TOP


def test_what_one_layout_lists_may_lie_in_any_folder_or_archive(files: Path, folder: LocalFolder) -> None:
    descriptor, blobs = archives.image([BASE, TOP])
    paths = {content: name for name, content in blobs.items()}
    of_top = {paths[TOP]: TOP}
    archives.write(
        files / "index.tar",
        archives.layout(
            [archives.named(descriptor, **{archives.REF_NAME: f"{APP}:1"})],
            {name: content for content, name in paths.items() if content not in (BASE, TOP)},
        ),
    )
    archives.write(files / "blobs.tar", of_top)
    other = LayoutWriter(files / "other")
    other.blob(BASE)
    other.save()
    folder.look()
    assert [folder.blob(APP, Digest.of(content)) for content in (BASE, TOP)] == [BASE, TOP]
    # Membership: lying in the pool makes nothing a part of a repository.
    stranger = LayoutWriter(files / "stranger")
    stranger.tag(stranger.image([b"mine"]), "1").save()
    assert folder.look().blob("stranger", Digest.of(TOP)) is None


def test_a_signature_in_an_archive_of_its_own_is_found_with_its_image(files: Path, folder: LocalFolder) -> None:
    archives.write(files / "app.tar", app())
    image, _ = archives.image([BASE, TOP])
    subject = Descriptor(image["mediaType"], Digest(image["digest"]), image["size"])
    writer = LayoutWriter(files / "signatures")
    signature = writer.attachment(b"signed", "application/vnd.dev.sigstore.bundle.v0.3+json", subject)
    writer.add(signature).save()
    as_archive(writer, files / "signatures.tar")
    for child in sorted(writer.path.rglob("*"), reverse=True):
        child.rmdir() if child.is_dir() else child.unlink()
    writer.path.rmdir()
    folder.look()
    repository = folder.view.snapshot.repositories[named(APP)]
    (found,) = folder.view.reach(repository).referrers(subject.digest)
    assert found.digest == signature.digest
    assert found.artifact_type == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert folder.digest(APP, signature.digest) == signature.digest
    assert folder.names() == [APP]


def test_an_entry_without_a_name_belongs_to_its_place_and_goes_by_digest(files: Path, folder: LocalFolder) -> None:
    descriptor, blobs = archives.image([BASE])
    archives.write(files / "team" / "tools.tar.oci.tar", archives.layout([descriptor], blobs))
    folder.look()
    assert folder.names() == ["team/tools.tar"]
    assert folder.tags("team/tools.tar") == []
    assert folder.digest("team/tools.tar", descriptor["digest"]) == descriptor["digest"]


def test_the_mirrors_own_host_in_names_is_what_stands_behind_it(tmp_path: Path) -> None:
    files = tmp_path / "files"
    saved = archives.podman(
        ["127.0.0.1:5000/team/app:1", "mirror.corp.example/quay.io/team/app:2", "localhost/mine:1"], [BASE]
    )
    archives.write(files / "saved.tar", saved)
    layout = app("mirror.corp.example/team/other:1")
    archives.write(files / "layout.tar", layout)
    own = frozenset({"127.0.0.1:5000", "mirror.corp.example"})
    with LocalFolder(tmp_path / "cache", root(files), own_hosts=own) as folder:
        folder.look()
        # Without host, as Docker reads it: docker.io's, but the archive named no host.
        expected = ["docker.io/team/app", "docker.io/team/other", "mine", "quay.io/team/app"]
        assert folder.names() == expected
        plain = {str(name): found.plain for name, found in folder.view.snapshot.repositories.items()}
        assert plain == dict(zip(expected, [True, True, True, False], strict=True))


PACKAGES = {
    "helm chart": ("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
    "wasm": ("application/vnd.wasm.config.v0+json", "application/wasm"),
    "oras": ("application/vnd.oci.empty.v1+json", "application/vnd.example.thing"),
    "cosign signature": (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.dev.cosign.simplesigning.v1+json",
    ),
}


@pytest.mark.parametrize("archived", [False, True], ids=["layout", "archive"])
@pytest.mark.parametrize("kind", PACKAGES)
def test_packages_of_every_kind_are_served_as_they_are(
    files: Path, folder: LocalFolder, kind: str, archived: bool
) -> None:
    config_type, layer_type = PACKAGES[kind]
    writer = LayoutWriter(files / "charts" / "web")
    package = writer.image(
        [b"stored"],
        config={"name": "web", "version": "1.1.0+oci"},
        config_type=config_type,
        layer_type=layer_type,
        artifact_type="application/vnd.example.thing" if kind == "oras" else None,
        annotations={"org.opencontainers.image.title": "web"},
    )
    writer.tag(package, "1.1.0+oci")
    # cosign's tags name their subject, in the old way.
    tags = [f"sha256-{package.digest.hex}.{end}" for end in ("sig", "att", "sbom")]
    for number, tag in enumerate(tags):
        writer.tag(writer.image([tag.encode()], config={"n": number}, layer_type=layer_type), tag)
    sbom = writer.artifact([b"sbom"], subject=package, artifact_type="application/spdx+json")
    writer.add(sbom).save()
    manifest = writer.content(package)
    if archived:
        as_archive(writer, files / "web.tar")
        writer.path.rename(files / ".hidden")
        (files / "web.tar").rename(files / "charts" / "web.tar")
    folder.look()
    assert folder.problems() == {}
    assert folder.tags("charts/web") == ["1.1.0+oci", *sorted(tags)]
    for asked in ("1.1.0+oci", "1.1.0_oci", package.digest):
        found = folder.meaning("charts/web", asked)
        assert found is not None
        assert found.manifest.content == manifest
        assert not found.generated
    assert folder.blob("charts/web", Digest.of(b"stored")) == b"stored"
    assert folder.blob("charts/web", Digest.of(encode({"name": "web", "version": "1.1.0+oci"})))
    for tag in tags:
        assert folder.blob("charts/web", f"sha256:{sha256(tag.encode())}") == tag.encode()
    repository = folder.view.snapshot.repositories[named("charts/web")]
    (referrer,) = folder.view.reach(repository).referrers(package.digest)
    assert (referrer.digest, referrer.artifact_type) == (sbom.digest, "application/spdx+json")
    assert folder.blob("charts/web", Digest.of(b"sbom")) == b"sbom"
