"""Saved images: a manifest over what is stored, right or not at all."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository
from mirror.sources.archive import read_archive
from mirror.sources.naming import Namer
from mirror.sources.place import Naming
from mirror.store.layer_hashes import hash_layers
from tests.sources import archives
from tests.sources.archives import Files, Link, packed, sha256, tar_of
from tests.sources.read_archives import (
    BASE,
    LIMIT,
    TOP,
    at,
    check_bytes,
    hashed,
    hub,
    local,
    manifest_of,
    names,
    only,
    read,
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "app.tar"


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


def test_the_digest_over_compressed_layers_is_a_promise(archive: Path) -> None:
    # Nothing is unpacked or packed for it: no version of zlib can change it.
    stored = {"gzip": b"\x1f\x8b\x08layer", "zstd": b"\x28\xb5\x2f\xfdlayer"}
    paths = [f"{sha256(content)}.tar.gz" for content in stored.values()]
    config = b'{"rootfs":{"diff_ids":["sha256:%s","sha256:%s"]}}' % (b"0" * 64, b"1" * 64)
    item = {"Config": "config.json", "RepoTags": ["a/b:1"], "Layers": paths}
    files = dict(zip(paths, stored.values(), strict=True))
    place = only(read(archive, files | {"config.json": config, "manifest.json": archives.as_json([item])}))
    descriptor = place.entries[0].descriptor
    assert descriptor.digest == "sha256:229d3628baab124bf49b198d0fdd822b44c5e1eedb710cc8c448eab4679b43bc"
    assert descriptor.platform is None
    kinds = [child.media_type for child in manifest_of(place, place.entries[0]).blobs[1:]]
    assert kinds == [media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER_ZSTD]


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


def nameless(stored: Sequence[bytes], config: bytes) -> Files:
    """A saved image whose stored layers have no digest in their names."""
    layers = {f"layer{number}/layer.tar": content for number, content in enumerate(stored)}
    item = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": list(layers)}
    return {"config.json": config, **layers, "manifest.json": archives.as_json([item])}


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
        before, after = only(contents), only(again)
        assert before.claims == {claim.digest: claim for claim in contents.unverified}
        assert after == replace(before, claims=None)


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


def test_an_item_of_manifest_json_that_is_no_image_costs_itself(archive: Path) -> None:
    files = dict(archives.podman(["a/b:1"], [BASE]))
    listed = [7, {"Config": 1}, *json.loads(bytes(files["manifest.json"]))]  # type: ignore[arg-type]  # it is no link
    place = only(read(archive, files | {"manifest.json": archives.as_json(listed)}))
    assert [names(entry) for entry in place.entries] == [["docker.io/a/b:1"]]
    assert place.problems == ("manifest.json: 2 of its items are no saved images",)


def test_problems_of_thousands_of_images_are_some_lines(archive: Path) -> None:
    items: list[dict[str, object]] = [{"Config": f"{number}.json", "Layers": []} for number in range(3000)]
    place = only(read(archive, {"manifest.json": archives.as_json(items)}))
    assert len(place.problems) == 21
    assert place.problems[-1] == "and 2980 more such problems"


def test_a_layer_whose_first_name_looks_like_another_format_is_a_layer(archive: Path) -> None:
    stored = tar_of({"BZh91": b"no bzip2"})
    check_bytes(only(read(archive, archives.podman(["a:1"], [stored]))))


def test_the_same_image_listed_twice_is_one_entry_with_both_names(archive: Path) -> None:
    files = dict(archives.podman(["a/b:1"], [BASE]))
    listed = json.loads(bytes(files["manifest.json"]))  # type: ignore[arg-type]  # it is no link
    listed.append({**listed[0], "RepoTags": ["c/d:2"]})
    place = only(read(archive, files | {"manifest.json": archives.as_json(listed)}))
    assert names(place.entries[0]) == ["docker.io/a/b:1", "docker.io/c/d:2"]
    assert len(place.entries) == 1
