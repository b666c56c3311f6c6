"""Laws of names that hold for any host and repository, over the parser alone."""

from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st

from mirror.oci.errors import NameInvalid, OciError
from mirror.oci.names import DOCKER_HUB, Host, familiar, is_repository, normalize_host, parse_host
from mirror.server.names import NameRules, Wanted, read_names
from mirror.server.route import Endpoint, parse_target
from tests.oci.strategies import components, hosts, repositories, tags

OWN = Host("mirror.corp.example")
RULES = NameRules(DOCKER_HUB, frozenset({OWN}), frozenset())


def wanted(target: str, *headers: str, own_host: str | None = None) -> Wanted:
    return read_names(parse_target(target), headers, own_host, RULES)


plain_repositories = repositories.filter(lambda name: parse_host(name.partition("/")[0]) is None)


@given(hosts, plain_repositories, tags)
def test_every_way_of_naming_a_host_means_the_same(host: str, repository: str, tag: str) -> None:
    canonical = normalize_host(host)
    assume(canonical != OWN)
    expected = (canonical, familiar(canonical, repository))
    by_path = [wanted(f"/v2/{host}/{repository}/manifests/{tag}"), wanted(f"/{host}/v2/{repository}/manifests/{tag}")]
    chosen = [
        wanted(f"/v2/{repository}/manifests/{tag}?ns={host}"),
        wanted(f"/v2/{host}/{repository}/manifests/{tag}?ns={host}"),
        wanted(f"/v2/{repository}/manifests/{tag}?oci-ref-name={quote(f'{host}/{repository}:{tag}', safe='')}"),
        wanted(f"/v2/{repository}/manifests/{tag}", f"{host}/{repository}:{tag}"),
        wanted(f"/v2/{repository.rpartition('/')[2]}/manifests/{tag}", f"{host}/{repository}"),
        wanted(f"/{host}/v2/{repository}/manifests/{tag}", f"{OWN}/{host}/{repository}"),
    ]
    assert {(one.host, one.repository) for one in (*by_path, *chosen)} == {expected}
    assert {one.chosen for one in by_path} == {None}
    assert {one.chosen for one in chosen} == {canonical}


@given(plain_repositories, st.sampled_from(["manifests", "blobs", "referrers"]), tags)
def test_all_before_the_endpoint_is_the_name(repository: str, family: str, tag: str) -> None:
    route = parse_target(f"/v2/{repository}/{family}/{tag}")
    assert (route.name, route.reference) == (repository, tag)
    assert parse_target(f"/v2/{repository}/tags/list").endpoint is Endpoint.TAGS
    encoded = "".join(letter if letter == "/" else f"%{ord(letter):02X}" for letter in repository)
    assert parse_target(f"/v2/{encoded}/{family}/{tag}").name == repository


@given(plain_repositories, st.lists(components, min_size=1, max_size=3).map("/".join))
def test_path_and_ref_name_agree_by_whole_trailing_components_only(repository: str, path: str) -> None:
    assume(parse_host(path.partition("/")[0]) is None)
    agree = repository == path or repository.endswith(f"/{path}")
    try:
        found = wanted(f"/v2/{path}/tags/list?ns=quay.io", repository)
    except NameInvalid:
        assert not agree
    else:
        assert agree
        assert (found.host, found.repository) == ("quay.io", repository)


def test_a_name_has_255_characters_with_its_host() -> None:
    for host, longest in (("quay.io", 247), ("", 255)):
        for length in (longest, longest + 1):
            found = wanted(f"/v2/{f'{host}/' if host else ''}{'a' * length}/manifests/1")
            assert found.repository == ("a" * length if length == longest else None)


@given(st.text(max_size=20), st.lists(st.text(max_size=12), max_size=2), st.none() | st.text(max_size=9) | hosts)
def test_whatever_is_asked_is_a_name_or_an_error_of_ours(target: str, headers: list[str], own: str | None) -> None:
    for asked in (target, f"/v2/{target}/manifests/1", f"/v2/a/tags/list?{target}", f"/{target}/v2/"):
        try:
            found = read_names(parse_target(asked), headers, own, RULES)
        except OciError as error:
            assert error.code  # noqa: PT017 either outcome is right
        else:
            assert found.repository is None or is_repository(found.repository)
