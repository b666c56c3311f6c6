from pathlib import Path

import pytest

from mirror.config import Upstream
from mirror.oci.names import Host
from tests.config.conftest import Load, Refuse


def only(read: Load, text: str) -> Upstream:
    (upstream,) = read(text).upstreams.values()
    return upstream


def test_an_upstream_without_keys_is_asked_by_https_at_its_host(read: Load) -> None:
    upstreams = read("upstreams: {quay.io: {}, 'registry:5000': }").upstreams
    assert [str(endpoint.url) for endpoint in upstreams[Host("quay.io")].endpoints] == ["https://quay.io"]
    assert upstreams[Host("registry:5000")].endpoints[0].url == "https://registry:5000"
    assert upstreams[Host("quay.io")].realms == ()


@pytest.mark.parametrize("name", ["Quay.io", "quay.io:443"])
def test_a_name_of_the_mirror_that_is_an_upstream_too_is_refused(refuse: Refuse, name: str) -> None:
    """Else quay.io/team/app would be answered as team/app, which is docker.io's."""
    problems = refuse(f"upstreams: {{docker.io: {{}}, quay.io: {{}}}}\nnames: [mirror.example, '{name}']")
    assert problems == (
        "config.yaml:2: names[1]: found quay.io, which is an upstream too, expected names of this mirror alone"
    )


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "Registry-1.Docker.IO:443"])
def test_docker_io_has_its_own_endpoint_and_realm_in_any_spelling(read: Load, host: str) -> None:
    config = read(f"upstreams: {{'{host}': {{}}}}")
    assert list(config.upstreams) == ["docker.io"]
    upstream = config.upstreams[Host("docker.io")]
    assert [endpoint.url for endpoint in upstream.endpoints] == ["https://registry-1.docker.io"]
    assert upstream.realms == ("auth.docker.io",)


def test_docker_io_by_another_endpoint_trusts_no_realm_unasked(read: Load) -> None:
    assert only(read, "upstreams: {docker.io: {endpoints: ['https://hub.corp.example']}}").realms == ()
    assert only(read, "upstreams: {docker.io: {realms: []}}").realms == ()


def test_endpoints_have_paths_and_capabilities_and_no_slash_at_their_end(read: Load) -> None:
    text = "upstreams: {a.b: {endpoints: ['http://a/x/', {url: 'https://[::1]:5', capabilities: [pull]}]}}"
    first, second = only(read, text).endpoints
    assert (first.url, first.capabilities) == ("http://a/x", ("resolve", "pull"))
    assert (second.url, second.capabilities) == ("https://[::1]:5", ("pull",))


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("a.example", "https:// or http://"),
        ("ftp://a.example", "https:// or http://"),
        ("https://", "https:// or http://"),
        ("https://a:0", "https:// or http://"),
        ("https://a:70000", "https:// or http://"),
        ("https://a b", "https:// or http://"),
        ("https://a/b c", "https:// or http://"),
        ("https://[::1", "https:// or http://"),
        ("https://u@a", "without user and password"),
        ("https://a/?", "without ? or #"),
        ("https://a/#x", "without ? or #"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused(refuse: Refuse, url: str, wanted: str) -> None:
    problems = refuse(f"upstreams: {{a.b: {{endpoints: ['{url}']}}}}")
    assert problems.startswith('config.yaml:1: upstreams["a.b"].endpoints[0].url: found')
    assert wanted in problems


def test_endpoints_must_be_able_to_do_everything_together(refuse: Refuse) -> None:
    problems = refuse("upstreams: {a.b: {endpoints: [{url: 'https://a.b', capabilities: [pull]}]}}")
    assert "found no endpoint that can resolve" in problems
    problems = refuse("upstreams: {a.b: {endpoints: [{url: 'https://a.b', capabilities: [push]}]}}")
    assert 'capabilities[0]: found "push", expected resolve or pull' in problems


@pytest.mark.parametrize(
    "host", ["registry", "localhost", "a..b", "-a.b", "a.b/c", "https://a.b", "a.b:0", "a.b:65536"]
)
def test_a_key_that_no_name_can_begin_with_is_refused_with_the_reason(refuse: Refuse, host: str) -> None:
    assert "the first part of a name belongs to the repository" in refuse(f"upstreams: {{'{host}': {{}}}}")


def test_two_keys_for_one_host_are_refused(refuse: Refuse) -> None:
    problems = refuse("upstreams:\n  docker.io:\n  quay.io:\n  index.docker.io:\n")
    assert problems.startswith('config.yaml:4: upstreams["index.docker.io"]: found docker.io again, after line 2')


def test_defaults_are_those_of_the_design(read: Load) -> None:
    upstream = only(read, "upstreams: {quay.io: {}}")
    assert (upstream.tag_ttl_seconds, upstream.referrers_ttl_seconds, upstream.unknown_ttl_seconds) == (60, 60, 5)
    assert (upstream.stale_after_seconds, upstream.stale_for_seconds, upstream.on_gone) == (1, None, "serve")
    assert (upstream.connect_timeout_seconds, upstream.first_byte_timeout_seconds) == (5, 30)
    assert (upstream.idle_timeout_seconds, upstream.max_connections, upstream.retries) == (60, 32, 3)
    assert (upstream.offline, upstream.insecure, upstream.allow_anonymous, upstream.prefetch) == (
        False,
        False,
        False,
        (),
    )
    assert upstream.credentials == ()


@pytest.mark.parametrize(
    "credentials",
    [
        "username: joe, password: pw",
        "username: joe, password_file: config.yaml",
        "token: abc",
        "docker_config: config.yaml",
        "credential_helper: ecr-login",
        "client_cert: config.yaml",
        "client_cert: config.yaml, client_key: config.yaml",
    ],
)
def test_an_upstream_with_credentials_needs_allow_anonymous(read: Load, refuse: Refuse, credentials: str) -> None:
    problems = refuse(f"upstreams: {{quay.io: {{{credentials}}}}}")
    assert problems.startswith('config.yaml:1: upstreams["quay.io"]: found credentials (')
    assert "whoever reaches this mirror will read what they open" in problems
    assert len(problems.splitlines()) == 1
    assert only(read, f"upstreams: {{quay.io: {{{credentials}, allow_anonymous: true}}}}").credentials


@pytest.mark.parametrize(
    ("credentials", "problem"),
    [
        ("username: joe", "username: found a username alone, expected password or password_file beside it"),
        ("username: joe, password: ", "username: found a username alone, expected password or password_file"),
        ("password: pw", "password: found a password alone, expected username beside it"),
        ("password_file: config.yaml", "password_file: found a password_file alone, expected username beside it"),
        (
            "username: joe, password: pw, password_file: config.yaml",
            "password_file: found password and password_file, expected one of them",
        ),
        ("token: abc, credential_helper: x", "credential_helper: found token and credential_helper, expected one"),
        ("client_key: config.yaml", "client_key: found a client_key alone, expected client_cert beside it"),
        ("credential_helper: ../x", 'credential_helper: found "../x", expected the name behind docker-credential-'),
        ("password_file: gone, username: a", 'password_file: found "gone", expected a file; there is none at gone'),
        ("docker_config: false", "docker_config: found false, expected the path of docker's config.json, or true"),
        ("token: ''", "token: found a string (not shown), expected a string that is not empty"),
    ],
)
def test_credentials_that_cannot_be_meant_are_refused(refuse: Refuse, credentials: str, problem: str) -> None:
    problems = refuse(f"upstreams: {{quay.io: {{{credentials}, allow_anonymous: true}}}}").splitlines()
    assert len(problems) == 1
    assert problems[0].startswith(f'config.yaml:1: upstreams["quay.io"].{problem}')


def test_credentials_over_plain_http_need_insecure(read: Load, refuse: Refuse) -> None:
    text = (
        "upstreams: {a.b: {token: x, allow_anonymous: true, endpoints: ['https://a.b', 'HTTP://a.b'], insecure: %s}}"
    )
    assert "endpoints[1]: found HTTP://a.b, over which credentials would travel in clear" in refuse(text % "false")
    assert only(read, text % "true").insecure


def test_both_a_lack_of_consent_and_clear_text_are_told(refuse: Refuse) -> None:
    problems = refuse("upstreams: {a.b: {token: x, endpoints: ['http://a.b']}}")
    assert "without allow_anonymous" in problems
    assert "in clear" in problems


def test_plain_http_without_credentials_is_fine(read: Load) -> None:
    assert (
        only(read, "upstreams: {a.b: {endpoints: ['http://localhost:5001']}}").endpoints[0].url
        == "http://localhost:5001"
    )


def test_true_means_the_file_that_docker_login_writes(read: Load, refuse: Refuse) -> None:
    text = "upstreams: {a.b: {docker_config: true, allow_anonymous: true}}"
    expected = Path.home() / ".docker/config.json"
    if expected.is_file():
        assert only(read, text).docker_config == expected
    else:
        assert f"there is none at {expected}" in refuse(text)


def test_realms_repositories_and_prefetch_are_read(read: Load) -> None:
    text = (
        "upstreams: {a.b: {realms: [Auth.Example, 'auth:8443'], repositories: {deny: [x/*]}, prefetch: [referrers]}}"
    )
    upstream = only(read, text)
    assert upstream.realms == ("auth.example", "auth:8443")
    assert (upstream.repositories.allow, upstream.repositories.deny) == ((), ("x/*",))
    assert upstream.prefetch == ("referrers",)
    assert only(read, "upstreams: {a.b: {prefetch: none, repositories: }}").prefetch == ()


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("realms: ['https://auth.example']", "realms[0]: found"),
        ("prefetch: all", 'prefetch: found "all", expected none, referrers, or a list of these'),
        ("prefetch: [blobs]", "prefetch: found a list, expected none, referrers, or a list of these"),
        ("connect_timeout: 0", "connect_timeout: found 0, expected a duration above zero"),
        ("max_connections: 0", "max_connections: found 0, expected a whole number, 1 or more"),
        ("retries: -1", "retries: found -1, expected a whole number, 0 or more"),
        ("stale_for: ever", 'stale_for: found "ever", expected a duration with a unit'),
        ("on_gone: drop", 'on_gone: found "drop", expected serve or refuse'),
        ("ca: gone.pem", 'ca: found "gone.pem", expected a file; there is none at gone.pem'),
        ("proxy: socks5://p", 'proxy: found "socks5://p", expected a URL that begins with http://'),
        (
            "repositories: {alow: [a]}",
            "repositories.alow: found an unknown key, expected a known one; did you mean allow?",
        ),
        ("tag_tll: 5s", "tag_tll: found an unknown key, expected a known one; did you mean tag_ttl?"),
    ],
)
def test_wrong_values_of_an_upstream_are_told(refuse: Refuse, keys: str, problem: str) -> None:
    assert refuse(f"upstreams: {{quay.io: {{{keys}}}}}").startswith(f'config.yaml:1: upstreams["quay.io"].{problem}')
