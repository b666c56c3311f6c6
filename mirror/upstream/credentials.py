"""Who we are to an upstream: credentials from the configuration (where `${NAME}` is the environment's) or a file.

Docker's own configuration and its helpers are in `docker_config`.
"""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class CredentialsUnreadable(Exception):
    """The credentials cannot be had. The text names the place, never its content."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password; or an identity token (OAuth2's refresh token); or a token that the registry takes as is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str | None = field(default=None, repr=False)
    registry_token: str | None = field(default=None, repr=False)


class CredentialsProvider(Protocol):
    """Where credentials come from."""

    async def get(self, *, fresh: bool = False) -> Credentials | None:
        """None: anonymous. `fresh`: the last ones were refused; read again. Raises CredentialsUnreadable."""
        ...


class Anonymous:
    """No credentials."""

    async def get(self, *, fresh: bool = False) -> Credentials | None:
        return None


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """Those that the configuration holds."""

    credentials: Credentials

    async def get(self, *, fresh: bool = False) -> Credentials | None:
        return self.credentials


class CachedCredentials(ABC):
    """Reads on first use, and again when asked for fresh ones. Many askers cause one reading."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._read = False
        self._credentials: Credentials | None = None
        self._readings = 0

    async def get(self, *, fresh: bool = False) -> Credentials | None:
        """What was read; with `fresh`, what is read now. Raises CredentialsUnreadable."""
        seen = self._readings
        async with self._lock:
            # Whoever waited for somebody else's reading has what is fresh.
            if not self._read or (fresh and seen == self._readings):
                self._credentials = await self.read()
                self._read = True
                self._readings += 1
            return self._credentials

    @abstractmethod
    async def read(self) -> Credentials | None:
        """What stands there now. Raises CredentialsUnreadable."""


class FileCredentials(CachedCredentials):
    """A file with the password of `username`, or, without that, one line `username:password`."""

    def __init__(self, path: Path, username: str | None = None) -> None:
        super().__init__()
        self._path = path
        self._username = username

    async def read(self) -> Credentials | None:
        text = (await asyncio.to_thread(read_text, self._path)).rstrip("\r\n")
        if self._username is not None:
            return Credentials(self._username, text)
        username, colon, password = text.partition(":")
        if not colon:
            raise CredentialsUnreadable(f"{self._path} is not one line username:password")
        return Credentials(username, password)


def read_text(path: Path) -> str:
    """A small secret file's text. Raises CredentialsUnreadable."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(1024 * 1024)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CredentialsUnreadable(f"{path} cannot be read: {reason}") from None
