"""Credentials of `docker login`: config.json with `auths`, `credHelpers`, `credsStore`, and the helper programs.

The file: docs.docker.com/reference/cli/docker/login; the helpers: github.com/docker/docker-credential-helpers.
"""

import asyncio
import base64
import binascii
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirror.oci.names import DOCKER_HUB, normalize_host
from mirror.upstream.credentials import CachedCredentials, Credentials, CredentialsUnreadable, read_text

# Under which Docker keeps the Hub's credentials, since long before registries had a second version.
HUB_KEY = "https://index.docker.io/v1/"
# A program that hangs must not keep the mirror from stopping for longer than that.
HELPER_TIMEOUT_SECONDS = 15.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What a helper gives as the user's name when the secret is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 a marker


def default_path() -> Path:
    """Where `docker login` writes: `$DOCKER_CONFIG`, else `~/.docker`."""
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder) / "config.json" if folder else Path("~/.docker/config.json").expanduser()


class DockerConfigCredentials(CachedCredentials):
    """What docker would send to `host`. A host that the file does not name is anonymous."""

    def __init__(self, host: str, path: Path | None = None) -> None:
        super().__init__()
        self._host = normalize_host(host)
        self._path = path or default_path()

    async def read(self) -> Credentials | None:
        """The host's helper, else the store, else `auths`, in docker's order. Raises CredentialsUnreadable."""
        text = await asyncio.to_thread(read_text, self._path)
        try:
            document = json.loads(text)
        except ValueError:
            raise CredentialsUnreadable(f"{self._path} is not JSON") from None
        if not isinstance(document, dict):
            raise CredentialsUnreadable(f"{self._path} is not a docker configuration")
        helper = self._lookup(document.get("credHelpers")) or document.get("credsStore")
        if isinstance(helper, str) and helper:
            found = await ask_helper(helper, self._host)
            if found is not None:
                return found
        entry = self._lookup(document.get("auths"))
        return _from_entry(entry, self._path) if isinstance(entry, dict) else None

    def _lookup(self, section: Any) -> Any:
        """A host's entry; keys may be hosts or, from old clients, URLs."""
        if not isinstance(section, dict):
            return None
        return next((value for key, value in section.items() if _host_of(key) == self._host), None)


class HelperCredentials(CachedCredentials):
    """Always asks the helper program `docker-credential-<name>`."""

    def __init__(self, host: str, name: str) -> None:
        super().__init__()
        self._host = normalize_host(host)
        self._name = name

    async def read(self) -> Credentials | None:
        return await ask_helper(self._name, self._host)


def _host_of(key: str) -> str:
    return normalize_host(key.removeprefix("https://").removeprefix("http://").partition("/")[0])


def _from_entry(entry: Mapping[str, Any], path: Path) -> Credentials | None:
    identity, registry = entry.get("identitytoken"), entry.get("registrytoken")
    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        try:
            decoded = base64.b64decode(entry["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
            raise CredentialsUnreadable(f"an `auth` in {path} is not base64 of username:password") from None
        username, _, password = decoded.partition(":")
        password = password.rstrip("\0")
    if not (username or identity or registry):
        return None
    return Credentials(str(username), str(password), identity or None, registry or None)


async def ask_helper(name: str, host: str, timeout_seconds: float = HELPER_TIMEOUT_SECONDS) -> Credentials | None:
    """Run `docker-credential-<name> get`; the host goes to its standard input.

    None where the helper knows no credentials for the host. Raises CredentialsUnreadable; what the helper wrote is
    never part of the text.
    """
    if not _HELPER_NAME.fullmatch(name):
        raise CredentialsUnreadable("a credential helper's name has letters, digits, dots and dashes only")
    question = HUB_KEY if host == DOCKER_HUB else host
    # In a thread: starting a program opens files and copies this process's memory map.
    return await asyncio.to_thread(_run_helper, f"docker-credential-{name}", question, timeout_seconds)


def _run_helper(program: str, question: str, timeout_seconds: float) -> Credentials | None:
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        # A session of its own, so that what it starts ends with it: it could hold the pipe open.
        process = subprocess.Popen(  # noqa: S603 the operator configured the program
            [program, "get"], stdin=pipe, stdout=pipe, stderr=null, start_new_session=True
        )
    except OSError as error:
        raise CredentialsUnreadable(f"{program} cannot be run: {error.strerror}") from None
    with process:
        try:
            output, _ = process.communicate(f"{question}\n".encode(), timeout_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise CredentialsUnreadable(f"{program} did not answer in {timeout_seconds:g} s") from None
    return _from_helper(program, process.returncode, output)


def _from_helper(program: str, status: int, output: bytes) -> Credentials | None:
    if status != 0:
        # The protocol's own text for "none", on standard output, with status 1.
        if b"credentials not found" in output:
            return None
        raise CredentialsUnreadable(f"{program} failed with status {status}")
    try:
        document = json.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError):
        raise CredentialsUnreadable(f"{program} answered something that is no credentials") from None
    if username == _TOKEN_USER:
        return Credentials(identity_token=str(secret))
    return Credentials(str(username), str(secret))
