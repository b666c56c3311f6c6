"""Challenges, as RFC 9110 (11.6.1) lets servers write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.challenge import Challenge, parse_challenges

TOKENS = st.text("!#$%&'*+-.^_`|~0123456789abcdefXYZ", min_size=1, max_size=8)
VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=12)
SPACES = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def challenges(draw: st.DrawFn) -> tuple[list[Challenge], str]:
    """Some challenges, and one of the many ways to write them in one header."""
    found, parts = [], []
    for scheme in draw(st.lists(TOKENS, min_size=1, max_size=4)):
        names = draw(st.lists(TOKENS, max_size=4, unique_by=str.lower))
        values = {name: draw(VALUES) for name in names}
        found.append(Challenge(scheme.lower(), {name.lower(): value for name, value in values.items()}))
        written = []
        for name, value in values.items():
            escaped = "".join("\\" + char if char in '"\\' else char for char in value)
            written.append(f'{name}{draw(SPACES)}={draw(SPACES)}"{escaped}"')
        parts.append(f"{scheme} {f'{draw(SPACES)},{draw(SPACES)}'.join(written)}".rstrip())
    return found, f"{draw(SPACES)},{draw(SPACES)}".join(parts)


@given(challenges())
def test_several_challenges_in_one_header_are_read_as_written(case: tuple[list[Challenge], str]) -> None:
    expected, header = case
    assert parse_challenges([header]) == expected


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_is_too_strange_to_be_read(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower() != ""


@given(st.text(' ,="\\aB', max_size=60))
def test_no_punctuation_is_too_strange_to_be_read(header: str) -> None:
    parse_challenges([header])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        (",, ,", []),
        ("Basic", [Challenge("basic")]),
        (
            'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
            [
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
                Challenge("basic", {"realm": "simple"}),
            ],
        ),
        (
            'Negotiate YII=, Bearer realm="https://auth.docker.io/token",service="registry.docker.io"',
            [
                Challenge("negotiate"),
                Challenge("bearer", {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}),
            ],
        ),
        (
            'Bearer scope="repository:a:pull,push repository:b:pull", error="invalid_token"',
            [Challenge("bearer", {"scope": "repository:a:pull,push repository:b:pull", "error": "invalid_token"})],
        ),
        ("Bearer realm=https://x", [Challenge("bearer")]),
        ('realm="before any scheme"', []),
        ('Bearer realm="first", realm="second"', [Challenge("bearer", {"realm": "first"})]),
    ],
)
def test_challenges_of_the_wild(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == expected


def test_several_headers_are_read_in_their_order() -> None:
    assert parse_challenges(["Basic", 'Bearer realm="x"']) == [
        Challenge("basic"),
        Challenge("bearer", {"realm": "x"}),
    ]
