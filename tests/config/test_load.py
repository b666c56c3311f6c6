import contextlib
import os
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from mirror.config import Address, Config, ConfigError, load
from mirror.oci.names import Host
from tests.config.conftest import Load, Refuse


def test_without_a_file_the_folder_layouts_is_served(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        config = load(None)
    assert [root.path for root in config.layouts] == [tmp_path / "layouts"]
    assert config.cache.path == tmp_path / "cache"
    assert config.listen == Address("127.0.0.1", 5000)
    assert config.source is None
    assert not config.upstreams


def test_the_file_of_the_working_directory_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("workers: 3")
    with contextlib.chdir(tmp_path):
        config = load(None)
    assert config.workers == 3
    assert config.source == tmp_path / "config.yaml"
    assert config.layouts == ()


EVERY_PART = """\
listen: 127.0.0.1:5000
workers: 1
default_host: docker.io
names: []                  # host names of this mirror itself
refresh: 5s
tls: {cert: tls.crt, key: tls.key}      # optional; reread on SIGHUP
layouts:
  - path: layouts          # optional: prefix: team · host: docker.io · coalesce: false
cache: {path: cache, max_size: 50GiB}
upstreams:
  docker.io: {tag_ttl: 60s}
  quay.io: {}
  registry.corp.example: {endpoints: ["https://a.corp.example", "https://b.corp.example"],
    realms: [auth.corp.example], ca: corp.pem}
"""


def test_a_configuration_with_every_part_means_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(EVERY_PART)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "config.yaml")
    assert [problem.path[-1] for problem in caught.value.problems] == ["cert", "key", "ca"]
    for name in ("tls.crt", "tls.key", "corp.pem"):
        (tmp_path / name).touch()
    config = load(tmp_path / "config.yaml")
    assert (config.listen, config.worker_count, config.default_host, config.names) == (
        Address("127.0.0.1", 5000), 1, "docker.io", (),
    )  # fmt: skip
    assert (config.refresh_seconds, config.cache.path, config.cache.max_bytes) == (5, tmp_path / "cache", 50 << 30)
    assert config.tls is not None
    assert (config.tls.cert, config.tls.key) == (tmp_path / "tls.crt", tmp_path / "tls.key")
    (root,) = config.layouts
    assert (root.path, root.prefix, root.host, root.coalesce) == (tmp_path / "layouts", None, None, True)
    hub, quay, corp = (config.upstreams[Host(host)] for host in ("docker.io", "quay.io", "registry.corp.example"))
    assert [one.url for one in hub.endpoints] == ["https://registry-1.docker.io"]
    assert (hub.realms, hub.tag_ttl_seconds) == (("auth.docker.io",), 60)
    assert ([one.url for one in quay.endpoints], quay.realms) == (["https://quay.io"], ())
    assert [one.url for one in corp.endpoints] == ["https://a.corp.example", "https://b.corp.example"]
    assert (corp.realms, corp.ca) == (("auth.corp.example",), tmp_path / "corp.pem")


def test_a_dangling_link_as_config_is_an_error_and_no_default(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to("gone.yaml")
    with contextlib.chdir(tmp_path), pytest.raises(ConfigError, match="no such file"):
        load(None)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "layouts:\n", "\ufeff"])
def test_an_empty_file_is_valid_and_serves_no_layouts(read: Load, text: str) -> None:
    assert read(text).layouts == ()


def test_paths_of_a_file_are_relative_to_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "mirror.yaml").write_text("{layouts: [a, ../b, /c], cache: {path: d}}")
    with contextlib.chdir(tmp_path):
        config = load(Path("etc/mirror.yaml"))
    assert [root.path for root in config.layouts] == [folder / "a", folder / "../b", Path("/c")]
    assert config.cache.path == folder / "d"
    assert config.source == folder / "mirror.yaml"


def test_paths_are_relative_to_where_a_linked_file_was_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/config.yaml").write_text("layouts: [a]")
    (tmp_path / "config.yaml").symlink_to("data/config.yaml")
    assert load(tmp_path / "config.yaml").layouts[0].path == tmp_path / "a"


def test_a_path_may_begin_at_home(read: Load) -> None:
    assert read("layouts: [~/images]").layouts[0].path == Path.home() / "images"


def test_the_command_line_replaces_values_and_its_paths_begin_at_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/c.yaml").write_text(
        "{layouts: [a], cache: {path: b, max_size: 1GiB}, workers: 2, listen: 'a:1'}"
    )
    with contextlib.chdir(tmp_path):
        config = load(Path("etc/c.yaml"), layouts=["x", "/y"], cache="z", listen="[::1]:0", workers="auto")
    assert [root.path for root in config.layouts] == [tmp_path / "x", Path("/y")]
    assert config.cache.path == tmp_path / "z"
    assert config.cache.max_bytes == 1 << 30
    assert config.listen == Address("::1", 0)
    assert str(config.listen) == "[::1]:0"
    assert config.worker_count >= 1


def test_what_the_command_line_replaces_need_not_be_right(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{layouts: 5, workers: many}")
    assert load(tmp_path / "c.yaml", layouts=["x"], workers="4").worker_count == 4


def test_a_dollar_on_the_command_line_is_a_dollar(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        assert load(None, layouts=["${HOME}"]).layouts[0].path == tmp_path / "${HOME}"


def test_problems_of_the_command_line_name_the_option(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(ConfigError) as caught:
        load(None, listen="here", workers="0", cache="", layouts=["a", "./a"])
    assert [problem.origin for problem in caught.value.problems] == ["--listen", "--workers", "--cache", "--layouts"]
    assert str(caught.value).startswith('--listen: listen: found "here", expected an address')


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nope\.yaml: found no such file or directory, expected a readable"
    ) as caught:
        load(tmp_path / "nope.yaml")
    assert caught.value.exit_status == 2


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found a directory"):
        load(tmp_path)


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="found too many levels of symbolic links"):
        load(tmp_path / "loop")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read_are_errors(tmp_path: Path) -> None:
    (tmp_path / "key").touch(0)
    (tmp_path / "config.yaml").write_text("tls: {cert: key, key: key}")
    with pytest.raises(ConfigError, match="that this user may read"):
        load(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="permission denied"):
        load(tmp_path / "key")


def test_bytes_that_are_not_utf8_are_an_error_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"workers: 1\nlisten: \xff\n")
    with pytest.raises(ConfigError, match=r"c.yaml:2: found bytes that are not UTF-8"):
        load(tmp_path / "c.yaml")


def test_a_file_without_end_is_an_error() -> None:
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        load(Path("/dev/zero"))


def test_a_config_is_frozen_and_travels_to_other_processes(read: Load) -> None:
    config = read("{layouts: [a], upstreams: {quay.io: {username: a, password: b, allow_anonymous: true}}}")
    with pytest.raises(ValidationError, match="frozen"):
        config.workers = 2  # type: ignore[misc]  # that it cannot be is the test
    copy = pickle.loads(pickle.dumps(config))  # noqa: S301  our own bytes
    assert isinstance(copy, Config)
    assert copy == config
    assert copy.source == config.source


def test_a_missing_folder_of_layouts_is_no_error(read: Load) -> None:
    assert not read("layouts: [nowhere]").layouts[0].path.exists()


def test_a_root_takes_prefix_host_and_coalesce(read: Load) -> None:
    first, second = read("layouts: [{path: a, prefix: team/base, host: Index.Docker.io, coalesce: false}, b]").layouts
    assert (first.prefix, first.host, first.coalesce) == ("team/base", "docker.io", False)
    assert (second.prefix, second.host, second.coalesce) == (None, None, True)


def test_the_same_folder_twice_is_an_error_in_whatever_spelling(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    problems = refuse("layouts:\n- a\n- b\n- ./b/../a/\n- link\n").splitlines()
    assert problems == [
        "config.yaml:4: layouts[2].path: found b/../a, which is layouts[0] too, expected each folder once",
        "config.yaml:5: layouts[3].path: found link, which is layouts[0] too, expected each folder once",
    ]


@pytest.mark.parametrize("cache", ["a", "a/cache", "link/cache", "a/../a/x"])
def test_a_cache_inside_the_layouts_is_an_error(refuse: Refuse, tmp_path: Path, cache: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert "the cache would be searched" in refuse(f"{{layouts: [b, a], cache: {{path: {cache}}}}}")


def test_layouts_inside_the_cache_are_an_error(refuse: Refuse) -> None:
    assert refuse("{layouts: [cache/x]}").startswith(
        "config.yaml:1: layouts[0].path: found cache/x, inside the cache"
    )


def test_folders_whose_names_only_begin_alike_are_apart(read: Load) -> None:
    assert read("{layouts: [a, cache2], cache: {path: a2}}").cache.path.name == "a2"


def test_a_cache_that_is_a_file_is_an_error(refuse: Refuse) -> None:
    assert "found config.yaml, which is no folder" in refuse("cache: {path: config.yaml}")
