"""Times of RFC 3339."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.oci.times import format_time_ms, parse_time_ms

YEAR_10_000_MS = 253_402_300_800_000


@given(st.integers(-62_135_596_800_000, YEAR_10_000_MS - 1))
def test_what_is_written_is_read_again(ms: int) -> None:
    assert parse_time_ms(format_time_ms(ms)) == ms


offsets = st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59))


@given(st.datetimes(), offsets)
def test_what_is_read_can_be_written(moment: datetime, offset: str) -> None:
    """In the first and the last year an offset may lead out of the calendar."""
    ms = parse_time_ms(f"{moment.isoformat(timespec='seconds')}{offset}")
    if ms is None:
        assert moment.year in (1, 9999)
    else:
        assert parse_time_ms(format_time_ms(ms)) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00.9999999999z", 999),
        ("1970-01-01 02:00:00.1+02:00", 100),
        ("1969-12-31T22:30:00-01:30", 0),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
    ],
)
def test_every_form_is_read(text: str, ms: int) -> None:
    assert parse_time_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "2024", "2024-01-01", "2024-01-01T00:00:00", "2024-02-30T00:00:00Z", "2024-01-01T24:00:00Z"),
        *("0000-01-01T00:00:00Z", "2024-01-01T00:00:00+99:00", "٢٠٢٤-01-01T00:00:00Z", "2024-01-01T00:00:00.Z"),
        *("0001-01-01T00:00:00+23:59 ", "2024-01-01T00:00:61Z"),
        *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"),
    ],
)
def test_what_is_no_such_time_is_none(text: str) -> None:
    assert parse_time_ms(text) is None
