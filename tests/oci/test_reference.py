"""References, as people and tools write them."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.errors import DigestInvalid, NameInvalid
from mirror.oci.names import normalize_host, parse_host
from mirror.oci.reference import Reference, split_reference
from tests.oci.strategies import digests, hosts, repositories, tags

parts = st.tuples(st.none() | hosts, repositories, st.none() | tags, st.none() | digests)


def written(host: str | None, repository: str, tag: str | None, digest: Digest | None) -> str:
    return (f"{host}/" if host else "") + repository + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


@given(parts)
def test_a_reference_is_read_as_the_parts_that_it_was_written_from(
    drawn: tuple[str | None, str, str | None, Digest | None],
) -> None:
    host, repository, tag, digest = drawn
    assume(host is not None or parse_host(repository.partition("/")[0]) is None)
    found = Reference.parse(written(*drawn))
    assert found == Reference(normalize_host(host) if host else None, found.repository, tag, digest)
    assert found.repository == repository


@given(parts.map(lambda drawn: written(*drawn)) | st.text())
@example("registry:443/app")
@example("quay.io./app")
def test_a_reference_as_printed_is_read_as_the_same_reference(text: str) -> None:
    try:
        found = Reference.parse(text)
    except (NameInvalid, DigestInvalid):
        return
    assert Reference.parse(str(found)) == found
    assert str(Reference.parse(str(found))) == str(found)


@given(st.text() | st.text("a/:@.", max_size=10))
def test_whatever_is_no_reference_is_refused_with_an_error_of_ours(text: str) -> None:
    for parse in (Reference.parse, Reference.parse_familiar):
        try:
            parse(text)
        except (NameInvalid, DigestInvalid) as error:
            assert str(error)  # noqa: PT017 either outcome is right; only other errors are not


@given(parts)
def test_splitting_loses_nothing(drawn: tuple[str | None, str, str | None, Digest | None]) -> None:
    host, repository, tag, digest = drawn
    assert split_reference(written(*drawn)) == (written(host, repository, None, None), tag, digest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ubuntu", "docker.io/library/ubuntu"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("team/app:1", "docker.io/team/app:1"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu"),
        ("index.docker.io/ubuntu:1", "docker.io/library/ubuntu:1"),
        ("registry-1.docker.io/team/app", "docker.io/team/app"),
        ("quay.io/app:1", "quay.io/app:1"),
        ("localhost/x", "x"),
        ("localhost/team/x:1", "team/x:1"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("localhost", "docker.io/library/localhost"),
        ("host:5000/app", "host:5000/app"),
        ("host_5000/app", "host:5000/app"),
        (f"ubuntu@sha256:{'a' * 64}", f"docker.io/library/ubuntu@sha256:{'a' * 64}"),
        (f"ubuntu:1@sha512:{'a' * 128}", f"docker.io/library/ubuntu:1@sha512:{'a' * 128}"),
        ("chart:1.1.0+oci", "docker.io/library/chart:1.1.0+oci"),
    ],
)
def test_familiar_names_are_read_as_docker_reads_them(text: str, expected: str) -> None:
    assert str(Reference.parse_familiar(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":1",
        "a:",
        "a:b:c",
        "a/",
        "/a",
        "a//b",
        "a/../b",
        "Upper/case",
        "quay.io/",
        "a:ta g",
        "https://quay.io/app",
        f"{'a' * 256}",
        f"quay.io/{'a' * 248}",
    ],
)
def test_bad_names_and_tags_are_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["a@", "a@sha256:12", "a@latest", f"a@sha256:{'A' * 64}", f"a@sha256:{'a' * 64}@x"])
def test_bad_digests_are_refused(text: str) -> None:
    with pytest.raises(DigestInvalid):
        Reference.parse(text)
