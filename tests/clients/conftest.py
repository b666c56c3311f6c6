"""The server under test, and the daemons that pull from it: each started once, always stopped."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.commands import Commands, client_environment, daemon
from tests.clients.sample import LAYOUT
from tests.server_process import MirrorProcess

# Another registry that holds the sample (`host:port`, plain http): a control, which tells a fault of the mirror
# from one of the harness.
CONTROL = os.environ.get("CLIENTS_REGISTRY")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a mirror that serves the sample three times: as `hello`, and as two other hosts' content."""
    if CONTROL:
        yield CONTROL
        return
    folder = tmp_path_factory.mktemp("served")
    for name in ("hello", "quay.io/team/hello", "docker.io/library/hello"):
        shutil.copytree(LAYOUT, folder / "layouts" / name)
    with MirrorProcess(folder / "mirror.log", "--layouts", str(folder / "layouts")) as mirror:
        yield mirror.host
        # Clients try TLS first, hang up early and ask for what is not there: nothing to trouble an operator with.
        assert [event for event in mirror.events() if event["level"] not in ("info", "debug")] == []


@pytest.fixture
def mirror(server: str) -> str:
    """The same, for tests of what only the mirror does."""
    if CONTROL:
        pytest.skip("the control is no mirror")
    return server


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path: podman takes a runroot of at most 50 characters."""
    with tempfile.TemporaryDirectory(prefix="mirror-home-") as folder:
        yield Path(folder)


@pytest.fixture
def run(home: Path) -> Commands:
    """Runs a client with a home of its own."""
    return Commands(client_environment(home))


@pytest.fixture(scope="session")
def daemons() -> Iterator[Path]:
    """A folder with a short path: a socket's has at most 107 bytes (unix(7))."""
    if os.geteuid() != 0:
        reason = "dockerd and containerd need root"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") else pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="mirror-clients-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def docker(daemons: Path, server: str) -> Iterator[Commands]:
    """Runs `docker` against a dockerd that has the server as its mirror of docker.io."""
    folder = daemons / "docker"
    run = Commands({**client_environment(folder / "home"), "DOCKER_HOST": f"unix://{folder}/docker.sock"})
    settings = folder / "daemon.json"
    settings.write_text("{}")
    command = [
        "dockerd",
        *("--config-file", str(settings)),
        *("--host", run.environment["DOCKER_HOST"]),
        *("--data-root", str(folder / "data")),
        *("--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "docker.pid")),
        *("--storage-driver=vfs", "--bridge=none", "--iptables=false", "--ip6tables=false"),
        *("--registry-mirror", f"http://{server}"),
    ]
    environment = {**run.environment, "HOME": str(folder / "home")}
    with daemon(command, folder / "dockerd.log", environment, lambda: run.succeeds("docker", "version")):
        yield run


@dataclass(frozen=True)
class Containerd:
    """A running containerd. Calling it runs `ctr` in a namespace of its own."""

    run: Commands
    address: Path

    def __call__(self, *command: str | Path, namespace: str = "test") -> str:
        return self.run("ctr", "--address", self.address, "--namespace", namespace, *command)


@pytest.fixture(scope="session")
def containerd(daemons: Path) -> Iterator[Containerd]:
    folder = daemons / "containerd"
    folder.mkdir()
    run = Commands(client_environment(folder / "home"))
    address = folder / "containerd.sock"
    settings = folder / "config.toml"
    settings.write_text(
        f"""version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{address}"
[ttrpc]
  address = "{address}.ttrpc"
"""
    )
    ctr = Containerd(run, address)
    with daemon(
        ["containerd", "--config", str(settings)],
        folder / "containerd.log",
        run.environment,
        lambda: run.succeeds("ctr", "--address", str(address), "version"),
    ):
        yield ctr
