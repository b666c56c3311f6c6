"""Cached names when writers die and disks fill up: real processes, real signals, real limits."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.store.index import CacheIndex
from mirror.store.names import NameStore
from mirror.store.repository import CachedRepository
from tests.store.blob_files import name_of, some_descriptor

NAME = name_of("docker.io/library/busy")

PREPARED = """
import resource, sys
from pathlib import Path
from mirror.store.index import CacheIndex
from mirror.store.names import NameStore
from tests.store.blob_files import name_of, some_descriptor
cache = Path(sys.argv[1])
index = CacheIndex(cache / "index.db")
repository = NameStore(cache / "names", index).repository(name_of("docker.io/library/busy"))
"""
ENDLESS = (
    PREPARED
    + """
turn = 0
while True:
    repository.put_tag(f"v{turn}", some_descriptor(turn), '"etag"')
    repository.link(some_descriptor(f"layer {turn}").digest, turn)
    print(turn, flush=True)
    turn += 1
"""
)
# A file that may not grow beyond a limit breaks off in the middle of a line, as one on a full disk does.
LIMITED = (
    PREPARED
    + """
repository.put_tag("before", some_descriptor("before"))
index.close()
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
failures = 0
for turn in range(40):
    try:
        repository.put_tag(f"v{turn}", some_descriptor(turn))
        print(turn)
    except OSError:
        failures += 1
assert failures
"""
)


def run(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", script, *arguments]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[CachedRepository]:
    with CacheIndex(tmp_path / "index.db") as index:
        yield NameStore(tmp_path / "names", index).repository(NAME)


@pytest.mark.parametrize("writes", [1, 7, 60, 150])
def test_a_killed_writer_loses_nothing_that_it_had_put(
    tmp_path: Path, repository: CachedRepository, writes: int
) -> None:
    with subprocess.Popen(
        run(ENDLESS, str(tmp_path)), stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as writer:
        assert writer.stdout is not None
        done = [int(writer.stdout.readline()) for _ in range(writes)]
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
    for turn in done:
        found = repository.tag(f"v{turn}")
        assert found is not None
        assert (found.descriptor, found.etag) == (some_descriptor(turn), '"etag"')
        assert repository.size(some_descriptor(f"layer {turn}").digest) == turn
    repository.put_tag("after", some_descriptor("after"))
    assert repository.tag("after") is not None


@pytest.mark.parametrize("limit", [500, 777, 2000, 5001])
def test_where_the_disk_is_full_what_was_put_stays_and_nothing_is_half(
    tmp_path: Path, repository: CachedRepository, limit: int
) -> None:
    written = subprocess.run(
        run(LIMITED, str(tmp_path), str(limit)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    ).stdout.split()
    assert repository.tags() == tuple(sorted(["before", *(f"v{turn}" for turn in written)]))
    for turn in written:
        found = repository.tag(f"v{turn}")
        assert found is not None
        assert found.descriptor == some_descriptor(int(turn))
    assert not list((tmp_path / "names").rglob("*.part"))
    # There is room again.
    repository.put_tag("after", some_descriptor("after"))
    assert len(repository.tags()) == len(written) + 2
