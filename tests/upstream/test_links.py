"""Where the next page is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.links import parse_next


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', "/v2/a/tags/list?n=2&last=b"),
        ("</x>; rel=next", "/x"),
        ("</x>;rel=NEXT", "/x"),
        ('</x>; title="a, <b>; rel=prev"; rel="last next"', "/x"),
        ('</first>; rel="first", </x,y;z>; rel="next"', "/x,y;z"),
        (r'</x>; title="a; rel=\"prev\", b"; rel="next"', "/x"),
        ('</x>; rel="prev"', None),
        ("</x>; rel=nextish", None),
        ("</x>", None),
        ("x; rel=next", None),
        ("", None),
    ],
)
def test_the_next_page_is_found(header: str, expected: str | None) -> None:
    assert parse_next([header]) == expected


def test_several_headers_are_read() -> None:
    assert parse_next(['</x>; rel="prev"', '</y>; rel="next"']) == "/y"


@given(st.text('<>;,= "relnxt\\', max_size=80))
def test_no_header_is_too_strange_to_be_read(header: str) -> None:
    parse_next([header])


def test_a_hostile_header_is_read_at_once() -> None:
    assert parse_next(["<x>" + "; a= " * 2000 + "!"]) is None
    assert parse_next(["<" * 8000]) is None
    assert parse_next(['<x>; a="' * 1000]) is None
