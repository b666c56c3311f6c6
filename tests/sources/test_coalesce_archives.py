"""One tag from several places: what it means, on every machine, and what is said of it."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from mirror.sources.view import Meaning, View
from mirror.store.generated import GeneratedManifests
from tests.content import LINUX_AMD64, LINUX_ARM64, LayoutWriter
from tests.sources import archives
from tests.sources.local_folder import LocalFolder, named, root

APP = "quay.io/team/app"
HOUR_NS = 3600 * 10**9


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def folder(tmp_path: Path, files: Path) -> Iterator[LocalFolder]:
    with LocalFolder(tmp_path / "cache", root(files)) as made:
        yield made


def platform(architecture: str, system: str = "linux", **more: Any) -> Mapping[str, Any]:
    return {"architecture": architecture, "os": system, **more}


def save(files: Path, name: str, text: str, tag: str = f"{APP}:1", **more: Any) -> Path:
    """A `docker save` archive of one image."""
    return archives.write(files / name, archives.old_docker({tag: [archives.layer(text)]}, **more))


def age(path: Path, hours: int) -> None:
    """Make a file this much older than 2026."""
    when = (1_800_000 * 10**12 // 10**3) - hours * HOUR_NS
    os.utime(path, ns=(when, when))


def children(found: Meaning | None) -> list[Descriptor]:
    assert found is not None
    assert media_types.is_index(found.manifest.media_type)
    return list(ManifestLinks.parse(found.manifest.content).manifests)


def platforms(found: Meaning | None) -> list[str]:
    return [" ".join(map(str, (child.platform or {}).values())) for child in children(found)]


def test_two_archives_of_one_tag_become_one_index_and_each_alone_is_itself(files: Path, folder: LocalFolder) -> None:
    amd64 = save(files, "amd64.tar", "amd64", architecture="amd64")
    save(files, "arm64.tar", "arm64", architecture="arm64", variant="v8")
    found = folder.look().meaning(APP, "1")
    assert found is not None
    assert found.generated
    assert platforms(found) == ["amd64 linux", "arm64 linux v8"]
    for child in children(found):
        one = folder.meaning(APP, child.digest)
        assert one is not None
        assert child.size == len(one.manifest.content)
        for blob in ManifestLinks.parse(one.manifest.content).blobs:
            assert blob.digest.matches(folder.blob(APP, blob.digest) or b"")
    # The bytes of an index are a blob too.
    assert folder.blob(APP, found.manifest.digest) == found.manifest.content
    of_amd64, of_arm64 = (child.digest for child in children(found))
    amd64.rename(files / "amd64.gone")
    assert folder.look().digest(APP, "1") == of_arm64
    assert folder.digest(APP, of_amd64) is None
    # One of its parts is gone: the index goes with it, and comes back.
    assert folder.digest(APP, found.manifest.digest) is None
    (files / "amd64.gone").rename(amd64)
    assert folder.look().digest(APP, "1") == found.manifest.digest


def test_the_bytes_of_a_generated_index_are_a_promise(files: Path, folder: LocalFolder) -> None:
    # A change here breaks everyone who pinned a tag that comes from two archives.
    save(files, "a.tar", "x", architecture="arm64", variant="v8")
    save(files, "b.tar", "y", architecture="amd64")
    found = folder.look().meaning(APP, "1")
    assert found is not None
    assert found.manifest.content == (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"digest":"%s","size":398,"platform":{"architecture":"amd64","os":"linux"}},'
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        b'"digest":"%s","size":398,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}'
        % tuple(child.digest.encode() for child in children(found))
    )
    assert found.manifest.digest == "sha256:a1d288b17197e659c57a6c065c0a957cb923106730641a50ad9b9d554f609145"


def test_variants_and_versions_of_an_os_are_platforms_of_their_own_in_a_fixed_order(
    files: Path, folder: LocalFolder
) -> None:
    wanted = [
        platform("amd64", "linux"),
        platform("arm", "linux", variant="v6"),
        platform("arm", "linux", variant="v7"),
        platform("arm64", "linux"),
        platform("amd64", "windows", **{"os.version": "10.0.17763.1"}),
        platform("amd64", "windows", **{"os.version": "10.0.20348.1"}),
        platform("amd64", "windows", **{"os.version": "10.0.20348.1", "os.features": ["win32k"]}),
    ]
    for number, one in enumerate(reversed(wanted)):
        age(save(files, f"{number}.tar", f"image {number}", **one), hours=number)
    found = folder.look().meaning(APP, "1")
    assert [dict(child.platform or {}) for child in children(found)] == wanted
    for number in range(len(wanted)):
        age(files / f"{number}.tar", hours=10 + 3 * number % 7)
    assert folder.look().digest(APP, "1") == (found.manifest.digest if found else None)


def write_layout(path: Path, *parts: tuple[str, Mapping[str, Any]], **more: Any) -> dict[str, Descriptor]:
    """A layout with one index of these images at tag 1; `annotations` go to each child."""
    writer = LayoutWriter(path)
    made = {text: writer.image([text.encode()], platform=where) for text, where in parts}
    listed = [
        Descriptor(d.media_type, d.digest, d.size, platform=d.platform, annotations=more.get("annotations", {}))
        for d in made.values()
    ]
    writer.tag(writer.index([*listed, *more.get("others", ())]), f"{APP}:1").save()
    return made


def test_the_order_of_time_matters_only_where_two_places_differ(files: Path, folder: LocalFolder) -> None:
    both, left = ("both", LINUX_AMD64), ("left", LINUX_ARM64)
    write_layout(files / "a", both, left, annotations={"z": "1", "a": "2"})
    write_layout(files / "b", both, ("right", platform("s390x")))
    digests = set()
    for newer, older in (("a", "b"), ("b", "a")):
        age(files / newer / "index.json", hours=1)
        age(files / older / "index.json", hours=2)
        digests.add(folder.look().digest(APP, "1"))
    assert len(digests) == 1


def test_a_part_that_is_the_whole_is_served_itself(files: Path, folder: LocalFolder) -> None:
    made = write_layout(files / "index", ("a", LINUX_AMD64), ("b", LINUX_ARM64))
    single = LayoutWriter(files / "single")
    single.tag(single.image([b"a"], platform=LINUX_AMD64), f"{APP}:1").save()
    found = folder.look().meaning(APP, "1")
    assert found is not None
    assert not found.generated
    assert {child.digest for child in children(found)} == {one.digest for one in made.values()}


def test_attestations_are_kept(files: Path, folder: LocalFolder) -> None:
    writer = LayoutWriter(files / "amd64")
    image = writer.image([b"a"], platform=LINUX_AMD64)
    attestation = writer.image([b"in-toto"], config={}, platform={"architecture": "unknown", "os": "unknown"})
    note = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.digest}
    kept = Descriptor(attestation.media_type, attestation.digest, attestation.size, None, attestation.platform, note)
    writer.tag(writer.index([image, kept]), f"{APP}:1").save()
    other = LayoutWriter(files / "arm64")
    other.tag(other.image([b"b"], platform=LINUX_ARM64), f"{APP}:1").save()
    found = children(folder.look().meaning(APP, "1"))
    assert [child.digest for child in found if child.annotations == note] == [attestation.digest]
    assert len(found) == 3


def test_a_conflict_is_said_once_with_both_paths_and_the_newer_wins(
    files: Path, folder: LocalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = save(files, "old.tar", "old"), save(files, "new.tar", "new")
    age(old, hours=2)
    age(new, hours=1)
    loser = save(files, "third.tar", "third", architecture="arm64")
    age(loser, hours=3)
    with caplog.at_level(logging.WARNING):
        found = folder.look().meaning(APP, "1")
        for _ in range(3):
            (files / "unrelated").mkdir(exist_ok=True)
            folder.look().meaning(APP, "1")
    texts = [child.digest for child in children(found)]
    digests = {path.name: place for place in folder.last.places if (path := Path(place.path))}
    of_old, of_new = (digests[name].entries[0].descriptor.digest for name in ("old.tar", "new.tar"))
    assert texts[0] == of_new
    assert of_old not in texts
    assert folder.digest(APP, of_old) == of_old
    said = [record.__dict__["fields"] for record in caplog.records if record.message == "conflict"]
    assert said == [
        {"image": f"{APP}:1", "platform": "linux/amd64", "served": str(new), "other": str(old)},
    ]


def test_of_two_files_of_one_age_the_first_by_path_wins(files: Path, folder: LocalFolder) -> None:
    for name in ("b.tar", "a.tar"):
        age(save(files, name, name), hours=1)
    found = folder.look().digest(APP, "1")
    assert found == next(p.entries[0].descriptor.digest for p in folder.last.places if p.path.endswith("/a.tar"))


def test_coalesce_false_serves_the_newest_alone_and_says_so(
    tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    age(save(files, "old.tar", "old", architecture="arm64"), hours=2)
    age(save(files, "new.tar", "new"), hours=1)
    with LocalFolder(tmp_path / "cache", root(files, coalesce=False)) as folder:
        found = folder.look().meaning(APP, "1")
        assert found is not None
        assert found.manifest.media_type == media_types.OCI_MANIFEST
        assert [r.__dict__["fields"]["served"] for r in caplog.records if r.message == "conflict"] == [
            str(files / "new.tar")
        ]


def test_any_process_finds_what_another_generated(tmp_path: Path, files: Path, folder: LocalFolder) -> None:
    save(files, "amd64.tar", "a")
    arm64 = save(files, "arm64.tar", "b", architecture="arm64")
    digest = folder.look().digest(APP, "1")
    assert digest is not None
    with LocalFolder(tmp_path / "cache", root(files)) as other:
        other.look()
        # It was never asked for the tag.
        assert other.digest(APP, digest) == digest
        # The tag moves on; what was pinned stays as long as its parts are there.
        save(files, "s390x.tar", "c", architecture="s390x")
        assert other.look().digest(APP, "1") != digest
        assert other.digest(APP, digest) == digest
        arm64.unlink()
        assert other.look().digest(APP, digest) is None
        # Where its parts are in another repository only, it is none of that one's.
        assert other.digest("quay.io/team/nothing", digest) is None


def test_a_generated_index_is_stored_before_its_tag_is_answered(
    tmp_path: Path, files: Path, folder: LocalFolder
) -> None:
    save(files, "amd64.tar", "a")
    save(files, "arm64.tar", "b", architecture="arm64")
    digest = folder.look().digest(APP, "1")
    assert digest is not None
    fresh = View(folder.view.library, GeneratedManifests(tmp_path / "cache" / "generated"))
    found = fresh.resolve(fresh.snapshot.repositories[named(APP)], digest)
    assert found is not None
    assert found.generated


def test_a_newest_file_that_cannot_be_read_leaves_the_tag_to_the_others(files: Path, folder: LocalFolder) -> None:
    age(save(files, "old.tar", "old"), hours=1)
    missing = Descriptor(media_types.OCI_MANIFEST, Digest.of(b"missing"), 7)
    LayoutWriter(files / "new").tag(missing, f"{APP}:1").save()
    found = folder.look().meaning(APP, "1")
    assert found is not None
    assert found.generated  # of old.tar, that has no manifest of its own


def test_what_would_be_too_large_an_index_is_not_joined(files: Path, folder: LocalFolder) -> None:
    note = {"a": "x" * 3_000_000}
    write_layout(files / "a", ("a", LINUX_AMD64), annotations=note)
    made = write_layout(files / "b", ("b", LINUX_ARM64), annotations=note)
    age(files / "a" / "index.json", hours=1)
    age(files / "b" / "index.json", hours=0)
    assert [child.digest for child in children(folder.look().meaning(APP, "1"))] == [made["b"].digest]


def test_a_chart_that_is_newer_than_an_image_of_its_tag_is_the_tag(files: Path, folder: LocalFolder) -> None:
    age(save(files, "image.tar", "old"), hours=1)
    writer = LayoutWriter(files / "chart")
    chart = writer.image([b"chart"], config={"name": "x"}, config_type="application/vnd.cncf.helm.config.v1+json")
    writer.tag(chart, f"{APP}:1").save()
    assert folder.look().digest(APP, "1") == chart.digest


def test_json_that_nobody_writes_does_not_stop_a_tag(files: Path, folder: LocalFolder) -> None:
    odd: dict[str, Any] = {"architecture": "amd64", "os": ["linux"], "variant": {"a": 1}, "os.features": [1, None]}
    write_layout(files / "a", ("a", odd))
    write_layout(files / "b", ("b", LINUX_ARM64))
    assert len(children(folder.look().meaning(APP, "1"))) == 2
    assert json.loads((files / "a" / "index.json").read_bytes())
