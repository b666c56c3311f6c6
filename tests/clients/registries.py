"""distribution, the registry that most others are made from, as an upstream: Debian's 2.8 and v3."""

import contextlib
import http.client
import os
import re
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirror.oci.digest import Digest
from tests.clients.commands import daemon

USER, PASSWORD = "puller", "wonderland"
# `htpasswd -Bbn -C 5 puller wonderland`: distribution takes bcrypt only.
_HTPASSWD = "puller:$2y$05$9TnqsPm4mbKpq9xwF88GS.0/A/APkG8sYYezOZdxmH6CHl8KgRbBu\n"
# One line of the combined log format, which both versions write among their own lines.
_ACCESS = re.compile(
    r'^\S+ - \S* \[[^]]*\] "([A-Z]+) ([^ ?"]+)\??([^ "]*) HTTP/1\.[01]" (\d{3}) (\d+) "[^"]*" "([^"]*)"'
)


@dataclass(frozen=True)
class Access:
    """One line of a registry's access log."""

    method: str
    path: str
    query: str
    status: int
    bytes: int
    agent: str


def hold_port() -> socket.socket:
    """A socket of loopback that never listens: while it is open, nobody else is given its port.

    Who is told the port can listen there beside it, with SO_REUSEADDR, as registries and the mirror have it.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Registry:
    """`command` is `docker-registry` (2.8) or `registry` (v3). `auth` as in distribution's configuration.

    A context. Within it, it keeps its port and its storage over `stop` and `start`. The log holds what came since the
    first start.
    """

    def __init__(self, command: str, folder: Path, storage: Path, auth: dict[str, Any] | None = None) -> None:
        self.command = command
        # What `latest` of each repository in the storage names, where the tests know it.
        self.digests: dict[str, Digest] = {}
        self._held = hold_port()
        port = self._held.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        self._log = folder / f"{command}-{port}.log"
        self._config = self._log.with_suffix(".yml")
        settings: dict[str, Any] = {
            "version": 0.1,
            "storage": {"filesystem": {"rootdirectory": str(storage)}},
            "http": {"addr": self.host},
        }
        if auth is not None:
            settings["auth"] = auth
        self._config.write_text(yaml.safe_dump(settings))
        self._stack = contextlib.ExitStack()
        self._starts = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def start(self) -> None:
        """Raises AssertionError when it does not come up."""
        self._starts += 1
        log = self._log.with_suffix(f".{self._starts}.log")
        # v3 would send traces to a collector on this machine.
        environment = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
        command = [self.command, "serve", str(self._config)]
        self._stack.enter_context(daemon(command, log, environment, self._answers))

    def stop(self) -> None:
        """Connections are refused from here on."""
        self._stack.close()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.host, timeout=5)
        try:
            connection.request("GET", "/v2/", headers={"User-Agent": "is it up"})
            return connection.getresponse().status in (200, 401)
        except OSError:
            return False
        finally:
            connection.close()

    def accesses(self) -> list[Access]:
        """All requests so far, but those that ask whether it is up."""
        found = []
        for start in range(1, self._starts + 1):
            for line in self._log.with_suffix(f".{start}.log").read_text(errors="replace").splitlines():
                if match := _ACCESS.match(line):
                    method, path, query, status, size, agent = match.groups()
                    if agent != "is it up":
                        found.append(Access(method, path, query, int(status), int(size), agent))
        return found

    def blobs_sent(self) -> Counter[str]:
        """How often each blob, or a range of it, was sent: by the digest in its path."""
        return Counter(
            access.path.rpartition("/")[2]
            for access in self.accesses()
            if access.method == "GET" and "/blobs/" in access.path and access.status in (200, 206)
        )

    def __enter__(self) -> "Registry":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._held.close()


def basic_auth(folder: Path) -> dict[str, Any]:
    """The `auth` of a registry that knows one user, USER."""
    users = folder / "htpasswd"
    users.write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "tests", "path": str(users)}}
