"""How long to wait before what died is started again: a scan process, a worker."""

import time

# One that ran this long was healthy: its next death is a first one.
HEALTHY_SECONDS = 10.0
MAX_PAUSE_SECONDS = 5.0


def failures_now(before: int, begun: float) -> int:
    """How many deaths in a row it is, after so many `before`, of one that began at this time (`time.monotonic`)."""
    return before + 1 if time.monotonic() - begun < HEALTHY_SECONDS else 1


def pause_seconds(failures: int) -> float:
    """How long to wait after this many deaths in a row."""
    return min(MAX_PAUSE_SECONDS, 0.1 * 2.0 ** min(failures - 1, 16))
