"""What upstreams do not know is told to every process, outlasts a restart, and is bounded."""

import time
from pathlib import Path

from mirror.oci.names import Host, Name, Repository
from mirror.store.database import open_database
from mirror.store.index import CacheIndex
from mirror.store.unknowns import MAX_ROWS, Said, write
from tests.running import wait_until

NAME = Name(Host("docker.io"), Repository("library/hello"))
OTHER = Name(Host("quay.io"), Repository("library/hello"))


def test_another_process_and_a_later_one_know_what_was_said(tmp_path: Path) -> None:
    before = time.time()
    with CacheIndex(tmp_path / "index.db") as one, CacheIndex(tmp_path / "index.db") as other:
        one.note_unknown(NAME, "absent", "MANIFEST_UNKNOWN")
        wait_until(lambda: other.unknown(NAME, "absent") is not None, "the other sees it")
        assert other.unknown(OTHER, "absent") is None
    with CacheIndex(tmp_path / "index.db") as later:
        said = later.unknown(NAME, "absent")
        assert said is not None
        assert said.code == "MANIFEST_UNKNOWN"
        assert before <= said.at <= time.time()


def test_what_is_known_now_or_forgotten_is_not_said_any_more(tmp_path: Path) -> None:
    with CacheIndex(tmp_path / "index.db") as index:
        for reference in ("a", "b"):
            index.note_unknown(NAME, reference, "MANIFEST_UNKNOWN")
        index.flush()
        index.note_unknown(NAME, "a", None)
        index.flush()
        assert index.unknown(NAME, "a") is None
        assert index.unknown(NAME, "b") is not None
        index.forget(NAME)
        assert index.unknown(NAME, "b") is None


def test_the_oldest_sayings_go(tmp_path: Path) -> None:
    database, _ = open_database(tmp_path / "index.db")
    with database.writing() as connection:
        write(connection, {(NAME, str(number)): Said("BLOB_UNKNOWN", number) for number in range(MAX_ROWS + 100)})
    rows = database.read("SELECT count(*), min(said) FROM unknowns")
    assert rows == [(MAX_ROWS + 1, 99.0)]
    database.close()
