"""When an endpoint is not asked."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.upstream.breaker import (
    MAX_OPEN_SECONDS,
    MAX_RETRY_AFTER_SECONDS,
    PROBE_SECONDS,
    THRESHOLD,
    Breaker,
    BreakerState,
    FileBreakerState,
    MemoryBreakerState,
)
from mirror.upstream.errors import (
    BadAnswer,
    BreakerOpen,
    NotFound,
    RateLimited,
    Refused,
    TooLarge,
    Unavailable,
    UpstreamError,
)
from mirror.upstream.events import BreakerMoved, UpstreamEvent

FAILURE = Refused("up.example", "no connection")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "file"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> BreakerState:
    return MemoryBreakerState() if request.param == "memory" else FileBreakerState(tmp_path, "https://up.example")


@pytest.fixture
def breaker(state: BreakerState, clock: Clock) -> Breaker:
    return Breaker("up.example", "https://up.example", state, clock=clock)


def fail(breaker: Breaker, times: int = 1, error: UpstreamError = FAILURE) -> None:
    for _ in range(times):
        breaker.failed(error, breaker.enter())


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, THRESHOLD - 1)
    breaker.succeeded(breaker.enter())
    fail(breaker, THRESHOLD)
    with pytest.raises(BreakerOpen) as error:
        breaker.enter()
    assert error.value.retry_after_seconds == pytest.approx(1)


def test_one_probe_decides_and_the_pauses_grow(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, THRESHOLD)
    pauses = []
    for _ in range(8):
        pauses.append(breaker.open_seconds)
        clock.now += breaker.open_seconds
        probe = breaker.enter()
        assert probe
        with pytest.raises(BreakerOpen):
            breaker.enter()
        breaker.failed(FAILURE, probe)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])
    clock.now += MAX_OPEN_SECONDS
    breaker.succeeded(breaker.enter())
    assert [breaker.enter() for _ in range(5)] == [False] * 5


def test_a_probe_that_was_given_up_leaves_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, THRESHOLD)
    clock.now += 1
    breaker.abandoned(breaker.enter())
    assert breaker.enter()
    # Nor does one that never comes back shut the endpoint out.
    clock.now += PROBE_SECONDS
    assert breaker.enter()


def test_those_who_fail_together_are_one_failure(breaker: Breaker) -> None:
    probes = [breaker.enter() for _ in range(50)]
    for probe in probes:
        breaker.failed(FAILURE, probe)
    assert breaker.open_seconds == pytest.approx(1)


@pytest.mark.parametrize(
    "error",
    [
        NotFound("up.example", "not found"),
        BadAnswer("up.example", "wrong bytes"),
        BadAnswer("up.example", "status 400", status=400),
        TooLarge("up.example", "too large"),
        Refused("up.example", "no connection", elsewhere=True),
        RateLimited("up.example", "429", 60, elsewhere=True),
    ],
)
def test_answers_and_other_hosts_failures_do_not_count(breaker: Breaker, error: UpstreamError) -> None:
    fail(breaker, 3 * THRESHOLD, error)
    assert breaker.enter() is False


@pytest.mark.parametrize("kind", [RateLimited, Unavailable])
def test_what_an_upstream_asks_for_is_kept(breaker: Breaker, clock: Clock, kind: type[Unavailable]) -> None:
    early = breaker.enter()
    breaker.failed(kind("up.example", "wait", 60), breaker.enter())
    # A request that was on its way before does not lift it.
    breaker.succeeded(early)
    with pytest.raises(kind) as error:
        breaker.enter()
    assert error.value.retry_after_seconds == pytest.approx(60)
    clock.now += 60
    breaker.succeeded(breaker.enter())
    assert breaker.enter() is False


def test_no_upstream_is_left_alone_for_ever(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(RateLimited("up.example", "wait", 10**9), breaker.enter())
    assert breaker.open_seconds == pytest.approx(MAX_RETRY_AFTER_SECONDS)
    # Nor when the clock is set back.
    clock.now -= 10**6
    assert breaker.open_seconds == 0


def test_processes_share_what_they_learn(tmp_path: Path, clock: Clock) -> None:
    def another(url: str = "https://up.example") -> Breaker:
        return Breaker("up.example", url, FileBreakerState(tmp_path, url), clock=clock)

    one, two, other = another(), another(), another("https://other.example")
    fail(one, THRESHOLD)
    with pytest.raises(BreakerOpen):
        two.enter()
    assert other.enter() is False
    clock.now += 1
    assert two.enter()
    with pytest.raises(BreakerOpen):
        one.enter()
    two.succeeded(True)
    assert one.enter() is False


def test_a_half_written_record_is_passed_over(tmp_path: Path, clock: Clock) -> None:
    state = FileBreakerState(tmp_path, "x")
    fail(Breaker("up.example", "x", state, clock=clock), THRESHOLD)
    good = state.load()
    (file,) = tmp_path.iterdir()
    with file.open("r+b") as writing:
        writing.seek(3)
        writing.write(b"\xff")
    assert state.load() == good


def test_a_closed_state_still_takes_reports(tmp_path: Path, clock: Clock) -> None:
    state = FileBreakerState(tmp_path, "x")
    state.close()
    breaker = Breaker("up.example", "x", state, clock=clock)
    fail(breaker, THRESHOLD)
    assert breaker.open_seconds > 0


def test_moves_are_told(state: BreakerState, clock: Clock) -> None:
    told: list[UpstreamEvent] = []
    observe: Callable[[UpstreamEvent], None] = told.append
    url = "https://up.example"
    breaker = Breaker("up.example", url, state, observe, clock)
    fail(breaker, THRESHOLD)
    shut = BreakerMoved("up.example", url, 1.0, "no connection")
    # It stays shut: that is one move.
    for pause in (1, 2, 4):
        clock.now += pause
        breaker.failed(FAILURE, breaker.enter())
    assert told == [shut]
    clock.now += 8
    breaker.succeeded(breaker.enter())
    assert told == [shut, BreakerMoved("up.example", url, 0.0)]
