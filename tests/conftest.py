"""What every test may use."""

import os
import shutil
from collections.abc import Iterator

import blockbuster.blockbuster
import pytest
from blockbuster import BlockBuster, BlockBusterFunction, BlockingError

# Calls that wait for the disk and that blockbuster does not know by itself.
DISK_CALLS = (
    *("os.open", "os.pread", "os.preadv", "os.pwrite", "os.fsync", "os.fdatasync", "os.ftruncate", "os.fstat"),
    *("os.lstat", "os.scandir", "os.utime", "os.chmod", "os.path.realpath", "os.path.exists", "os.path.isdir"),
)
# Where the product may call them in the event loop, and why.
MAY_BLOCK = (
    # With RWF_NOWAIT: what the page cache does not hold is an error at once, not a wait.
    ("os.preadv", "mirror/server/send.py", "_read_cached"),
    # Stores are made at the start, before there are requests to wait.
    ("os.mkdir", "mirror/store/parts.py", "__init__"),
    # The configuration is read before there is a loop; only tests do it inside one.
    ("*", "mirror/config/load.py", "load"),
)


class _Recorded(BlockingError):
    """The product answers exceptions that it did not foresee, so raising one does not yet fail a test."""

    seen: list[str] = []  # noqa: RUF012 one list for all of them is the point

    def __init__(self, func: str) -> None:
        super().__init__(func)
        self.seen.append(func)


@pytest.fixture(scope="session", autouse=True)
def _watch_for_blocking_calls() -> Iterator[None]:
    watch = BlockBuster("mirror")
    for name in DISK_CALLS:
        watch.functions.setdefault(name, BlockBusterFunction(None, name, scanned_modules="mirror"))
    for name, file, function in MAY_BLOCK:
        for call in watch.functions.values() if name == "*" else [watch.functions[name]]:
            call.can_block_in(file, function)
    blockbuster.blockbuster.BlockingError = _Recorded  # type: ignore[misc] # it has no hook for this
    watch.activate()
    yield
    watch.deactivate()


@pytest.fixture(autouse=True)
def no_blocking_call_in_the_event_loop() -> Iterator[list[str]]:
    """A call of `mirror` in an event loop that waits for disk or network fails the test. Gives what was seen."""
    _Recorded.seen.clear()
    yield _Recorded.seen
    assert not _Recorded.seen, f"blocking calls in the event loop: {sorted(set(_Recorded.seen))}"


pytest_plugins = ["tests.hub.fixtures"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.client("skopeo")`: skipped by name where the command is missing, failed in CI."""
    missing = sorted(
        {name for mark in item.iter_markers("client") for name in mark.args if shutil.which(name) is None}
    )
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI every client must be", pytrace=False)
    pytest.skip(reason)
