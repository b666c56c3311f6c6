"""A cache bounded by what its entries weigh."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.server.recent import Recent

_steps = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(1, 70))), max_size=200)


@given(_steps)
def test_it_gives_what_was_put_last_and_weighs_no_more_than_allowed(steps: list[tuple[str, int | None]]) -> None:
    cache: Recent[str, int] = Recent(100)
    last: dict[str, int] = {}
    weights: dict[str, int] = {}
    for number, (key, weight) in enumerate(steps):
        if weight is not None:
            cache.put(key, number, weight)
            last[key], weights[key] = number, weight
        found = cache.get(key)
        assert found is None or found == last[key]
        if weight is not None:
            assert (found is None) == (weight > 50)
        kept = [one for one in "abcdefgh" if one in cache]
        assert sum(weights[one] for one in kept) <= 100


def test_what_is_asked_for_stays_and_what_is_not_goes() -> None:
    cache: Recent[int, str] = Recent(100)
    cache.put(0, "asked for", 10)
    for number in range(1, 50):
        cache.put(number, "once", 10)
        assert cache.get(0) == "asked for"
    assert 1 not in cache
