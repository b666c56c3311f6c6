"""One cached repository: tags, manifests, links, lists; two processes at it, crashes in between."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository
from mirror.store.index import CacheIndex
from mirror.store.lists import TAGS
from mirror.store.names import NameStore
from mirror.store.repository import CachedRepository
from tests.store.blob_files import some_descriptor

NAME = Name(Host("docker.io"), Repository("library/ubuntu"))
NESTED = Name(Host("docker.io"), Repository("library/ubuntu/nested"))
FOLDER = "names/docker.io/library/ubuntu"


class Process:
    """What one process has of a cache."""

    def __init__(self, cache: Path) -> None:
        self.index = CacheIndex(cache / "index.db")
        self.names = NameStore(cache / "names", self.index)

    @property
    def repository(self) -> CachedRepository:
        return self.names.repository(NAME)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    both = Process(tmp_path), Process(tmp_path)
    yield both
    for process in both:
        process.index.close()


def test_a_tag_put_by_one_process_is_seen_by_the_next_question_of_another(
    processes: tuple[Process, Process],
) -> None:
    one, other = (process.repository for process in processes)
    for number in range(300):
        one.put_tag("latest", some_descriptor(number), f'"{number}"')
        found = other.tag("latest")
        assert found is not None
        assert (found.descriptor, found.etag) == (some_descriptor(number), f'"{number}"')
        other.put_tag("edge", some_descriptor(-number))
        edge = one.tag("edge")
        assert edge is not None
        assert edge.descriptor == some_descriptor(-number)


def test_a_repository_forgotten_and_put_again_is_never_confused_with_the_old_one(
    processes: tuple[Process, Process],
) -> None:
    one, other = (process.repository for process in processes)
    for number in range(100):
        one.put_tag("a", some_descriptor(number))
        one.link(some_descriptor(f"layer {number}").digest, 5)
        assert other.tags() == ("a",)
        assert one.forget()
        one.put_tag("b", some_descriptor(number + 1))
        one.link(some_descriptor(f"other {number}").digest, 5)
        assert other.tags() == ("b",)
        assert not other.has(some_descriptor(f"layer {number}").digest)
        assert other.has(some_descriptor(f"other {number}").digest)
        assert other.forget()
        assert one.tags() == ()


def test_the_index_file_is_an_oci_index_of_tags_and_manifests(
    tmp_path: Path, processes: tuple[Process, Process]
) -> None:
    repository = processes[0].repository
    repository.put_tag("1.0", some_descriptor("a"), '"etag"', fetched_at=1_700_000_000.25)
    repository.put_manifest(some_descriptor("b"), fetched_at=1_700_000_001)
    processes[0].names.fold()
    document = json.loads((tmp_path / FOLDER / "_index.json").read_bytes())
    assert document == {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            {
                **some_descriptor("a").to_json(),
                "annotations": {
                    "org.opencontainers.image.ref.name": "1.0",
                    "dev.mirror.fetched": "2023-11-14T22:13:20.250Z",
                    "dev.mirror.etag": '"etag"',
                },
            },
            {**some_descriptor("b").to_json(), "annotations": {"dev.mirror.fetched": "2023-11-14T22:13:21.000Z"}},
        ],
    }
    found = processes[1].repository.tag("1.0")
    assert found is not None
    assert found.fetched_at == found.checked_at == 1_700_000_000.25


def test_an_index_that_another_tool_has_rewritten_is_read(tmp_path: Path, processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    one.put_tag("1.0", some_descriptor("a"))
    one.fold()
    file = tmp_path / FOLDER / "_index.json"
    document = json.loads(file.read_bytes())
    document["manifests"].append({"no": "descriptor"})
    file.write_text(json.dumps(document, indent=2))
    assert other.tags() == ("1.0",)
    file.write_text("[1, 2]")
    assert other.tags() == ()


def test_a_manifest_stays_by_its_digest_when_its_tag_moves_on(processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    one.put_tag("latest", some_descriptor("old"))
    one.put_tag("latest", some_descriptor("new"))
    one.fold()
    for repository in (one, other):
        found = repository.tag("latest")
        assert found is not None
        assert found.descriptor == some_descriptor("new")
        assert repository.manifest(some_descriptor("old").digest) == some_descriptor("old")
        assert repository.tags() == ("latest",)


def test_annotations_of_a_foreign_descriptor_name_no_tag(processes: tuple[Process, Process]) -> None:
    foreign = Descriptor(
        media_types.OCI_MANIFEST,
        Digest.of(b"foreign"),
        7,
        annotations={"org.opencontainers.image.ref.name": "smuggled", "dev.mirror.etag": "no"},
    )
    processes[0].repository.put_manifest(foreign)
    assert processes[1].repository.tags() == ()
    assert processes[1].repository.manifest(foreign.digest) == Descriptor(media_types.OCI_MANIFEST, foreign.digest, 7)


def test_membership_is_what_came_through_this_repository(processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    layer, manifest = some_descriptor("layer").digest, some_descriptor("manifest")
    one.link(layer, 1234)
    one.put_manifest(manifest)
    assert other.has(layer)
    assert other.size(layer) == 1234
    assert other.has(manifest.digest)
    assert other.size(manifest.digest) == manifest.size
    assert not processes[1].names.repository(NESTED).has(layer)
    assert other.size(Digest.of(b"else")) is None


def test_a_size_learnt_later_is_added_to_a_link(tmp_path: Path, processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    layer = some_descriptor("layer").digest
    one.link(layer)
    one.link(layer)
    assert other.has(layer)
    assert other.size(layer) is None
    other.link(layer, 10)
    other.link(layer)
    assert one.size(layer) == 10
    assert (tmp_path / FOLDER / "_links").read_text().splitlines()[1:] == [layer, f"{layer} 10"]


def test_a_confirmed_tag_is_seen_by_other_processes(processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    one.put_tag("latest", some_descriptor("a"), fetched_at=1000)
    assert other.tag("latest") is not None
    one.touch_checked("latest", 2000)
    mine = one.tag("latest")
    assert mine is not None
    assert mine.checked_at == 2000
    processes[0].index.flush()
    theirs = other.tag_checked_elsewhere("latest")
    assert theirs is not None
    assert (theirs.fetched_at, theirs.checked_at) == (1000, 2000)


def test_lists_are_kept_with_their_time(processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    subject = some_descriptor("subject").digest
    assert other.list(TAGS) is None
    one.put_list(TAGS, {"name": "library/ubuntu", "tags": ["a"]}, 1000)
    one.put_list(subject, {"manifests": []}, 2000)
    for repository in (one, other, one):
        tags, referrers = repository.list(TAGS), repository.list(subject)
        assert tags is not None
        assert referrers is not None
        assert (tags.document["tags"], tags.fetched_at, tags.is_empty) == (["a"], 1000, False)
        assert (referrers.fetched_at, referrers.is_empty) == (2000, True)
    one.put_list(TAGS, {"tags": ["b"]}, 3000)
    again = other.list(TAGS)
    assert again is not None
    assert again.document == {"tags": ["b"]}


def test_a_404_never_overwrites_a_list_that_is_not_empty(processes: tuple[Process, Process]) -> None:
    repository = processes[0].repository
    empty = {"tags": list[str]()}
    assert repository.put_absent_list(TAGS, empty, 1000).document == empty
    assert repository.put_absent_list(TAGS, empty, 1500).fetched_at == 1500
    repository.put_list(TAGS, {"tags": ["a"]}, 2000)
    kept = repository.put_absent_list(TAGS, empty, 3000)
    assert (kept.document, kept.fetched_at) == ({"tags": ["a"]}, 2000)
    assert repository.list(TAGS) == kept


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"document": ', b"\0\0", b'{"fetched": 5}'])
def test_a_damaged_list_is_no_list(tmp_path: Path, processes: tuple[Process, Process], content: bytes) -> None:
    processes[0].repository.put_list(TAGS, {"tags": ["a"]})
    (tmp_path / FOLDER / "_lists" / "tags.json").write_bytes(content)
    assert processes[0].repository.list(TAGS) is None


def test_forgetting_leaves_no_folder_and_what_lies_below_stays(
    tmp_path: Path, processes: tuple[Process, Process]
) -> None:
    repository, nested = processes[0].repository, processes[0].names.repository(NESTED)
    repository.put_tag("a", some_descriptor("a"))
    repository.link(some_descriptor("layer").digest)
    repository.put_list(TAGS, {"tags": ["a"]})
    nested.put_tag("b", some_descriptor("b"))
    assert repository.forget()
    assert not repository.forget()
    assert nested.tags() == ("b",)
    assert nested.forget()
    assert list((tmp_path / "names").iterdir()) == []


def test_a_forgotten_tag_leaves_its_manifest(processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    one.put_tag("a", some_descriptor("a"))
    assert one.forget_tag("a")
    assert not one.forget_tag("a")
    assert other.tag("a") is None
    assert other.manifest(some_descriptor("a").digest) is not None


def test_evicting_spares_a_tag_put_again_and_the_manifest_it_points_at(
    processes: tuple[Process, Process],
) -> None:
    one, other = (process.repository for process in processes)
    one.put_tag("a", some_descriptor("a"), fetched_at=1000)
    before, _ = one.records()
    other.put_tag("a", some_descriptor("a"), fetched_at=2000)
    assert one.evict(before, [some_descriptor("a").digest]) == {}
    found = other.tag("a")
    assert found is not None
    assert other.manifest(found.descriptor.digest) is not None


async def test_much_to_read_is_read_in_a_thread(tmp_path: Path, processes: tuple[Process, Process]) -> None:
    one, other = (process.repository for process in processes)
    one.link_all({some_descriptor(number).digest: 1 for number in range(2000)})
    for number in range(50):
        one.put_tag(f"v{number}", some_descriptor(number))
    one.put_list(TAGS, {"tags": [f"v{number:060}" for number in range(1000)]})
    await other.ready()
    await other.ready_list(TAGS)
    # All of it is in memory before the first question.
    assert other.weight > 2000
    assert len(other.tags()) == 50


@pytest.mark.parametrize("file", ["_index.json", "_journal", "_links"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.77, 0.99])
def test_files_cut_short_cost_only_what_was_cut_off(
    tmp_path: Path, processes: tuple[Process, Process], file: str, part: float
) -> None:
    repository = processes[0].repository
    for number in range(20):
        repository.put_tag(f"{number:02}", some_descriptor(number))
        repository.link(some_descriptor(f"layer {number}").digest, number)
    path = tmp_path / FOLDER / file
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    fresh = processes[1].repository
    for tag in fresh.tags():
        found = fresh.tag(tag)
        assert found is not None
        assert found.descriptor == some_descriptor(int(tag))
    lost = content[int(len(content) * part) :].count(b"\n") + 1
    assert len(fresh.tags()) >= 20 - (0 if file == "_links" else lost)
    assert len(fresh.links()) >= 20 - (lost if file == "_links" else 0)
    fresh.put_tag("new", some_descriptor("new"))
    fresh.link(some_descriptor("new layer").digest, 3)
    assert repository.tag("new") is not None
    assert repository.size(some_descriptor("new layer").digest) == 3


tags = st.sampled_from(["latest", "1.0", "1.1", "edge", "sha256-ab"])
seeds = st.integers(0, 12)
which = st.integers(0, 1)


class Model(RuleBasedStateMachine):
    """Two processes at one repository, against plain dicts; they start anew and crash while they write."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.cache = Path(self.folder.name)
        self.processes = [Process(self.cache), Process(self.cache)]
        self.tags: dict[str, tuple[Descriptor, str | None, float]] = {}
        self.manifests: dict[Digest, Descriptor] = {}
        self.links: dict[Digest, int] = {}
        self.lists: dict[str, list[int]] = {}
        self.clock = 1_700_000_000.0

    @rule(at=which, tag=tags, seed=seeds, etag=st.sampled_from([None, '"x"', 'W/"ü"']))
    def put_tag(self, at: int, tag: str, seed: int, etag: str | None) -> None:
        self.clock += 1.5
        descriptor = some_descriptor(seed)
        self.processes[at].repository.put_tag(tag, descriptor, etag, self.clock)
        self.tags[tag] = (descriptor, etag, self.clock)
        self.manifests[descriptor.digest] = descriptor

    @rule(at=which, seed=seeds)
    def put_manifest(self, at: int, seed: int) -> None:
        descriptor = some_descriptor(seed)
        self.processes[at].repository.put_manifest(descriptor)
        self.manifests[descriptor.digest] = descriptor

    @rule(at=which, seeds=st.lists(seeds, min_size=1, max_size=4))
    def link(self, at: int, seeds: list[int]) -> None:
        for seed in seeds:
            digest = some_descriptor(f"layer {seed}").digest
            self.processes[at].repository.link(digest, seed)
            self.links[digest] = seed

    @rule(at=which, tag=tags)
    def forget_tag(self, at: int, tag: str) -> None:
        assert self.processes[at].repository.forget_tag(tag) == (tag in self.tags)
        self.tags.pop(tag, None)

    @rule(at=which)
    def forget(self, at: int) -> None:
        known = bool(self.manifests or self.links or self.lists)
        assert self.processes[at].repository.forget() == known
        for part in (self.tags, self.manifests, self.links, self.lists):
            part.clear()

    @rule(at=which, tag=tags, seeds=st.sets(seeds, max_size=6))
    def evict(self, at: int, tag: str, seeds: set[int]) -> None:
        repository = self.processes[at].repository
        record = repository.records()[0].get(tag)
        layers = {some_descriptor(f"layer {seed}").digest for seed in seeds}
        manifests = {some_descriptor(seed).digest for seed in seeds}
        gone = repository.evict({tag: record} if record else {}, layers | manifests)
        assert gone == {digest: self.links.pop(digest) for digest in layers & self.links.keys()}
        self.tags.pop(tag, None)
        kept = {descriptor.digest for descriptor, _, _ in self.tags.values()}
        for digest in manifests - kept:
            self.manifests.pop(digest, None)
        if not (self.manifests or self.links):
            self.lists.clear()

    @rule(at=which, numbers=st.lists(seeds, max_size=3))
    def put_list(self, at: int, numbers: list[int]) -> None:
        self.processes[at].repository.put_list(TAGS, {"tags": numbers})
        self.lists["tags"] = numbers

    @rule(at=which)
    def put_absent_list(self, at: int) -> None:
        self.processes[at].repository.put_absent_list(TAGS, {"tags": []})
        self.lists["tags"] = self.lists.get("tags") or []

    @rule(at=which)
    def fold(self, at: int) -> None:
        self.processes[at].repository.fold()

    @rule(at=which)
    def start_anew(self, at: int) -> None:
        self.processes[at].index.close()
        self.processes[at] = Process(self.cache)

    @rule(file=st.sampled_from(["_journal", "_links"]), length=st.integers(1, 60))
    def crash_while_appending(self, file: str, length: int) -> None:
        path = self.cache / FOLDER / file
        if path.exists():
            line = path.read_bytes().splitlines()[-1]
            with path.open("ab") as raw:
                raw.write(line[: min(length, len(line))])

    @rule(file=st.sampled_from(["_index.json", "_journal", "_links"]), content=st.binary(max_size=20))
    def crash_while_replacing(self, file: str, content: bytes) -> None:
        if (self.cache / FOLDER).exists():
            (self.cache / FOLDER / f"{file}.part").write_bytes(content)

    @precondition(lambda self: self.links)
    @rule(cut=st.integers(1, 70))
    def lose_the_end_of_the_last_link(self, cut: int) -> None:
        """What a crash of the whole machine may do; nobody runs on over that."""
        for process in self.processes:
            process.index.close()
        path = self.cache / FOLDER / "_links"
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        last = whole.splitlines()[-1].decode().split(" ")
        path.write_bytes(whole[:-cut])
        self.processes = [Process(self.cache), Process(self.cache)]
        digest = Digest(last[0])
        if self.processes[0].repository.links().get(digest) is None:
            self.links.pop(digest)

    @invariant()
    def both_see_what_the_model_has(self) -> None:
        for process in self.processes:
            repository = process.repository
            assert repository.tags() == tuple(sorted(self.tags))
            for tag, (descriptor, etag, at) in self.tags.items():
                found = repository.tag(tag)
                assert found is not None
                assert (found.descriptor, found.etag, found.fetched_at) == (descriptor, etag, at)
            assert {d: record.descriptor for d, record in repository.records()[1].items()} == self.manifests
            assert repository.links() == self.links
            known = repository.list(TAGS)
            assert (known.document["tags"] if known else None) == self.lists.get("tags")
            anything = bool(self.manifests or self.links or self.lists)
            assert repository.exists() == anything
            assert not anything or list(process.names.iterate()) == [NAME]

    def teardown(self) -> None:
        for process in self.processes:
            process.index.close()
        self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
