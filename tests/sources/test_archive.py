"""What archives hold: layouts, loose blobs, several in one; nothing in a broken one is served wrong."""

import os
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from mirror.oci.names import Name, Repository
from mirror.sources.archive import ArchivePath, read_archive, without_extension
from mirror.sources.naming import Namer
from mirror.store.archive_file import ArchiveError, ArchiveInvalid, ArchiveUnreadable
from mirror.store.layer_hashes import hash_layers
from mirror.store.tar_index import Member
from tests.sources import archives
from tests.sources.archives import Files, Link, sha256, tar_of
from tests.sources.read_archives import (
    BASE,
    LIMIT,
    TOP,
    at,
    blob,
    check_bytes,
    hub,
    local,
    names,
    only,
    read,
    saved_new,
)
from tests.store.tars import repair_checksums


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "app.tar"


def test_new_docker_save_keeps_its_own_manifest_and_has_its_repo_tags(archive: Path) -> None:
    annotations = {archives.CONTAINERD: "docker.io/library/legacy:1", archives.REF_NAME: "1"}
    place = only(read(archive, saved_new(**annotations)))
    assert len(place.entries) == 1
    entry = place.entries[0]
    assert entry.content is None
    # Docker writes docker.io/… for local builds too: the RepoTag says that no host was named.
    assert hub("library/legacy", "1", plain=True) in entry.namings
    assert len(entry.namings) == 2
    check_bytes(place)


def test_an_image_that_its_layout_does_not_list_gets_a_manifest(archive: Path) -> None:
    files = saved_new() | {"index.json": archives.index_of([])}
    contents = read(archive, files)
    entry = only(contents).entries[0]
    assert entry.content is not None
    assert names(entry) == ["docker.io/library/legacy:1", "quay.io/x/y:2"]
    check_bytes(only(contents))


def test_repo_tags_of_a_platform_go_to_the_index_that_lists_it(archive: Path) -> None:
    descriptor, blobs = archives.image([BASE])
    index = archives.index_of([{**descriptor, "platform": {"os": "linux", "architecture": "amd64"}}])
    nested = {"mediaType": media_types.OCI_INDEX, **archives.described_by(index)}
    files = archives.layout([nested], blobs | dict([archives.blob(index)]))
    item = {"Config": archives.blob(archives.config([BASE]))[0], "RepoTags": ["x/y:1"], "Layers": []}
    place = only(read(archive, files | {"manifest.json": archives.as_json([item])}))
    assert [entry.descriptor.digest for entry in place.entries] == [Digest.of(index)]
    assert names(place.entries[0]) == ["docker.io/x/y:1"]


def test_bare_tags_are_of_the_archives_path_without_extension(tmp_path: Path) -> None:
    descriptor, blobs = archives.image([BASE])
    tags = ["1.0.0", "1.0.1", "1.1.0+oci", "2.0.0-preview.1", "latest"]
    listed = [archives.named(descriptor, **{archives.REF_NAME: tag}) for tag in tags]
    path = archives.write(tmp_path / "team/app.tar", archives.layout(listed, blobs))
    contents = read_archive(ArchivePath(str(path), str(tmp_path), ("team", "app.tar")), Namer())
    place = only(contents)
    assert place.name == Name(None, Repository("team/app"))
    assert place.entries[0].namings == tuple(local("team/app", tag) for tag in tags)
    assert contents.unverified == ()


@pytest.mark.parametrize(
    ("file_name", "stem"),
    [
        ("app.tar", "app"),
        ("app.tar.gz", "app"),
        ("app.TGZ", "app"),
        ("app.tar.zst", "app"),
        ("app.oci.tar", "app"),
        ("app-1.2", "app-1.2"),
        (".tar", ".tar"),
    ],
)
def test_extensions_are_no_part_of_a_name(file_name: str, stem: str) -> None:
    assert without_extension(file_name) == stem


def test_layouts_below_folders_are_places_of_their_own(archive: Path) -> None:
    (first, first_blobs), (second, second_blobs) = archives.image([BASE]), archives.image([TOP])
    tag = {archives.REF_NAME: "1"}
    contents = read(
        archive,
        archives.below("./one", archives.layout([archives.named(first, **tag)], first_blobs))
        | archives.below("deep/two", archives.layout([archives.named(second, **tag)], second_blobs)),
    )
    assert [(place.inside, str(place.name)) for place in contents.places] == [
        ("deep/two", "app/deep/two"),
        ("one", "app/one"),
    ]
    for place in contents.places:
        check_bytes(place)


def test_loose_blobs_are_a_place_without_entries(archive: Path) -> None:
    files = dict([archives.blob(BASE), archives.blob(TOP, "sha512"), archives.blob(b"")])
    place = only(read(archive, files | {"blobs/sha256/short": b"x", "blobs/md5/" + "0" * 32: b"y"}))
    assert (place.entries, place.name, place.problems) == ((), None, ())
    assert place.members is not None
    assert place.members.keys() == {Digest.of(BASE), Digest.of(TOP, "sha512"), Digest.of(b"")}
    assert blob(place, Digest.of(TOP, "sha512")) == TOP


def test_linked_blobs_are_served(archive: Path) -> None:
    place = only(read(archive, {"real": BASE, f"blobs/sha256/{sha256(BASE)}": Link("../../real")}))
    assert blob(place, Digest.of(BASE)) == BASE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.json", b"{"),
        ("index.json", b"[]"),
        ("index.json", b"{}"),
        ("index.json", b"[" * 100_000),
        ("oci-layout", b'{"imageLayoutVersion":"7"}'),
        ("oci-layout", b""),
    ],
)
def test_of_a_broken_layout_the_blobs_are_kept(archive: Path, name: str, content: bytes) -> None:
    descriptor, blobs = archives.image([BASE])
    place = only(read(archive, archives.layout([descriptor], blobs) | {name: content}))
    assert place.entries == ()
    assert name in place.problems[0]
    assert blob(place, Digest.of(BASE)) == BASE


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1]", b'[{"Config":1}]', b'[{"Config":"a","Layers":[1]}]'])
def test_a_manifest_json_of_another_kind_is_said_at_the_top_and_passed_over_below(
    archive: Path, content: bytes
) -> None:
    assert "manifest.json" in only(read(archive, {"manifest.json": content})).problems[0]
    contents = read(archive, {"package/manifest.json": content})
    assert contents.places == ()
    assert len(contents.problems) == 1


def test_what_was_read_can_be_handed_to_another_process(archive: Path) -> None:
    contents = read(archive, archives.crane(["a:1"], [BASE]) | saved_new())
    assert pickle.loads(pickle.dumps(contents)) == contents  # noqa: S301 our own


def test_a_save_of_before_docker_1_10_is_told_from_a_stray_tar(archive: Path) -> None:
    assert "1.10" in only(read(archive, {"repositories": b"{}", "abc/layer.tar": BASE})).problems[0]
    assert "neither" in read(archive, {"etc/motd": b"hello"}).problems[0]


def test_images_without_a_name_are_entries_without_names(tmp_path: Path) -> None:
    item = {"Config": "c", "RepoTags": None, "Layers": None}
    files = {"c": archives.config([]), "manifest.json": archives.as_json([item])}
    place = only(read(tmp_path / "My Image.tar", files))
    assert place.entries[0].namings == ()
    assert "My Image" in place.problems[0]
    # Where every entry has a full name, nobody needs the place's.
    place = only(read(tmp_path / "My Other Image.tar", archives.podman(["a/b:1"], [BASE])))
    assert place.problems == ()


def test_indexes_in_a_circle_end(archive: Path) -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    kind = {"mediaType": media_types.OCI_INDEX, "size": 9}
    blobs = {
        f"blobs/sha256/{'1' * 64}": archives.index_of([kind | {"digest": second}]),
        f"blobs/sha256/{'2' * 64}": archives.index_of([kind | {"digest": first}] * 1000),
    }
    files = archives.layout([kind | {"digest": first}], blobs) | dict(archives.podman(["a/b:1"], [BASE]))
    assert [names(entry) for entry in only(read(archive, files)).entries] == [[], ["docker.io/a/b:1"]]


def test_fifos_and_stray_files_are_archive_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tar")
    with pytest.raises(ArchiveUnreadable):
        read_archive(at(tmp_path / "fifo.tar"), Namer())
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(ArchiveInvalid):
        read_archive(at(tmp_path / "text.tar"), Namer())


def test_an_archive_of_tebibytes_is_listed_without_reading_it(archive: Path) -> None:
    size = 2**42
    diff_id = "sha256:" + "0" * 64
    item = {"Config": "c", "RepoTags": ["a/b:1"], "Layers": ["l/layer.tar"]}
    big = tarfile.TarInfo("l/layer.tar")
    big.size = size
    with archive.open("wb") as file:
        file.write(big.tobuf(tarfile.GNU_FORMAT))
        file.seek(size, os.SEEK_CUR)
        config = archives.as_json({"rootfs": {"diff_ids": [diff_id]}})
        file.write(tar_of({"c": config, "manifest.json": archives.as_json([item])}))
    contents = read_archive(at(archive), Namer())
    assert only(contents).members == {Digest.of(config): Member(size + 1024, len(config)), diff_id: Member(512, size)}


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(["old", "podman", "crane", "new"]),
    changes=st.lists(
        st.tuples(
            st.integers(0, 10**6), st.binary(min_size=1, max_size=8) | st.sampled_from([b"a", b'"', b"0", b"]"])
        ),
        max_size=5,
    ),
    cut=st.sampled_from([None] * 8 + [511, 5120, 12_345, 20_480]),
    in_documents=st.booleans(),
    right_checksums=st.sampled_from([True, True, False]),
)
def test_mutated_archives_are_served_right_or_not_at_all(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    changes: list[tuple[int, bytes]],
    cut: int | None,
    in_documents: bool,
    right_checksums: bool,
) -> None:
    made: dict[str, Files] = {
        "old": archives.old_docker({"a:1": [BASE, TOP], "b:1": [BASE]}),
        "podman": archives.podman(["a:1"], [BASE, TOP]),
        "crane": archives.crane(["a:1"], [BASE]),
        "new": saved_new(**{archives.REF_NAME: "1"}),
    }
    content = bytearray(tar_of(made[form]))
    start = content.find(b'[{"Config"') if in_documents else 0
    for number, new in changes:
        position = start + number % (600 if in_documents else len(content))
        content[position : position + len(new)] = new
    if right_checksums:
        repair_checksums(content)
    path = tmp_path_factory.getbasetemp() / "mutated.tar"
    path.write_bytes(bytes(content[:cut]))
    try:
        contents = read_archive(at(path), Namer())
        members = [*contents.needs_hashing, *(claim.member for claim in contents.unverified)]
        facts = hash_layers(str(path), contents.stamp, members, LIMIT)
        verified = read_archive(at(path), Namer(), facts)
    except ArchiveError:
        return
    event(f"{sum(entry.content is not None for place in verified.places for entry in place.entries)} generated")
    size = path.stat().st_size
    for place in contents.places + verified.places:
        assert place.members is not None
        for member in place.members.values():
            assert member.offset >= 0
            assert member.offset + member.size <= size
        for entry in place.entries:
            assert entry.content is None or entry.descriptor.digest.matches(entry.content)
    # After hashing, what a generated manifest lists is what its digests say, or the image is gone.
    assert verified.unverified == ()
    for place in verified.places:
        for entry in place.entries:
            if entry.content is not None:
                for child in ManifestLinks.parse(entry.content).blobs:
                    found = blob(place, child.digest)
                    in_blobs = f"blobs/sha256/{child.digest.hex}".encode() in content
                    assert in_blobs or (child.size == len(found) and child.digest.matches(found))
