"""What every test may use."""

import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import blockbuster.blockbuster
import pytest
from blockbuster import BlockBuster, BlockBusterFunction, BlockingError
from hypothesis import settings

import mirror

# In CI the same examples each time: a change is judged by what it changes. No deadlines: machines are busy.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# Calls that wait for the disk and that blockbuster does not know by itself.
DISK_CALLS = (
    *("os.open", "os.pread", "os.preadv", "os.pwrite", "os.fsync", "os.fdatasync", "os.ftruncate"),
    *("os.lstat", "os.scandir", "os.utime", "os.chmod", "os.path.realpath", "os.path.exists", "os.path.isdir"),
)
# Where the product may call them in the event loop, and why.
MAY_BLOCK = (
    # With RWF_NOWAIT: what the page cache does not hold is an error at once, not a wait.
    ("os.preadv", "mirror/store/threads.py", "read_cached"),
    # What is unlinked is empty, and also a cancelled fill must leave nothing.
    ("os.unlink", "mirror/store/parts.py", "let_go"),
    # Stores are made at the start, before there are requests to wait.
    ("os.mkdir", "mirror/store/parts.py", "__init__"),
    # A stat or two for each question to the names of the cache: 2 µs, of folders that are in memory after the first.
    ("os.stat", "mirror/store/lines.py", "unchanged"),
    ("os.stat", "mirror/store/lines.py", "pending_bytes"),
    ("*", "mirror/store/lists.py", "get"),
    ("os.stat", "mirror/store/lists.py", "pending_bytes"),
    ("os.stat", "mirror/store/table.py", "_stamp"),
    ("os.stat", "mirror/store/repository.py", "exists"),
    # One row by its key, on a miss: 2 to 4 µs, where a thread costs 73.
    ("*", "mirror/store/database.py", "read"),
    # A few bytes of a file that is in memory, for each request to an upstream: 2 µs.
    ("os.pread", "mirror/upstream/breaker.py", "load"),
    ("os.pwrite", "mirror/upstream/breaker.py", "store"),
    # What a few puts of other processes added is read on the spot; for more there is `ready`.
    ("*", "mirror/store/repository.py", "_current_table"),
    ("*", "mirror/store/repository.py", "_current_links"),
    # The handlers of pytest; the mirror's own writes in a thread.
    ("*", "logging/__init__.py", "emit"),
    # /dev/null, for the standard error of a credential helper.
    ("os.open", "mirror/upstream/docker_config.py", "ask_helper"),
    # The configuration is read before there is a loop; only tests do it inside one.
    ("*", "mirror/config/load.py", "load"),
)

TESTS = str(Path(__file__).parent)
PRODUCT = str(Path(mirror.__file__).parent)


class _Recorded(BlockingError):
    """The product answers exceptions that it did not foresee, so raising one does not yet fail a test."""

    seen: list[str] = []  # noqa: RUF012 one list for all of them is the point

    def __init__(self, func: str) -> None:
        super().__init__(func)
        self.seen.append(func)


def _is_the_tests_own_call(*_: object, **__: object) -> bool:
    """A test may call what blocks: the first frame of `mirror` below it is then no coroutine's."""
    frame, inner = inspect.currentframe(), None
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(TESTS) and path != __file__:
            break
        if path.startswith(PRODUCT):
            inner = frame
        frame = frame.f_back
    coroutine = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    return frame is not None and inner is not None and not inner.f_code.co_flags & coroutine


def _either(one: Callable[..., bool], other: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *args, **kwargs: one(*args, **kwargs) or other(*args, **kwargs)


@pytest.fixture(scope="session", autouse=True)
def _watch_for_blocking_calls() -> Iterator[None]:
    watch = BlockBuster("mirror")
    for name in DISK_CALLS:
        watch.functions.setdefault(name, BlockBusterFunction(None, name, scanned_modules="mirror"))
    for call in watch.functions.values():
        call.can_block_predicate = _either(call.can_block_predicate, _is_the_tests_own_call)
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
    require(*{name for mark in item.iter_markers("client") for name in mark.args})


def require(*commands: str) -> None:
    """Skip the test by name where a command is missing; fail it in CI."""
    missing = sorted(name for name in commands if shutil.which(name) is None)
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI every client must be", pytrace=False)
    pytest.skip(reason)
