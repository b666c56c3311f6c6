import json
from pathlib import Path

import pytest
import yaml

from mirror.cli.check_config import run

SECRETS = """\
upstreams:
  quay.io: {username: joe, password: hunter2, proxy: 'http://joe:hunter2@proxy:3128', allow_anonymous: true}
  ghcr.io: {token: hunter2, tag_ttl: 90s, allow_anonymous: true}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SECRETS)
    return path


def test_the_effective_configuration_is_printed_with_every_key(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(config, layouts=["/images"], workers="2") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"# from {config}\n")
    document = yaml.safe_load(output)
    assert document["layouts"] == [{"path": "/images", "prefix": None, "host": None, "coalesce": True}]
    assert (document["workers"], document["refresh"], document["cache"]["max_size"]) == (2, "5s", "50GiB")
    assert document["upstreams"]["ghcr.io"]["tag_ttl"] == "90s"
    assert document["upstreams"]["ghcr.io"]["endpoints"][0]["url"] == "https://ghcr.io"


@pytest.mark.parametrize("as_json", [False, True])
def test_secrets_are_masked(config: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    assert run(config, as_json=as_json) == 0
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    upstreams = yaml.safe_load(captured.out)["upstreams"]
    assert (upstreams["quay.io"]["password"], upstreams["ghcr.io"]["token"]) == ("***", "***")
    assert upstreams["quay.io"]["proxy"] == "http://***@proxy:3128"


def test_json_says_the_same_as_yaml(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config)
    as_yaml = yaml.safe_load(capsys.readouterr().out)
    run(config, as_json=True)
    assert json.loads(capsys.readouterr().out) == as_yaml


def test_what_is_printed_is_a_configuration_that_means_the_same(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config)
    first = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text(first)
    assert run(tmp_path / "again.yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(first)


def test_problems_go_to_stderr_with_exit_status_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("workers: 0\nrefresh: 5\n")
    assert run(config) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(": found")[0] for line in captured.err.splitlines()] == [
        f"{config}:1: workers",
        f"{config}:2: refresh",
    ]


def test_problems_as_json_are_a_document_with_exit_status_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("upstreams: {quay.io: {tag_ttl: 60}}")
    assert run(config, as_json=True) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["path"] == 'upstreams["quay.io"].tag_ttl'
    assert (problem["origin"], problem["line"], problem["found"]) == (str(config), 1, "60")
