"""All cached repositories: where they lie, what memory holds of them, several processes at once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.names import Host, Name, Repository
from mirror.store.index import CacheIndex
from mirror.store.names import NameStore
from tests.store.blob_files import name_of, some_descriptor


@pytest.fixture
def index(tmp_path: Path) -> Iterator[CacheIndex]:
    with CacheIndex(tmp_path / "index.db") as index:
        yield index


hosts = st.sampled_from(["docker.io", "quay.io", "registry.corp:5000", "localhost:5000", "[::1]", "[::1]:5000"])
components = st.from_regex(r"[a-z0-9]{1,4}((\.|__|-)[a-z0-9]{1,4})?", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None)
@given(found=st.sets(st.tuples(hosts, repositories), max_size=8))
def test_every_name_is_found_again(tmp_path_factory: pytest.TempPathFactory, found: set[tuple[str, str]]) -> None:
    names = {Name(Host(host), Repository(repository)) for host, repository in found}
    cache = tmp_path_factory.mktemp("cache")
    with CacheIndex(cache / "index.db") as index:
        store = NameStore(cache / "names", index)
        for name in names:
            store.repository(name).link(some_descriptor(str(name)).digest)
        assert set(store.iterate()) == names
        assert not any(":" in path.name for path in cache.rglob("*"))
        again = NameStore(cache / "names", index)
        for name in names:
            assert list(again.repository(name).links()) == [some_descriptor(str(name)).digest]
            again.repository(name).forget()
        assert list(store.iterate()) == []


def test_a_port_is_written_with_an_underscore(tmp_path: Path, index: CacheIndex) -> None:
    name = name_of("registry.corp:5000/team/app")
    NameStore(tmp_path / "names", index).repository(name).put_tag("1", some_descriptor("1"))
    assert (tmp_path / "names" / "registry.corp_5000" / "team" / "app" / "_index.json").is_file()


@pytest.mark.parametrize("text", ["docker.io/../x", "docker.io/_lists", "docker.io/Upper", "docker.io/"])
def test_only_names_of_the_grammar_have_a_folder(tmp_path: Path, index: CacheIndex, text: str) -> None:
    store = NameStore(tmp_path / "names", index)
    with pytest.raises(ValueError):
        store.repository(name_of(text))
    with pytest.raises(ValueError):
        store.repository(Name(None, Repository("team/app")))


def test_asking_writes_nothing(tmp_path: Path, index: CacheIndex) -> None:
    store = NameStore(tmp_path / "names", index)
    repository = store.repository(name_of("docker.io/library/ubuntu"))
    assert repository.tag("latest") is None
    assert repository.tags() == ()
    assert not repository.has(some_descriptor("a").digest)
    assert not repository.exists()
    assert not repository.forget()
    assert not (tmp_path / "names").exists()


def test_memory_is_bounded_and_nothing_is_lost_by_it(tmp_path: Path, index: CacheIndex) -> None:
    store = NameStore(tmp_path / "names", index, max_entries=100)
    for number in range(40):
        store.repository(name_of(f"docker.io/a{number}")).link_all(
            {some_descriptor(f"{number} {layer}").digest: layer for layer in range(9)}
        )
    assert len(store._repositories) <= 10
    for number in range(40):
        assert store.repository(name_of(f"docker.io/a{number}")).size(some_descriptor(f"{number} 8").digest) == 8


def test_a_repository_larger_than_memory_is_kept_all_the_same(tmp_path: Path, index: CacheIndex) -> None:
    store = NameStore(tmp_path / "names", index, max_entries=50)
    large = store.repository(name_of("docker.io/large"))
    large.link_all({some_descriptor(number).digest: 1 for number in range(200)})
    assert store.repository(name_of("docker.io/large")) is large
    assert large.has(some_descriptor(199).digest)


WRITER = """
import sys
from pathlib import Path
from mirror.store.index import CacheIndex
from mirror.store.names import NameStore
from tests.store.blob_files import name_of, some_descriptor
cache, number = Path(sys.argv[1]), sys.argv[2]
with CacheIndex(cache / "index.db") as index:
    repository = NameStore(cache / "names", index).repository(name_of("docker.io/library/busy"))
    for turn in range(150):
        repository.put_tag(f"{number}-{turn}", some_descriptor(f"{number}-{turn}"))
        repository.link(some_descriptor(f"layer {turn}").digest, turn)
        repository.put_tag("latest", some_descriptor(turn))
        index.blob_added(some_descriptor(f"layer {turn}").digest, 10)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path, index: CacheIndex) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number)], cwd=Path(__file__).parents[2])
        for number in range(3)
    ]
    repository = NameStore(tmp_path / "names", index).repository(name_of("docker.io/library/busy"))
    seen: set[str] = set()
    while any(writer.poll() is None for writer in writers):
        tags = set(repository.tags())
        assert seen <= tags
        seen = tags
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert set(repository.tags()) == {f"{number}-{turn}" for number in range(3) for turn in range(150)} | {"latest"}
    assert repository.links() == {some_descriptor(f"layer {turn}").digest: turn for turn in range(150)}
    lines = (tmp_path / "names/docker.io/library/busy/_links").read_text().splitlines()
    assert len(lines) == 151
    assert index.usage_bytes() == 150 * 4096
    assert all(Digest.parse(line.partition(" ")[0]) for line in lines[1:])
