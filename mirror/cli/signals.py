"""The signals that a server listens to. Until it does they are held back: by default each of them would kill it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold() -> None:
    """From here on what comes waits for `let_through`, in this thread and in what it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def let_through() -> None:
    """Let this thread have what came and what comes."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def held() -> Iterator[None]:
    """Whoever is started within holds signals back until it listens to them, rather than being killed by one."""
    hold()
    try:
        yield
    finally:
        let_through()
