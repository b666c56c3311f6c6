import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config.units import (
    DURATION_UNITS,
    MAX_DURATION_SECONDS,
    MAX_SIZE_BYTES,
    SIZE_UNITS,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from mirror.config.values import Expected


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("1048576", 1 << 20), ("512KiB", 512 << 10), ("1.5GiB", 3 << 29), ("2TiB", 2 << 40), ("0.0001KiB", 0)],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "5GB", "5gib", "5 GiB", "-5GiB", "1e3", ".5GiB", "5.GiB", "٥GiB", "1_0", "∞"]
)
def test_no_other_spelling_is_a_size(text: str) -> None:
    with pytest.raises(Expected, match="a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("500ms", 0.5), ("5s", 5), ("1m", 60), ("2h", 7200), ("7d", 604_800), ("1.5h", 5400)],
)
def test_a_duration_has_a_unit_or_is_zero(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5S", "5sec", "1h30m", "inf", "nans", "٥s", "1e3s"])
def test_no_other_spelling_is_a_duration(text: str) -> None:
    with pytest.raises(Expected, match="a duration with a unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["8388608TiB", "9999999999999999999"])
def test_a_size_that_no_disk_has_is_refused(text: str) -> None:
    with pytest.raises(Expected, match="below"):
        parse_size(text)


def test_a_duration_beyond_a_century_is_refused() -> None:
    with pytest.raises(Expected, match="at most"):
        parse_duration("36501d")


@given(st.integers(0, MAX_SIZE_BYTES))
def test_a_size_written_out_reads_back_exactly(size_bytes: int) -> None:
    assert parse_size(str(format_size(size_bytes))) == size_bytes


@given(st.floats(0, MAX_DURATION_SECONDS, allow_subnormal=False).filter(lambda seconds: not 0 < seconds < 1e-6))
def test_a_duration_written_out_reads_back_exactly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(sorted(SIZE_UNITS)))
def test_a_size_is_its_number_times_its_unit_rounded_down(whole: int, thousandths: int, unit: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * SIZE_UNITS[unit]
    assert parse_size(f"{whole}.{thousandths:03}{unit}") == exact // 1


@given(st.integers(0, 36_000), st.integers(0, 999), st.sampled_from(sorted(DURATION_UNITS)))
def test_a_duration_is_its_number_times_its_unit(whole: int, thousandths: int, unit: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * Fraction(DURATION_UNITS[unit])
    assert parse_duration(f"{whole}.{thousandths:03}{unit}") == float(exact)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(Expected):
            assert parse(text) >= 0
