"""What is refused, in which words, and that no secret is among them."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.config import ConfigError
from mirror.config.models import Config, LayoutRoot, Upstream
from tests.config.conftest import Load, Refuse

EVERYTHING_WRONG = """\
listen: 127.0.0.1:70000
workers: true
upsteams: {}
refresh: 5
refresh: 6s
tls: {cert: nope.pem}
cache: {path: layouts/cache, max_size: -1}
layouts:
- layouts
- {path: more, prefix: UP}
- ./layouts
- {prefix: x}
- {path: "${NOPE}"}
upstreams:
  registry: {}
  quay.io: {tag_ttl: 60, username: joe}
  QUAY.io:443: {tls: false}
  ghcr.io: {token: x, on_gone: yes}
"""


def test_all_problems_are_told_at_once_each_with_file_line_and_key(refuse: Refuse) -> None:
    places = [line.split(": found ")[0] for line in refuse(EVERYTHING_WRONG).splitlines()]
    assert places == [
        "config.yaml:1: listen",
        "config.yaml:2: workers",
        "config.yaml:3: upsteams",
        "config.yaml:4: refresh",
        "config.yaml:5: refresh",
        "config.yaml:6: tls.cert",
        "config.yaml:6: tls.key",
        "config.yaml:7: cache.max_size",
        "config.yaml:7: cache.path",
        "config.yaml:10: layouts[1].prefix",
        "config.yaml:11: layouts[2].path",
        "config.yaml:12: layouts[3].path",
        "config.yaml:13: layouts[4].path",
        "config.yaml:15: upstreams.registry",
        'config.yaml:16: upstreams["quay.io"].tag_ttl',
        'config.yaml:17: upstreams["QUAY.io:443"]',
        'config.yaml:17: upstreams["QUAY.io:443"].tls',
        'config.yaml:18: upstreams["ghcr.io"].on_gone',
        'config.yaml:18: upstreams["ghcr.io"]',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("workers: 0", "workers: found 0, expected a whole number, 1 or more, or auto"),
        ("workers: '2'", 'workers: found "2", expected a whole number, 1 or more, or auto'),
        ("workers: 1.0", "workers: found 1.0, expected a whole number, 1 or more, or auto"),
        ("metrics: 1", "metrics: found 1, expected true or false"),
        ("metrics: 'true'", 'metrics: found "true", expected true or false'),
        ("metrics:", "metrics: found nothing, expected true or false"),
        ("log_format: xml", 'log_format: found "xml", expected text, json or auto'),
        ("shutdown_timeout: -1", "shutdown_timeout: found -1, expected a duration with a unit"),
        ("shutdown_timeout: 20", "shutdown_timeout: found 20, expected a duration with a unit"),
        ("shutdown_timeout: true", "shutdown_timeout: found true, expected a duration with a unit"),
        ("refresh: 0", "refresh: found 0, expected a duration above zero"),
        ("cache: {max_size: 0}", "cache.max_size: found 0, expected a size above zero"),
        ("cache: {max_size: 1.5}", "cache.max_size: found 1.5, expected a size: bytes"),
        ("cache: {max_size: true}", "cache.max_size: found true, expected a size: bytes"),
        ("cache: [a]", "cache: found a list, expected a mapping of keys"),
        ("cache: {pins: ['a b']}", 'cache.pins[0]: found "a b", expected a name'),
        ("listen: 5000", "listen: found 5000, expected a string, in quotes"),
        ("listen: ':5000'", 'listen: found ":5000", expected an address and a port'),
        ("listen: '::1:5000'", 'listen: found "::1:5000", expected an address and a port'),
        ("listen: 'localhost:'", 'listen: found "localhost:", expected an address and a port'),
        ("names: mirror.corp", 'names: found "mirror.corp", expected a list'),
        ("names: [mirror]", 'names[0]: found "mirror", expected a host with a dot or a port'),
        ("default_host: 'docker.io:99999'", 'default_host: found "docker.io:99999", expected a host'),
        ("layouts: [2024]", "layouts[0]: found a number, expected a mapping of keys"),
        ("layouts: {path: a}", "layouts: found a mapping, expected a list"),
        ("layouts: [{path: '', host: x}]", 'layouts[0].path: found "", expected a string that is not empty'),
        ('layouts: ["a\\0b"]', 'layouts[0].path: found "a\\u0000b", expected a path without NUL'),
        (
            "layouts: [{pth: a, path: b}]",
            "layouts[0].pth: found an unknown key, expected a known one; did you mean path?",
        ),
        ("cache: {maxsize: 1}", "cache.maxsize: found an unknown key, expected a known one; did you mean max_size?"),
        ("zzz: 1", "zzz: found an unknown key, expected one of listen, workers, default_host,"),
        ("tls: {key: config.yaml}", "tls.cert: found nothing, expected a value: this key is needed"),
        ("workers: !auto x", "workers: found a YAML tag, expected a plain value"),
        ("a.b: 1", '["a.b"]: found an unknown key'),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(refuse: Refuse, text: str, problem: str) -> None:
    assert refuse(text).splitlines()[0].startswith(f"config.yaml:1: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1\n", "config.yaml:3: found expected ',' or ']'"),
        ("a: b: c", "config.yaml:1: found mapping values are not allowed here, column 5, expected valid YAML"),
        ("a: 1\n---\nb: 1\n", "config.yaml:2: found but found another document"),
        (
            "a: *b",
            "config.yaml:1: found an alias (*name) that no anchor (&name) defines, column 4, expected valid YAML",
        ),
        ("workers: 1\nx: \x01", "config.yaml:2: found a control character, expected valid YAML"),
        ("- a\n", "config.yaml:1: found a list, expected keys with values"),
        ("a", "config.yaml:1: found a single value, expected keys with values"),
        ("? [a]\n: b", "config.yaml:1: found a list or a mapping as a key, expected a name as a key"),
        ("[" * 5000, "config.yaml: found values nested without end"),
        ("upstreams: &a {quay.io: *a}", 'config.yaml:1: upstreams["quay.io"]: found an alias of what it stands in'),
    ],
)
def test_what_is_no_yaml_of_ours_is_told_with_its_line(refuse: Refuse, text: str, problem: str) -> None:
    assert refuse(text).startswith(problem)


def test_a_key_written_twice_names_both_lines(refuse: Refuse) -> None:
    problems = refuse("cache:\n  path: a\n  max_size: 1GiB\n  path: b\n")
    assert (
        problems == "config.yaml:4: cache.path: found the key again, on line 4 after line 2, expected each key once"
    )


def test_an_alias_bomb_is_refused(refuse: Refuse) -> None:
    lines = ["names: &a0 [x.y, x.y, x.y, x.y, x.y, x.y, x.y, x.y, x.y, x.y]"]
    lines += [f"k{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "nested without end" in refuse("\n".join(lines))


def test_settings_can_be_shared_by_anchor_and_merge(read: Load) -> None:
    text = "upstreams:\n  a.example: &slow {tag_ttl: 1h, retries: 9}\n  b.example: {<<: *slow, retries: 1}\n"
    upstreams = read(text + "  c.example: {<<: [*slow], tag_ttl: 2h}\n  d.example: *slow\n").upstreams
    assert [(up.tag_ttl_seconds, up.retries) for up in upstreams.values()] == [
        (3600, 9),
        (3600, 1),
        (7200, 9),
        (3600, 9),
    ]


def test_variables_are_replaced_anywhere_in_a_string(read: Load) -> None:
    config = read("layouts: ['${A}/x${B}$C', '$${A}', '$A$']", {"A": "one", "B": "", "C": "no"})
    assert [root.path.name for root in config.layouts] == ["x$C", "${A}", "$A$"]
    assert config.layouts[0].path.parent.name == "one"


def test_a_variable_alone_may_be_a_number_a_size_a_duration_or_a_switch(read: Load) -> None:
    text = "{workers: '${W}', metrics: '${M}', refresh: '${R}', cache: {max_size: '${S}'}, unpack_max_size: '${U}'}"
    config = read(text, {"W": "3", "M": "False", "R": "9s", "S": "2GiB", "U": "4096"})
    assert (config.workers, config.metrics, config.refresh_seconds) == (3, False, 9)
    assert (config.cache.max_bytes, config.unpack_max_bytes) == (2 << 30, 4096)


def test_a_variable_that_is_all_digits_is_a_string_where_one_is_wanted(read: Load) -> None:
    text = "upstreams: {quay.io: {username: '${U}', password: '${P}', allow_anonymous: '${T}'}}"
    (upstream,) = read(text, {"U": "1", "P": "007", "T": "true"}).upstreams.values()
    assert upstream.username == "1"
    assert upstream.password is not None
    assert upstream.password.get_secret_value() == "007"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen: '${NOPE}'", "listen: found `${NOPE}`, which is not set in the environment, expected"),
        ("listen: 'a${b-c}'", "listen: found a `${` that begins no `${NAME}`, expected"),
        ("workers: '${N}'", 'workers: found "many" (from `${N}`), expected a whole number'),
        ("workers: '1${EMPTY}'", 'workers: found "1" (from `1${EMPTY}`), expected a whole number'),
        ("listen: '${RAW}'", "listen: found `${RAW}`, whose value is not UTF-8, expected"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(refuse: Refuse, text: str, problem: str) -> None:
    found = refuse(text, {"N": "many", "EMPTY": "", "RAW": "\udcff"})
    assert found.startswith(f"config.yaml:1: {problem}")


SECRET = "hunter2"


@pytest.mark.parametrize(
    "upstream",
    [
        "password: hunter2",
        "password: [hunter2]",
        "password: {hunter2: 1}",
        "password: &hunter2 &hunter2 x",
        "password: *hunter2",
        "password: !hunter2 x",
        'password: "hunter2',
        "password: hunter2: x",
        "token: '${S}'\n    tag_ttl: x",
        "token: '${S}${NOPE}'",
        "pasword: hunter2",
        "hunter2",
        "[hunter2]",
        "proxy: https://joe:hunter2@proxy",
        "proxy: joe:hunter2@proxy",
        "proxy: '${PROXY}'",
        "proxy: 'http://joe:hunter2@proxy:99999'",
        "endpoints: ['https://joe:hun/ter2@x']",
        "endpoints: ['https://joe:hunter2@x', 'https://x?token=hunter2', joe:hunter2@x, 'https://x#hunter2']",
        "endpoints: ['${PROXY}', {url: '${PROXY}'}]",
    ],
)
def test_no_error_shows_a_secret(refuse: Refuse, upstream: str) -> None:
    environment = {"S": SECRET, "PROXY": f"https://joe:{SECRET}@proxy"}
    problems = refuse(f"upstreams:\n  quay.io:\n    {upstream}\n", environment)
    lines = [line for line in problems.splitlines() if SECRET in line or "ter2" in line]
    assert lines == [], problems


def test_a_host_key_with_a_password_in_it_is_not_shown(refuse: Refuse) -> None:
    assert SECRET not in refuse(f"upstreams: {{'https://joe:{SECRET}@quay.io': {{}}}}")


def test_neither_repr_nor_str_show_a_secret(read: Load) -> None:
    text = (
        "upstreams: {quay.io: {username: joe, password: hunter2, proxy: 'http://u:hunter2@p', allow_anonymous: true}}"
    )
    config = read(text)
    assert SECRET not in f"{config!r} {config} {config.upstreams!r} {config.model_dump()}"


KEYS = sorted({*Config.model_fields, *Upstream.model_fields, *LayoutRoot.model_fields, "refresh", "proxy", "tag_ttl"})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["5s", "1GiB", "auto", "a.b", "${X}", "a", ""]),
)
DOCUMENTS = st.recursive(
    SCALARS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYS, "quay.io", "docker.io"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def outcome(read: Load, text: str) -> object:
    """The configuration, or the problems; whatever else is raised is a fault of ours."""
    try:
        return read(text)
    except ConfigError as error:
        return str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(DOCUMENTS)
def test_any_document_is_loaded_or_refused_with_problems(read: Load, document: object) -> None:
    assert outcome(read, yaml.safe_dump(document, allow_unicode=True))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_loaded_or_refused_with_problems(read: Load, text: str) -> None:
    assert outcome(read, text)
