"""Tag lists and referrers lists on the disk, and in a bounded memory."""

from pathlib import Path

from mirror.store.lists import TAGS, ListMemory, Lists
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
