"""Where entries without a name belong: the design's sentence, clause by clause.

"An entry without any name belongs to every repository of that place that reaches it or holds its `subject`; failing
that, to every local repository that holds its `subject`; failing that, to the place's name."
"""

from pathlib import Path

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.sources.adoption import adopt, changed, find_homes
from mirror.sources.library import Library
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import Root
from mirror.sources.snapshot import Snapshot
from tests.content import LayoutWriter

SBOM = "application/spdx+json"


def snapshot(*roots: Path) -> Snapshot:
    scan = Scanner([Root(str(root)) for root in roots]).scan()
    first = Snapshot.of(scan.places)
    return Snapshot.of(scan.places, find_homes(first, Library(first)))


def homes(root: Path, *entries: Descriptor) -> list[set[str]]:
    """The repositories that list each of the entries."""
    repositories = snapshot(root).repositories
    return [
        {str(name) for name, repository in repositories.items() if entry.digest in repository.roots}
        for entry in entries
    ]


def referrer(writer: LayoutWriter, subject: Descriptor | None, content: bytes = b"sbom") -> Descriptor:
    found = writer.attachment(content, SBOM, subject)
    writer.add(found)
    return found


def test_it_belongs_to_the_repositories_of_its_place_that_hold_its_subject(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "place")
    image, other = writer.image([b"1"]), writer.image([b"2"])
    writer.tag(image, "1").tag(image, "quay.io/app:1").tag(other, "ghcr.io/other:1")
    sbom = referrer(writer, image)
    writer.save()
    elsewhere = LayoutWriter(tmp_path / "elsewhere")
    elsewhere.tag(elsewhere.image([b"1"]), "1").save()
    assert homes(tmp_path, sbom) == [{"place", "quay.io/app"}]


def test_a_subject_held_through_an_index_or_a_nested_index_counts(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "place")
    image = writer.image()
    inner = writer.index([image])
    writer.tag(writer.index([inner]), "quay.io/app:1")
    sboms = [referrer(writer, image), referrer(writer, inner, b"inner")]
    writer.save()
    assert homes(tmp_path, *sboms) == [{"quay.io/app"}] * 2


def test_it_belongs_to_the_repositories_of_its_place_that_reach_it(tmp_path: Path) -> None:
    """Listed without a name, and by a named index: served there, without becoming the place's."""
    writer = LayoutWriter(tmp_path / "place")
    child = writer.image()
    writer.tag(writer.index([child]), "quay.io/app:1").add(child).save()
    names = {str(name) for name in snapshot(tmp_path).repositories}
    assert names == {"quay.io/app"}


def test_it_belongs_to_those_that_reach_it_and_to_those_that_hold_its_subject(tmp_path: Path) -> None:
    """One repository reaches the referrer through its index, another of the place holds its subject."""
    writer = LayoutWriter(tmp_path / "place")
    image = writer.image()
    sbom = writer.attachment(b"sbom", SBOM, image)
    writer.tag(writer.index([image, sbom]), "quay.io/reaches:1").tag(image, "quay.io/holds:1").add(sbom).save()
    assert "quay.io/holds" in homes(tmp_path, sbom)[0]


def test_failing_that_to_every_local_repository_that_holds_its_subject(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "images")
    image = writer.image()
    writer.tag(image, "1").tag(image, "quay.io/app:1").save()
    more = LayoutWriter(tmp_path / "more")
    more.tag(more.index([more.image()]), "1").save()
    signatures = LayoutWriter(tmp_path / "signatures")
    sbom = referrer(signatures, image)
    signatures.tag(signatures.image([b"other"]), "1").save()
    assert homes(tmp_path, sbom) == [{"images", "quay.io/app", "more"}]


def test_failing_that_to_the_places_name(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "team" / "place")
    image = writer.image()
    writer.add(image)
    sbom = referrer(writer, writer.image([b"not listed"]))
    writer.save()
    assert homes(tmp_path, image, sbom) == [{"team/place"}] * 2
    (repository,) = snapshot(tmp_path).repositories.values()
    assert repository.plain
    assert repository.tags == {}


def test_referrers_of_referrers_follow(tmp_path: Path) -> None:
    """Listed before what they refer to, so that one turn is not enough."""
    writer = LayoutWriter(tmp_path / "place")
    image = writer.image()
    first = writer.attachment(b"1", SBOM, image)
    second = writer.attachment(b"2", SBOM, first)
    third = writer.attachment(b"3", SBOM, second)
    writer.add(third).add(second).add(first).tag(image, "quay.io/app:1").save()
    assert homes(tmp_path, first, second, third) == [{"quay.io/app"}] * 3


def test_referrers_of_referrers_follow_across_places(tmp_path: Path) -> None:
    writers = [LayoutWriter(tmp_path / name) for name in ("d", "c", "b", "a")]
    image = writers[0].image()
    first = referrer(writers[1], image, b"1")
    second = referrer(writers[2], first, b"2")
    third = referrer(writers[3], second, b"3")
    writers[0].tag(image, "quay.io/app:1")
    for writer in writers:
        writer.save()
    assert homes(tmp_path, first, second, third) == [{"quay.io/app"}] * 3


def test_an_index_that_refers_brings_what_it_lists(tmp_path: Path) -> None:
    """A referrer of a child of an adopted index, in another place."""
    writer, other = LayoutWriter(tmp_path / "b"), LayoutWriter(tmp_path / "a")
    image, child = writer.image(), writer.image([b"child"])
    index = writer.index([child], subject=image)
    writer.tag(image, "quay.io/app:1").add(index).save()
    sbom = referrer(other, child)
    other.save()
    assert homes(tmp_path, index, sbom) == [{"quay.io/app"}] * 2


def test_a_chain_whose_first_subject_is_nowhere_stays_together(tmp_path: Path) -> None:
    """The first falls to its place's name, so that this repository holds the subject of the second."""
    writer, other = LayoutWriter(tmp_path / "first"), LayoutWriter(tmp_path / "second")
    first = referrer(writer, writer.image([b"not listed"]))
    second = referrer(other, first, b"2")
    writer.save()
    other.save()
    assert homes(tmp_path, first, second) == [{"first"}] * 2


def test_the_same_entry_without_a_name_in_two_places_is_of_both(tmp_path: Path) -> None:
    writers = [LayoutWriter(tmp_path / "a"), LayoutWriter(tmp_path / "b")]
    images = [writer.image() for writer in writers]
    for writer, image in zip(writers, images, strict=True):
        writer.add(image).save()
    assert homes(tmp_path, images[0]) == [{"a", "b"}]


def test_a_place_that_makes_no_name_still_gives_its_referrers_to_who_holds_the_subject(tmp_path: Path) -> None:
    writer, other = LayoutWriter(tmp_path / "place"), LayoutWriter(tmp_path / "Not A Name")
    image = writer.image()
    writer.tag(image, "1").save()
    sbom = referrer(other, image)
    other.add(other.image([b"nobody's"])).save()
    assert homes(tmp_path, sbom) == [{"place"}]
    assert [str(name) for name in snapshot(tmp_path).repositories] == ["place"]


def test_adoption_names_nothing_anew(tmp_path: Path) -> None:
    """A repository of a host stays one when an entry of a place without host is adopted."""
    writer, other = LayoutWriter(tmp_path / "quay.io" / "app"), LayoutWriter(tmp_path / "sboms")
    image = writer.image()
    writer.tag(image, "1").save()
    referrer(other, image)
    other.save()
    assert {str(name): one.plain for name, one in snapshot(tmp_path).repositories.items()} == {"quay.io/app": False}


def test_an_entry_that_cannot_be_read_is_its_places(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "place")
    image, sbom = writer.image(), writer.attachment(b"sbom", SBOM, None)
    writer.tag(image, "quay.io/app:1").add(sbom).save()
    writer.blob_path(sbom).unlink()
    assert homes(tmp_path, sbom) == [{"place"}]
    assert Digest(sbom.digest) in {digest for one in snapshot(tmp_path).repositories.values() for digest in one.roots}


def test_what_could_not_be_read_is_known_again_until_it_is_another_file(tmp_path: Path) -> None:
    """So that what stays broken does not make every scan a new one."""
    writer = LayoutWriter(tmp_path / "place")
    broken, missing, image = writer.image([b"broken"]), writer.image([b"missing"]), writer.image()
    content = writer.content(missing)
    writer.tag(image, "1").add(broken).add(missing).add(writer.attachment(b"1", SBOM, image)).save()
    writer.blob_path(broken).write_bytes(b"broken")
    writer.blob_path(missing).unlink()
    first = Snapshot.of(Scanner([Root(str(tmp_path))]).scan().places)
    found = adopt(first, Library(first))
    assert set(found.unread) == {str(writer.blob_path(broken)), str(writer.blob_path(missing))}
    assert not changed(found.unread)
    writer.blob_path(missing).write_bytes(content)
    assert changed(found.unread)
    assert set(adopt(first, Library(first)).unread) == {str(writer.blob_path(broken))}
