"""The servers that are compared, each a process of its own on a free port of loopback."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.content import Content
from tests.server_process import MIRROR

START_SECONDS = 60
PROXIED = "up.bench"
LOGGING = "2 workers, access log"
SENDER = "sender of one buffer"
_DISTRIBUTIONS = (("distribution 2.8", "docker-registry"), ("distribution 3", "registry"))


@contextmanager
def running(folder: Path, content: Content, big_bytes: int) -> Iterator[dict[str, int]]:
    """All servers that are installed here: their ports by name. nginx serves `folder`/static."""
    with ExitStack() as stack:
        ports = {}
        for name in distributions():
            ports[name] = stack.enter_context(distribution(folder, name))
        upstream = next(iter(ports.values()), None)
        mirrors: dict[str, dict[str, object]] = {
            "mirror, 1 worker": {"workers": 1},
            "mirror, 2 workers": {"workers": 2},
            LOGGING: {"workers": 2, "access_log": True},
        }
        for name, settings in mirrors.items():
            ports[name] = stack.enter_context(mirror(folder, [content.layouts], upstream, **settings)).port
        if shutil.which("nginx"):
            ports["nginx"] = stack.enter_context(nginx(folder, folder / "static"))
        ports[SENDER] = port = _free_port()
        for _ in range(2):
            command = [sys.executable, "-m", "tests.bench.sender", str(port), str(big_bytes)]
            stack.enter_context(_process(command, folder, port))
        yield ports


@dataclass(frozen=True)
class Mirror:
    """A mirror of the bench, as a process of its own."""

    port: int
    pid: int


def distributions() -> dict[str, str]:
    """The versions of distribution that are installed here, by name, with their program."""
    found = {
        name: shutil.which(command) or shutil.which(command, path=str(Path.home() / "go/bin"))
        for name, command in _DISTRIBUTIONS
    }
    return {name: program for name, program in found.items() if program}


@contextmanager
def mirror(folder: Path, layouts: Sequence[Path], upstream: int | None, **settings: object) -> Iterator[Mirror]:
    """One with a cache of its own; `settings` as in config.yaml. `PROXIED` is the registry on port `upstream`."""
    port = _free_port()
    config = folder / f"mirror-{port}.json"
    document = {
        "listen": f"127.0.0.1:{port}",
        "layouts": list(map(str, layouts)),
        "cache": {"path": str(folder / f"cache-{port}")},
        "upstreams": {PROXIED: {"endpoints": [f"http://127.0.0.1:{upstream}"]}} if upstream else {},
        **settings,
    }
    config.write_text(json.dumps(document))
    with _process([str(MIRROR), "serve", "--config", str(config)], folder, port) as process:
        yield Mirror(port, process.pid)


@contextmanager
def distribution(folder: Path, name: str, upstream: int | None = None) -> Iterator[int]:
    """One of `distributions`, on the port given: over `folder`/registry, or a cache before the port `upstream`."""
    port = _free_port()
    config = folder / f"{name}.{port}.yml"
    storage = folder / ("registry" if upstream is None else f"{name}.{port}")
    document = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        # As most run it: what it has looked up stays in memory.
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
        **({} if upstream is None else {"proxy": {"remoteurl": f"http://127.0.0.1:{upstream}"}}),
    }
    config.write_text(json.dumps(document))
    with _process([distributions()[name], "serve", str(config)], folder, port):
        yield port


@contextmanager
def nginx(folder: Path, root: Path) -> Iterator[int]:
    """A file server of `root`, which must be readable for everybody: its workers give up root. Gives its port."""
    port = _free_port()
    config = folder / f"nginx-{port}.conf"
    config.write_text(
        f"""worker_processes 2; daemon off; pid {folder}/nginx-{port}.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; open_file_cache max=1000;
  default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port} reuseport; root {root}; try_files $uri $uri/index =404; }}
}}
"""
    )
    with _process([shutil.which("nginx") or "nginx", "-c", str(config), "-p", str(folder)], folder, port):
        yield port


@contextmanager
def _process(command: Sequence[str], folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Raises RuntimeError where nobody listens in time."""
    with (folder / f"{Path(command[0]).name}-{port}.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not listen: see {log.name}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
