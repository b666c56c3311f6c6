"""Tag lists and referrers lists on the disk, and in a bounded memory."""

from pathlib import Path
from typing import Any

from mirror.store.lists import TAGS, CachedList, ListKind, ListMemory, Lists
from tests.store.blob_files import some_descriptor


def test_made_up_subjects_do_not_fill_the_disk(tmp_path: Path) -> None:
    lists = Lists(tmp_path / "_lists", ListMemory(), max_lists=20)
    lists.put(TAGS, {"tags": ["a"]}, 1000)
    for number in range(70):
        lists.put(some_descriptor(number).digest, {"manifests": []}, 1000)
    assert len(list((tmp_path / "_lists").iterdir())) <= 21
    assert lists.get(TAGS) is not None
    assert lists.get(some_descriptor(69).digest) is not None
    assert lists.get(some_descriptor(0).digest) is None


def test_a_list_larger_than_memory_is_read_each_time(tmp_path: Path) -> None:
    lists = Lists(tmp_path / "_lists", ListMemory(max_bytes=2000))
    lists.put(TAGS, {"tags": ["a" * 3000]}, 1000)
    assert lists.pending_bytes(TAGS) > 3000
    for _ in range(2):
        found = lists.get(TAGS)
        assert found is not None
        assert found.document == {"tags": ["a" * 3000]}
    lists.put(TAGS, {"tags": []}, 1000)
    assert lists.get(TAGS) is not None
    assert lists.pending_bytes(TAGS) == 0


def test_what_a_list_holds_is_read_from_it_once(tmp_path: Path) -> None:
    lists = Lists(tmp_path / "_lists", ListMemory())
    some = some_descriptor(1)
    lists.put(TAGS, {"tags": ["a", 7, "b"]}, 1000)
    lists.put(some.digest, {"manifests": [some.to_json()]}, 1000)
    tags, referrers = lists.get(TAGS), lists.get(some.digest)
    assert tags is not None
    assert referrers is not None
    assert (tags.tags, tags.referrers) == (["a", "b"], None)
    assert (referrers.tags, referrers.referrers) == (None, [some])
    kinds: list[tuple[CachedList, ListKind]] = [(tags, TAGS), (referrers, some.digest)]
    for before, kind in kinds:
        again = lists.get(kind)
        assert again is not None
        assert (again.tags, again.referrers) == (before.tags, before.referrers)
        assert again.tags is before.tags
        assert again.referrers is before.referrers


def test_a_list_of_something_else_is_none(tmp_path: Path) -> None:
    lists = Lists(tmp_path / "_lists", ListMemory())
    documents: list[Any] = [[], {}, {"tags": 1, "manifests": 2}, {"manifests": [{"digest": 1}]}, None, "text"]
    for document in documents:
        lists.put(TAGS, document, 1000)
        found = lists.get(TAGS)
        assert found is not None
        assert (found.tags, found.referrers) == (None, None)
