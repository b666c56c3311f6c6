"""The server under test, and the daemons that pull from it: each started once, always stopped."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.clients.commands import Commands, client_environment, daemon
from tests.clients.registries import Registry, hold_port
from tests.clients.sample import LAYOUT
from tests.clients.through import fill
from tests.conftest import require
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


@contextlib.contextmanager
def dockerd(folder: Path, *options: str) -> Iterator[Commands]:
    """Runs `docker` against a dockerd of its own, with all its state in `folder`."""
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
        *options,
    ]
    environment = {**run.environment, "HOME": str(folder / "home")}
    with daemon(command, folder / "dockerd.log", environment, lambda: run.succeeds("docker", "version")):
        yield run


@pytest.fixture(scope="session")
def docker(daemons: Path, server: str) -> Iterator[Commands]:
    """Runs `docker` against a dockerd that has the server as its mirror of docker.io."""
    with dockerd(daemons / "docker", "--registry-mirror", f"http://{server}") as run:
        yield run


@dataclass(frozen=True)
class MirroredDocker:
    """`docker`, whose dockerd asks whatever listens on `port` before docker.io."""

    run: Commands
    port: int


@pytest.fixture(scope="session")
def mirrored_docker(daemons: Path) -> Iterator[MirroredDocker]:
    with hold_port() as held:
        port = held.getsockname()[1]
        with dockerd(daemons / "mirrored", "--registry-mirror", f"http://127.0.0.1:{port}") as run:
            yield MirroredDocker(run, port)


@dataclass(frozen=True)
class Stored:
    """What a registry has on disk, and the digest that `latest` of each repository there names."""

    command: str
    storage: Path
    digests: dict[str, Digest]


@pytest.fixture(scope="session", params=["docker-registry", "registry"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The storage of either version of distribution, filled."""
    require(request.param, "regctl", "skopeo", "crane")
    return Stored(request.param, *fill(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def registry(stored: Stored, tmp_path: Path) -> Iterator[Registry]:
    """A running registry with that content, for everyone to read."""
    with Registry(stored.command, tmp_path, stored.storage) as running:
        running.digests = stored.digests
        yield running


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
