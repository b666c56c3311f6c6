"""Names of repositories, tags and hosts (distribution-spec 1.1, "Pulling manifests"; Docker's familiar names)."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mirror.oci.names import (
    DOCKER_HUB,
    Host,
    Name,
    Repository,
    familiar,
    is_host,
    is_local_tag,
    is_repository,
    is_tag,
    normalize_host,
    parse_host,
    split_host,
)
from tests.oci.strategies import components, hosts, repositories, tags

# Copied from the specification.
SPEC_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
SPEC_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

near_names = st.text("ab0._-/A %:\n", max_size=12)


@given(st.text() | repositories | near_names)
@example("a" * 255)
@example("a" * 256)
@example("a/")
@example("a//b")
@example("a___b")
@example("ä")
def test_a_repository_name_is_what_the_specification_says_and_at_most_255_characters(text: str) -> None:
    assert is_repository(text) == (SPEC_NAME.fullmatch(text) is not None and len(text) <= 255)


@given(st.text() | tags | st.text("aB0._-+:/", max_size=6))
@example("a" * 128)
@example("a" * 129)
@example("1\n")
def test_a_tag_is_what_the_specification_says(text: str) -> None:
    assert is_tag(text) == (SPEC_TAG.fullmatch(text) is not None)


@given(tags)
def test_a_local_tag_may_also_hold_a_plus(tag: str) -> None:
    assert is_local_tag(tag)
    assert is_local_tag(f"{tag}+build.1")
    assert not is_tag(f"{tag}+build.1")
    assert not is_local_tag(f"+{tag}")


@given(hosts)
def test_a_first_component_with_a_dot_or_a_port_is_a_host(host: str) -> None:
    found = parse_host(host)
    assert found == normalize_host(host)
    assert found == parse_host(host.upper())


@given(components)
def test_a_component_without_dot_or_port_is_no_host(component: str) -> None:
    assume("." not in component and "_" not in component)
    assert parse_host(component) is None
    assert split_host(f"{component}/app") == (None, f"{component}/app")


@given(hosts)
def test_comparing_forms_are_stable(host: str) -> None:
    once = normalize_host(host)
    assert once == once.lower()
    assert normalize_host(once) == once


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("docker.io", "docker.io"),
        ("DOCKER.io", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io:443", "docker.io"),
        ("registry-1.docker.io:443", "docker.io"),
        ("Quay.IO:443", "quay.io"),
        ("quay.io:5000", "quay.io:5000"),
        ("quay.io_5000", "quay.io:5000"),
        ("quay.io_443", "quay.io"),
        ("host_5000", "host:5000"),
        ("localhost:5000", "localhost:5000"),
        ("localhost_5000", "localhost:5000"),
        ("localhost", None),
        ("team", None),
        ("under_score", None),
        ("two__5000", None),
        ("host_65536", None),
        ("host_0", None),
        ("192.168.0.1", "192.168.0.1"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_what_a_first_component_spells(written: str, host: str | None) -> None:
    assert parse_host(written) == host
    assert split_host(f"{written}/x") == ((host, "x") if host else (None, f"{written}/x"))
    assert split_host(written) == (None, written), "a host is followed by at least one component"


@given(st.text())
def test_reading_a_host_never_fails(text: str) -> None:
    host, rest = split_host(text)
    assert text.endswith(rest)
    if parse_host(text) is not None:
        assert is_host(text)
        assert host is None or host == normalize_host(host)


@given(repositories)
def test_official_images_are_completed_on_docker_hub_only(repository: str) -> None:
    expected = repository if "/" in repository else f"library/{repository}"
    assert familiar(DOCKER_HUB, repository) == expected
    assert familiar(DOCKER_HUB, expected) == expected
    assert familiar(Host("quay.io"), repository) == repository
    assert familiar(None, repository) == repository


@given(st.none() | hosts.map(normalize_host), repositories)
@example(Host("one"), "app")
def test_a_canonical_name_as_written_is_read_as_the_same_name(host: Host | None, repository: str) -> None:
    assume(host is not None or parse_host(repository.partition("/")[0]) is None)
    assert split_host(str(Name(host, Repository(repository)))) == (host, repository)
