"""What archives of every producer hold, and that nothing in a broken one is served wrong."""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from mirror.oci.names import DOCKER_HUB, Host, Name, Repository
from mirror.sources.archive import ArchiveContents, ArchivePath, read_archive, without_extension
from mirror.sources.naming import Namer
from mirror.sources.place import Entry, Naming, Place
from mirror.store.archive_file import ArchiveError, ArchiveInvalid, ArchiveUnreadable
from mirror.store.layer_hashes import hash_layers
from mirror.store.tar_index import Member
from tests.sources import archives
from tests.sources.archives import Files, Link, layer, packed, sha256, tar_of

BASE, TOP = layer("base"), layer("top")
LIMIT = 1024 * 1024


def at(path: Path) -> ArchivePath:
    return ArchivePath(str(path), str(path.parent), (path.name,))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "app.tar"


def read(path: Path, files: Files) -> ArchiveContents:
    return read_archive(at(archives.write(path, files)), Namer())


def only(contents: ArchiveContents) -> Place:
    assert len(contents.places) == 1
    return contents.places[0]


def names(entry: Entry) -> list[str]:
    return [f"{naming.name}:{naming.tag}" for naming in entry.namings]


def hub(repository: str, tag: str, plain: bool = False) -> Naming:
    return Naming(Name(DOCKER_HUB, Repository(repository)), tag, plain)


def local(repository: str, tag: str) -> Naming:
    return Naming(Name(None, Repository(repository)), tag, True)


def blob(place: Place, digest: str) -> bytes:
    """The bytes of a blob, as they would be served."""
    assert place.members is not None
    member = place.members[Digest(digest)]
    return Path(place.unpacked or place.path).read_bytes()[member.offset : member.offset + member.size]


def manifest_of(place: Place, entry: Entry) -> ManifestLinks:
    content = entry.content or blob(place, entry.descriptor.digest)
    assert entry.descriptor.digest.matches(content)
    assert entry.descriptor.size == len(content)
    return ManifestLinks.parse(content)


def check_bytes(place: Place) -> None:
    """Everything that an image of the place lists is there and is what its digest says."""
    for entry in place.entries:
        for child in manifest_of(place, entry).blobs:
            content = blob(place, child.digest)
            assert child.digest.matches(content)
            assert child.size == len(content)


def test_old_docker_save_gets_a_manifest_over_its_layers_as_stored(archive: Path) -> None:
    contents = read(archive, archives.old_docker({"team/app:1": [BASE, TOP], "legacy:2": [BASE]}))
    place = only(contents)
    assert place.problems == contents.problems == ()
    assert [entry.namings for entry in place.entries] == [
        (hub("team/app", "1", plain=True),),
        (hub("library/legacy", "2", plain=True),),
    ]
    links = manifest_of(place, place.entries[0])
    assert links.media_type == media_types.OCI_MANIFEST
    assert [child.digest for child in links.blobs[1:]] == [Digest.of(BASE), Digest.of(TOP)]
    assert {child.media_type for child in links.blobs[1:]} == {media_types.OCI_LAYER_TAR}
    assert links.config is not None
    assert links.config.digest == Digest.of(archives.config([BASE, TOP]))
    assert place.entries[0].descriptor.platform == {"architecture": "amd64", "os": "linux"}
    check_bytes(place)


def test_the_digest_of_a_generated_manifest_is_a_promise(archive: Path) -> None:
    # A change of this digest breaks everyone who pinned an image of a saved archive.
    diff_id = "sha256:" + sha256(b"layer")
    config = b'{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{"type":"layers","diff_ids":["%s"]}}'
    config %= diff_id.encode()
    item = {"Config": "c.json", "RepoTags": ["quay.io/a/b:1"], "Layers": ["l/layer.tar"]}
    contents = read(archive, {"c.json": config, "l/layer.tar": b"layer", "manifest.json": archives.as_json([item])})
    entry = only(contents).entries[0]
    assert entry.content == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"config":{"mediaType":"application/vnd.oci.image.config.v1+json",'
        b'"digest":"sha256:%s","size":%d},'
        b'"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",'
        b'"digest":"sha256:%s","size":5}]}' % (sha256(config).encode(), len(config), sha256(b"layer").encode())
    )
    assert entry.descriptor == Descriptor(
        media_types.OCI_MANIFEST,
        Digest("sha256:daaf605a6557a8533c8098d207fec4e8ae37191fb56fc134fa34074c95b0943b"),
        len(entry.content),
        platform={"architecture": "arm64", "os": "linux", "variant": "v8"},
    )


def test_podman_writes_localhost_for_what_has_no_host(archive: Path) -> None:
    place = only(read(archive, archives.podman(["localhost/team/app:1", "quay.io/team/app:2"], [BASE, TOP])))
    quay = Naming(Name(Host("quay.io"), Repository("team/app")), "2", False)
    assert place.entries[0].namings == (local("team/app", "1"), quay)
    check_bytes(place)


def test_crane_layers_are_served_compressed_as_stored(archive: Path) -> None:
    contents = read(archive, archives.crane(["index.docker.io/library/busybox:1"], [BASE, TOP]))
    place = only(contents)
    assert place.entries[0].namings == (hub("library/busybox", "1"),)
    links = manifest_of(place, place.entries[0])
    assert [child.digest for child in links.blobs[1:]] == [Digest.of(packed(BASE)), Digest.of(packed(TOP))]
    assert {child.media_type for child in links.blobs[1:]} == {media_types.OCI_LAYER_GZIP}
    assert contents.needs_hashing == ()
    check_bytes(place)


def saved_new(**layout_annotations: str) -> dict[str, bytes]:
    """Docker 25+: a layout whose manifest is the image's, and a manifest.json beside it."""
    descriptor, blobs = archives.image([BASE, TOP])
    files = archives.layout([archives.named(descriptor, **layout_annotations)], blobs)
    config = archives.blob(archives.config([BASE, TOP]))[0]
    layers = [archives.blob(stored)[0] for stored in (BASE, TOP)]
    item = {"Config": config, "RepoTags": ["legacy:1", "quay.io/x/y:2"], "Layers": layers}
    return files | {"manifest.json": archives.as_json([item])}


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


def nameless(stored: Sequence[bytes], config: bytes) -> Files:
    """A saved image whose stored layers have no digest in their names."""
    layers = {f"layer{number}/layer.tar": content for number, content in enumerate(stored)}
    item = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": list(layers)}
    return {"config.json": config, **layers, "manifest.json": archives.as_json([item])}


def hashed(path: Path) -> ArchiveContents:
    """Both passes: headers, hashing what is asked for, headers again."""
    first = read_archive(at(path), Namer())
    members = [*first.needs_hashing, *(claim.member for claim in first.unverified)]
    return read_archive(at(path), Namer(), hash_layers(str(path), first.stamp, members, LIMIT))


def test_compressed_layers_without_a_digest_in_their_name_are_hashed_first(archive: Path) -> None:
    contents = read(archive, nameless([packed(BASE), TOP], archives.config([BASE, TOP])))
    assert (contents.places, contents.problems) == ((), ())
    assert len(contents.needs_hashing) == 1
    contents = hashed(archive)
    assert (contents.needs_hashing, contents.unverified) == ((), ())
    assert names(only(contents).entries[0]) == ["docker.io/library/app:1"]
    check_bytes(only(contents))


def test_a_compressed_layer_named_by_what_it_unpacks_to_is_hashed_first(archive: Path) -> None:
    files = dict(archives.podman(["app:1"], [BASE]))
    files[f"{sha256(BASE)}.tar"] = packed(BASE)
    assert len(read(archive, files).needs_hashing) == 1
    check_bytes(only(hashed(archive)))


def test_claims_are_listed_until_their_bytes_were_hashed(archive: Path) -> None:
    for files in (archives.old_docker({"a:1": [BASE, TOP]}), archives.crane(["a:1"], [BASE, TOP])):
        contents = read(archive, files)
        facts = hash_layers(str(archive), contents.stamp, [claim.member for claim in contents.unverified], LIMIT)
        assert len(contents.unverified) == 2
        assert all(claim.holds(facts[claim.member]) for claim in contents.unverified)
        again = read_archive(at(archive), Namer(), facts)
        assert again.unverified == ()
        assert again.places == contents.places


@pytest.mark.parametrize("stored", [TOP, packed(TOP), packed(BASE)[:-4], packed(BASE)[:-9] + b"\0" * 9])
def test_layers_that_are_not_what_the_config_says_cost_their_image(archive: Path, stored: bytes) -> None:
    read(archive, nameless([stored], archives.config([BASE])))
    place = only(hashed(archive))
    assert place.entries == ()
    assert "app:1" in place.problems[0]
    assert f"is not the sha256:{sha256(BASE)}" in place.problems[0]


def test_a_layer_that_is_not_what_its_name_says_fails_its_claim_and_is_then_named_right(archive: Path) -> None:
    files = dict(archives.crane(["a:1"], [BASE]))
    name = f"{sha256(packed(BASE))}.tar.gz"
    other = packed(BASE) + packed(b"")  # unpacks to the same
    files[name] = other
    contents = read(archive, files)
    facts = hash_layers(str(archive), contents.stamp, [claim.member for claim in contents.unverified], LIMIT)
    assert not any(claim.holds(facts[claim.member]) for claim in contents.unverified)
    place = only(read_archive(at(archive), Namer(), facts))
    assert manifest_of(place, place.entries[0]).blobs[1].digest == Digest.of(other)
    check_bytes(place)


def test_a_layer_that_is_a_bomb_costs_its_image_and_no_memory(archive: Path) -> None:
    read(archive, nameless([packed(bytes(20 * LIMIT))], archives.config([bytes(20 * LIMIT)])))
    place = only(hashed(archive))
    assert place.entries == ()
    assert f"more than {LIMIT} bytes" in place.problems[0]


CHANGES = [
    *("no layer", "link out", "absolute", "dots", "xz"),
    *("no config", "other config", "config no JSON", "config a list"),
    *("no diff_ids", "bad diff_ids", "diff_ids no strings", "sha512 diff_ids"),
]


def broken(change: str) -> Files:
    files: dict[str, bytes | Link] = dict(archives.old_docker({"a:1": [BASE, TOP], "b:1": [BASE]}))
    config_a, config_b = (f"{sha256(archives.config(layers))}.json" for layers in ([BASE, TOP], [BASE]))
    top = sha256(b"a:1 1") + "/layer.tar"
    listed = json.loads(bytes(files["manifest.json"]))  # type: ignore[arg-type]  # it is no link
    match change:
        case "no layer":
            del files[top]
        case "no config":
            del files[config_a]
        case "other config":
            files[config_a] = files[config_b]
        case "config no JSON":
            files["c"], listed[0]["Config"] = b"{", "c"
        case "config a list":
            files["c"], listed[0]["Config"] = b"[]", "c"
        case "no diff_ids":
            files["c"], listed[0]["Config"] = b"{}", "c"
        case "bad diff_ids":
            files["c"], listed[0]["Config"] = archives.as_json({"rootfs": {"diff_ids": ["x", "y"]}}), "c"
        case "diff_ids no strings":
            files["c"], listed[0]["Config"] = archives.as_json({"rootfs": {"diff_ids": [1, 2]}}), "c"
        case "sha512 diff_ids":
            digests = ["sha512:" + "0" * 128] * 2
            files["c"], listed[0]["Config"] = archives.as_json({"rootfs": {"diff_ids": digests}}), "c"
        case "link out":
            files[top] = Link("../../etc/passwd")
        case "absolute":
            listed[0]["Layers"][1] = "/etc/passwd"
        case "dots":
            listed[0]["Layers"][1] = "../" + listed[0]["Layers"][1]
        case "xz":
            files[top] = b"\xfd7zXZ\0" + bytes(100)
    return files | {"manifest.json": archives.as_json(listed)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_broken_image_costs_itself_and_the_others_are_served(archive: Path, change: str) -> None:
    place = only(read(archive, broken(change)))
    assert [names(entry) for entry in place.entries] == [["docker.io/library/b:1"]]
    assert len(place.problems) == 1
    assert "a:1" in place.problems[0]
    check_bytes(place)


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


def test_the_same_image_listed_twice_is_one_entry_with_both_names(archive: Path) -> None:
    files = dict(archives.podman(["a/b:1"], [BASE]))
    listed = json.loads(bytes(files["manifest.json"]))  # type: ignore[arg-type]  # it is no link
    listed.append({**listed[0], "RepoTags": ["c/d:2"]})
    place = only(read(archive, files | {"manifest.json": archives.as_json(listed)}))
    assert names(place.entries[0]) == ["docker.io/a/b:1", "docker.io/c/d:2"]
    assert len(place.entries) == 1


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


@settings(max_examples=120, deadline=None)
@given(
    form=st.sampled_from(["old", "podman", "crane", "new"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=5),
    cut=st.none() | st.integers(0, 40_000),
    in_documents=st.booleans(),
)
def test_mutated_archives_are_served_right_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    changes: list[tuple[int, bytes]],
    cut: int | None,
    in_documents: bool,
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
    path = tmp_path_factory.getbasetemp() / "mutated.tar"
    path.write_bytes(bytes(content[:cut]))
    try:
        contents = read_archive(at(path), Namer())
        members = [*contents.needs_hashing, *(claim.member for claim in contents.unverified)]
        facts = hash_layers(str(path), contents.stamp, members, LIMIT)
        verified = read_archive(at(path), Namer(), facts)
    except ArchiveError:
        return
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


def run(*command: str) -> None:
    """Run a real tool; a missing one skips the test, by name."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
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
    if shutil.which("crane") is None:
        pytest.skip("crane is not installed")
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
