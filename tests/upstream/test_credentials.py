"""Credentials from files, docker's configuration and its helpers."""

import asyncio
import base64
import json
from pathlib import Path
from time import monotonic

import pytest

from mirror.upstream.credentials import (
    Anonymous,
    Credentials,
    CredentialsUnreadable,
    FileCredentials,
)
from mirror.upstream.docker_config import DockerConfigCredentials, HelperCredentials, ask_helper, default_path

SECRET = "secret-swordfish"
EXPECTED = Credentials("someone", SECRET)


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_anonymous_is_nobody() -> None:
    assert await Anonymous().get() is None


async def test_a_file_holds_a_password_or_a_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(f"someone:{SECRET}\n")
    assert await FileCredentials(file).get() == EXPECTED
    file.write_text(f"{SECRET}:with:colons\n")
    assert await FileCredentials(file, "someone").get() == Credentials("someone", f"{SECRET}:with:colons")


async def test_a_file_is_read_again_when_its_content_was_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    credentials = FileCredentials(file, "someone")
    assert await credentials.get() == Credentials("someone", "old")
    file.write_text(SECRET)
    assert await credentials.get() == Credentials("someone", "old")
    assert await credentials.get(fresh=True) == EXPECTED
    assert await credentials.get() == EXPECTED


async def test_a_file_that_cannot_be_used_is_named_without_its_content(tmp_path: Path) -> None:
    with pytest.raises(CredentialsUnreadable, match="absent"):
        await FileCredentials(tmp_path / "absent").get()
    file = tmp_path / "file"
    file.write_text(SECRET)
    with pytest.raises(CredentialsUnreadable) as error:
        await FileCredentials(file).get()
    assert SECRET not in str(error.value)


def config(tmp_path: Path, **document: object) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("registry.example", "registry.example"),
        ("registry.example", "https://registry.example"),
        ("registry.example", "https://registry.example/v2/"),
        ("registry.example:5000", "registry.example:5000"),
        ("docker.io", "https://index.docker.io/v1/"),
        ("docker.io", "docker.io"),
    ],
)
async def test_hosts_are_found_as_docker_writes_them(tmp_path: Path, host: str, key: str) -> None:
    auths = {"other.example": {"auth": basic("x:y")}, key: {"auth": basic(f"someone:{SECRET}")}}
    assert await DockerConfigCredentials(host, config(tmp_path, auths=auths)).get() == EXPECTED


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "someone", "password": SECRET}, EXPECTED),
        ({"identitytoken": SECRET}, Credentials(identity_token=SECRET)),
        ({"registrytoken": SECRET}, Credentials(registry_token=SECRET)),
        ({}, None),
    ],
)
async def test_entries_of_auths(tmp_path: Path, entry: object, expected: Credentials | None) -> None:
    file = config(tmp_path, auths={"registry.example": entry})
    assert await DockerConfigCredentials("registry.example", file).get() == expected


async def test_an_unknown_host_is_anonymous(tmp_path: Path) -> None:
    file = config(tmp_path, auths={"other.example": {"auth": basic("x:y")}})
    assert await DockerConfigCredentials("registry.example", file).get() is None


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"registry.example": {"auth": "secret-§"}}}'])
async def test_a_broken_configuration_is_told_without_its_content(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(CredentialsUnreadable) as error:
        await DockerConfigCredentials("registry.example", file).get()
    assert "secret" not in str(error.value)


def test_dockers_own_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert default_path() == tmp_path / "config.json"
    monkeypatch.delenv("DOCKER_CONFIG")
    assert default_path() == Path.home() / ".docker" / "config.json"


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in PATH, for helper programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def write_helper(folder: Path, name: str, script: str) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


ANSWERING = f"""
read host
echo "$host $*" >> "$(dirname "$0")/asked"
printf '{{"ServerURL": "%s", "Username": "someone", "Secret": "{SECRET}"}}' "$host"
"""


async def test_a_helper_is_asked_with_the_host_on_its_input(helpers: Path, tmp_path: Path) -> None:
    write_helper(helpers, "test", ANSWERING)
    stored = DockerConfigCredentials("registry.example:5000", config(tmp_path, credsStore="test"))
    assert await stored.get() == EXPECTED
    helper = {"credsStore": "absent", "credHelpers": {"docker.io": "test"}}
    assert await DockerConfigCredentials("docker.io", config(tmp_path, **helper)).get() == EXPECTED
    assert await HelperCredentials("ecr.example", "test").get() == EXPECTED
    asked = (helpers / "asked").read_text().splitlines()
    assert asked == ["registry.example:5000 get", "https://index.docker.io/v1/ get", "ecr.example get"]


async def test_many_askers_run_a_helper_once_each_time(helpers: Path) -> None:
    write_helper(helpers, "test", ANSWERING)
    credentials = HelperCredentials("registry.example", "test")
    assert await asyncio.gather(*[credentials.get() for _ in range(5)]) == [EXPECTED] * 5
    assert await asyncio.gather(*[credentials.get(fresh=True) for _ in range(5)]) == [EXPECTED] * 5
    assert len((helpers / "asked").read_text().splitlines()) == 2


async def test_a_helper_may_give_an_identity_token_or_none(helpers: Path) -> None:
    write_helper(helpers, "token", f'printf \'{{"Username": "<token>", "Secret": "{SECRET}"}}\'')
    assert await ask_helper("token", "registry.example") == Credentials(identity_token=SECRET)
    write_helper(helpers, "none", "echo 'credentials not found in native keychain'; exit 1")
    assert await ask_helper("none", "registry.example") is None


@pytest.mark.parametrize(
    "script",
    [f"echo {SECRET}; exit 3", f"echo {SECRET}", "echo '{}'", f"echo '{SECRET}' >&2; exit 1", "exit 0", "kill -9 $$"],
)
async def test_a_failing_helper_is_told_without_what_it_wrote(helpers: Path, script: str) -> None:
    write_helper(helpers, "test", script)
    with pytest.raises(CredentialsUnreadable, match="docker-credential-test") as error:
        await ask_helper("test", "registry.example")
    assert SECRET not in str(error.value)


async def test_a_helper_that_hangs_is_ended_with_all_that_it_started(helpers: Path) -> None:
    write_helper(helpers, "test", "sleep 60 & wait")
    started = monotonic()
    with pytest.raises(CredentialsUnreadable, match="did not answer"):
        await ask_helper("test", "registry.example", 0.3)
    assert monotonic() - started < 30


@pytest.mark.parametrize("name", ["absent-helper", "../evil", "a/b", "", "-x", "a b"])
async def test_a_helper_that_cannot_be_run_is_told(name: str) -> None:
    with pytest.raises(CredentialsUnreadable):
        await ask_helper(name, "registry.example")
