"""Which names local content goes by: the design's "Names" of local content, clause by clause."""

import json
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository
from mirror.sources.layout import read_index
from mirror.sources.naming import Namer, PlaceName
from mirror.sources.place import Naming
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import Root
from mirror.sources.snapshot import Snapshot
from tests.content import REF_NAME, LayoutWriter

CONTAINERD = "io.containerd.image.name"
PLACE = PlaceName(Name(None, Repository("team/app")))
OWN = frozenset({"mirror.corp.example", "127.0.0.1:5000"})

Names = dict[tuple[str, str], bool]


def names_in(root: Root) -> Names:
    """Every name and tag that the root's content goes by, and whether plain requests alone mean it."""
    snapshot = Snapshot.of(Scanner([root], OWN).scan().places)
    return {
        (str(name), tag): repository.plain
        for name, repository in snapshot.repositories.items()
        for tag in (repository.tags or [""])
    }


def layout(folder: Path, *annotations: dict[str, str]) -> Path:
    writer = LayoutWriter(folder)
    for number, one in enumerate(annotations):
        writer.add(writer.image([b"%d" % number]), one)
    return writer.save()


@pytest.mark.parametrize(
    ("place", "prefix", "host", "name", "plain"),
    [
        ("team/app", None, None, "team/app", True),
        ("app", None, None, "app", True),
        ("quay.io/team/app", None, None, "quay.io/team/app", False),
        ("quay.io/app", None, None, "quay.io/app", False),
        ("docker.io/app", None, None, "docker.io/library/app", False),
        ("index.docker.io/app", None, None, "docker.io/library/app", False),
        ("host_5000/app", None, None, "host:5000/app", False),
        ("localhost/app", None, None, "localhost/app", True),
        ("localhost_5000/app", None, None, "localhost:5000/app", False),
        ("mirror.corp.example/team/app", None, None, "team/app", True),
        ("mirror.corp.example/quay.io/app", None, None, "quay.io/app", False),
        ("team/app", "base", None, "base/team/app", True),
        ("team/app", "quay.io/base", None, "quay.io/base/team/app", False),
        ("team/app", None, "quay.io", "quay.io/team/app", False),
        ("app", None, "docker.io", "docker.io/library/app", False),
        ("app", "team", "docker.io", "docker.io/team/app", False),
        ("ghcr.io/app", None, "docker.io", "ghcr.io/app", False),
    ],
)
def test_a_bare_tag_is_of_its_places_name(
    tmp_path: Path, place: str, prefix: str | None, host: str | None, *, name: str, plain: bool
) -> None:
    layout(tmp_path / place, {REF_NAME: "1"}, {REF_NAME: "1.1.0+oci"})
    found = names_in(Root(str(tmp_path), prefix, Host(host) if host else None))
    assert found == {(name, "1"): plain, (name, "1.1.0+oci"): plain}


def test_a_root_that_is_itself_a_layout_is_named_by_its_folder(tmp_path: Path) -> None:
    layout(tmp_path / "bundle", {REF_NAME: "1"})
    assert names_in(Root(str(tmp_path / "bundle"))) == {("bundle", "1"): True}
    assert names_in(Root(str(tmp_path / "bundle"), "team")) == {("team/bundle", "1"): True}


FULL = [
    # With host, that.
    ("quay.io/team/app:2", "quay.io/team/app", "2", False),
    ("quay.io/app", "quay.io/app", "latest", False),
    ("docker.io/library/app:2", "docker.io/library/app", "2", False),
    ("docker.io/app:2", "docker.io/library/app", "2", False),
    ("registry-1.docker.io/team/app:2", "docker.io/team/app", "2", False),
    ("localhost:5000/app:2", "localhost:5000/app", "2", False),
    # Without, Docker's familiar form.
    ("legacy:1", "docker.io/library/legacy", "1", True),
    ("team/app:1", "docker.io/team/app", "1", True),
    ("team/app", "docker.io/team/app", "latest", True),
    # What podman writes.
    ("localhost/x:1", "x", "1", True),
    ("localhost/team/x:1", "team/x", "1", True),
    # The mirror's own host is stripped and the rest parsed anew.
    ("mirror.corp.example/team/app:1", "docker.io/team/app", "1", True),
    ("mirror.corp.example/quay.io/app:1", "quay.io/app", "1", False),
    ("127.0.0.1:5000/legacy:1", "docker.io/library/legacy", "1", True),
    ("127.0.0.1:5000/localhost/x:1", "x", "1", True),
    ("mirror.corp.example/127.0.0.1:5000/quay.io/app:1", "quay.io/app", "1", False),
    # Tags are what the layout says.
    ("quay.io/chart:1.1.0+oci", "quay.io/chart", "1.1.0+oci", False),
]


@pytest.mark.parametrize("key", [REF_NAME, CONTAINERD])
@pytest.mark.parametrize(("text", "name", "tag", "plain"), FULL)
def test_a_full_name_is_its_own(tmp_path: Path, key: str, text: str, name: str, *, tag: str, plain: bool) -> None:
    layout(tmp_path / "place", {key: text})
    assert names_in(Root(str(tmp_path))) == {(name, tag): plain}
    # `prefix` and `host` of a root are for bare tags.
    assert names_in(Root(str(tmp_path), "prefix", Host("ghcr.io"))) == {(name, tag): plain}


def test_a_root_of_docker_hub_says_that_bare_names_are_docker_hubs(tmp_path: Path) -> None:
    layout(tmp_path / "place", {REF_NAME: "legacy:1"}, {REF_NAME: "team/app:1"}, {REF_NAME: "localhost/x:1"})
    assert names_in(Root(str(tmp_path), None, Host("docker.io"))) == {
        ("docker.io/library/legacy", "1"): False,
        ("docker.io/team/app", "1"): False,
        ("x", "1"): True,
    }


def test_a_full_name_beside_a_bare_tag_is_what_counts(tmp_path: Path) -> None:
    layout(tmp_path / "place", {CONTAINERD: "quay.io/team/app:1", REF_NAME: "1"})
    assert names_in(Root(str(tmp_path))) == {("quay.io/team/app", "1"): False}


def test_one_manifest_listed_under_several_names_goes_by_all_of_them(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "place")
    image = writer.image()
    writer.tag(image, "1").tag(image, "2").tag(image, "quay.io/app:3").tag(image, "1").save()
    assert names_in(Root(str(tmp_path))) == {("place", "1"): True, ("place", "2"): True, ("quay.io/app", "3"): False}


@pytest.mark.parametrize("bad", ["Upper/app:1", "a//b:1", "quay.io/app:ta g", ":", "/", "app:", "quay.io/app@x", "-"])
def test_what_is_no_name_costs_itself_a_problem_that_tells_it(tmp_path: Path, bad: str) -> None:
    layout(tmp_path / "place", {REF_NAME: bad}, {REF_NAME: "good"})
    scan = Scanner([Root(str(tmp_path))], OWN).scan()
    (repository,) = Snapshot.of(scan.places).repositories.values()
    assert list(repository.tags) == ["good"]
    (problem,) = scan.problems
    assert repr(bad) in problem.reason
    assert str(tmp_path / "place") in problem.path


def test_a_folder_that_makes_no_name_is_told_and_its_full_names_are_served(tmp_path: Path) -> None:
    layout(tmp_path / "Team" / "App", {REF_NAME: "1"}, {REF_NAME: "quay.io/app:1"})
    scan = Scanner([Root(str(tmp_path))], OWN).scan()
    assert [str(name) for name in Snapshot.of(scan.places).repositories] == ["quay.io/app"]
    assert any("Team/App" in problem.reason for problem in scan.problems)


def test_docker_25_writes_docker_io_for_local_builds_too_and_the_repo_tag_says_more() -> None:
    """`io.containerd.image.name: docker.io/…` beside a RepoTag without host does not count as naming one."""
    place = PlaceName(None)
    namer = Namer()
    annotations = {CONTAINERD: "docker.io/team/web:1", REF_NAME: "1"}
    ((named,), problems) = namer.namings(annotations, ["team/web:1"], place)
    assert (str(named.name), named.tag, named.plain, problems) == ("docker.io/team/web", "1", True, ())
    ((named,), _) = namer.namings(annotations, ["docker.io/team/web:1"], place)
    assert not named.plain
    ((named,), _) = namer.namings(annotations, [], place)
    assert not named.plain
    ((named,), _) = namer.namings({CONTAINERD: "docker.io/library/legacy:1"}, ["legacy:1"], place)
    assert (str(named.name), named.plain) == ("docker.io/library/legacy", True)


def test_a_digest_without_a_tag_is_a_name_without_a_tag() -> None:
    ((named,), _) = Namer().namings({REF_NAME: f"quay.io/app@{Digest.of(b'x')}"}, [], PlaceName(None))
    assert (str(named.name), named.tag) == ("quay.io/app", None)


def test_many_tags_of_one_digest_cost_no_more_each_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuild that changes nothing adds a tag to the same digest, thousands of times in the end."""
    hashed = 0
    hash_of = Naming.__hash__

    def counted(naming: Naming) -> int:
        nonlocal hashed
        hashed += 1
        return hash_of(naming)

    monkeypatch.setattr(Naming, "__hash__", counted)
    tags = [f"v{number}" for number in range(2_000)]
    listed = [{"digest": Digest.of(b"x"), "size": 1, "annotations": {REF_NAME: tag}} for tag in tags]
    ((entry,), problems) = read_index(json.dumps({"manifests": listed}).encode(), Namer(), PLACE)
    assert [naming.tag for naming in entry.namings] == tags
    assert not problems
    assert hashed < 10 * len(tags)
