"""What dies again and again is started again and again, for ever."""

import time

from mirror.sources.pauses import HEALTHY_SECONDS, MAX_PAUSE_SECONDS, failures_now, pause_seconds


def test_pauses_between_tries_grow_and_end() -> None:
    assert [pause_seconds(failures) for failures in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert pause_seconds(100_000) == MAX_PAUSE_SECONDS


def test_the_next_death_of_what_was_healthy_is_a_first_one() -> None:
    assert failures_now(7, time.monotonic()) == 8
    assert failures_now(7, time.monotonic() - HEALTHY_SECONDS) == 1
