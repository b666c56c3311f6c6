"""Python's garbage collector, where hundreds of thousands of objects come to stay.

It looks for cycles among all objects again and again while many are made, and a look at those of 50,000 manifests
holds every thread for a tenth of a second. Snapshots, and manifests that are cached, have no cycles: they go when
nobody refers to them any more.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Young ones at a thousand, those that stayed after ten times as many; all after fifty times that, and only where a
# quarter of them came since the last such look (Python's rule). Never would let grow, for an hour, what connections
# that lasted some seconds leave in cycles.
_MOSTLY_YOUNG = (1_000, 10, 50)
# A look through all objects is felt by requests, and little is left in cycles.
COLLECT_SECONDS = 3600.0

_lock = threading.Lock()
_makers = 0


@contextmanager
def uncollected() -> Iterator[None]:
    """No cycles are looked for as long as the context is: for making much that stays. Threads may overlap."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def settle() -> None:
    """What lives now will live long: it is never looked through again. Once in a process, when it is ready.

    From then on mostly young objects are looked through by themselves, some thousands at a time, which takes a few
    milliseconds. For what is left, a server collects every `COLLECT_SECONDS`.
    """
    gc.freeze()
    gc.set_threshold(*_MOSTLY_YOUNG)


def _count(step: int) -> None:
    global _makers  # noqa: PLW0603 there is one collector in a process
    with _lock:
        _makers += step
        if _makers == 0:
            gc.enable()
        else:
            gc.disable()
