"""Snapshots made from the one before are those made from nothing, and swap in one step."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.names import Name, Repository
from mirror.sources.adoption import Adoption, find_homes
from mirror.sources.library import Library
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import Root
from mirror.sources.snapshot import EMPTY, Snapshot
from tests.serving import serving
from tests.sources.scans import FOLDERS, Content, write, write_all


def said(snapshot: Snapshot) -> object:
    """Everything that a snapshot tells, by value."""
    repositories = {
        name: (
            repository.plain,
            repository.sorted_tags,
            {tag: [(one.descriptor, one.place) for one in found] for tag, found in repository.tags.items()},
            {digest: (one.descriptor, one.place) for digest, one in repository.roots.items()},
        )
        for name, repository in snapshot.repositories.items()
    }
    return snapshot.names, repositories, snapshot.pool.members, snapshot.pool.generated, snapshot.pool.folders


@given(st.lists(FOLDERS, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_chain_of_changes_ends_where_a_fresh_start_does(states: Sequence[Mapping[str, Content]]) -> None:
    with tempfile.TemporaryDirectory() as work:
        root = Path(work, "root")
        scanner, adoption = Scanner([Root(str(root))]), Adoption()
        snapshot, library = EMPTY, Library(EMPTY)
        for folders in states:
            write_all(root, folders)
            places = scanner.scan().places
            stage = Snapshot.of(places, None, snapshot)
            library = Library(stage, library)
            after = Snapshot.of(places, adoption.adopt(stage, library).homes, stage)
            after.prepare(snapshot)
            snapshot = after
            bare = Snapshot.of(places)
            fresh = Snapshot.of(places, find_homes(bare, Library(bare)))
            assert said(snapshot) == said(fresh)
            assert snapshot.adopted


def test_what_did_not_change_is_not_grouped_again(tmp_path: Path) -> None:
    write_all(tmp_path, {name: Content(("1", ""), seed) for seed, name in enumerate(("one", "two", "three"))})
    scanner, adoption = Scanner([Root(str(tmp_path))]), Adoption()
    places = scanner.scan().places
    bare = Snapshot.of(places)
    before = Snapshot.of(places, adoption.adopt(bare, Library(bare)).homes, bare)
    write(tmp_path / "two", Content(("2",)))
    places = scanner.scan().places
    stage = Snapshot.of(places, None, before)
    after = Snapshot.of(places, adoption.adopt(stage, Library(stage)).homes, stage)
    same = {str(name) for name, one in after.repositories.items() if before.repositories[name] is one}
    assert same == {"one", "three"}
    assert after.repositories[Name(None, Repository("two"))].sorted_tags == ["2"]


async def test_requests_see_one_snapshot_or_the_other_and_nothing_between(tmp_path: Path) -> None:
    """Two tags of one layout always name the same image, while it is replaced under load."""
    root = tmp_path / "layouts"
    write_all(root, {"app": Content(("1", "2"), 0), "other": Content()})
    async with serving(tmp_path / "mirror", layouts=[root]) as mirror:
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                answer = await mirror.get("/v2/app/tags/list")
                assert answer.status == 200
                assert answer.json()["tags"] in ([f"{n}", f"{n}x"] for n in range(12))

        write(root / "app", Content(("0", "0x")))
        await mirror.refresh()
        askers = [asyncio.create_task(ask()) for _ in range(4)]
        for generation in range(12):
            await asyncio.to_thread(write, root / "app", Content((f"{generation}", f"{generation}x")))
            await mirror.refresh()
        done.set()
        await asyncio.gather(*askers)
        assert (await mirror.get("/v2/app/tags/list")).json()["tags"] == ["11", "11x"]
