"""Signatures, attestations and SBOMs are found through the mirror by cosign, oras, regctl and crane."""

import contextlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.commands import Commands
from tests.clients.registries import Registry
from tests.clients.signing import BY_SUBJECT, BY_TAG, TOOLS, Pushed, Signer
from tests.clients.through import mirroring, quiet, upstream
from tests.hub import Hub
from tests.hub.beside import Beside
from tests.server_process import MirrorProcess

pytestmark = pytest.mark.client(*TOOLS)


@dataclass(frozen=True)
class Origin:
    """A registry that takes pushes, and how to stop it."""

    host: str
    stop: Callable[[], None]


@pytest.fixture
def signer(run: Commands) -> Signer:
    return Signer(run)


@contextlib.contextmanager
def hub() -> Iterator[Origin]:
    """A registry with the referrers API."""
    with Beside() as beside:
        opened = beside.open(Hub())
        yield Origin(opened.host, lambda: beside.run(opened.refuse()))


@contextlib.contextmanager
def distribution(command: str, folder: Path) -> Iterator[Origin]:
    """A registry without it."""
    with Registry(command, folder, folder / "storage") as registry:
        yield Origin(registry.host, registry.stop)


@pytest.mark.client("docker-registry", "registry")
@pytest.mark.parametrize(("kind", "workers"), [("hub", 2), ("docker-registry", 1), ("registry", 2)])
def test_they_are_found_of_an_upstream_cold_warm_when_it_is_gone_and_after_a_restart(
    signer: Signer, tmp_path: Path, kind: str, workers: int
) -> None:
    with hub() if kind == "hub" else distribution(kind, tmp_path) as origin:
        pushed = signer.push(origin.host)
        upstreams = {"quay.io": upstream(f"http://{origin.host}")}

        def finds(mirror: MirrorProcess) -> None:
            signer.finds(f"{mirror.host}/quay.io", pushed)

        with mirroring(tmp_path / "mirror", upstreams, workers=workers) as mirror:
            finds(mirror)
            finds(mirror)
            origin.stop()
            finds(mirror)
            quiet(mirror)
        with mirroring(tmp_path / "mirror", upstreams, workers=workers) as mirror:
            finds(mirror)
            quiet(mirror)


@dataclass(frozen=True)
class Bundle:
    """Layouts that were carried here, below `root`, and what hangs on their images."""

    root: Path
    pushed: Pushed


@pytest.fixture
def by_regctl(signer: Signer, run: Commands, tmp_path: Path) -> Bundle:
    with hub() as origin:
        pushed = signer.push(origin.host)
        for name in (BY_TAG, BY_SUBJECT):
            (tmp_path / "written" / name).mkdir(parents=True)
            target = f"ocidir://{tmp_path}/written/{name}:latest"
            run("regctl", "registry", "set", "--tls=disabled", origin.host)
            run("regctl", "image", "copy", "--referrers", "--digest-tags", f"{origin.host}/{name}:latest", target)
    return Bundle(tmp_path / "written", pushed)


@pytest.fixture
def by_oras(signer: Signer, run: Commands, tmp_path: Path) -> Bundle:
    """oras takes what has a tag by its tag, and with it what refers to it."""
    with hub() as origin:
        pushed = signer.push(origin.host)
        for name in (BY_TAG, BY_SUBJECT):
            (tmp_path / "written" / name).parent.mkdir(parents=True, exist_ok=True)
            backup = ("oras", "backup", "--plain-http", "--no-tty", "--include-referrers")
            run(*backup, "--output", f"{tmp_path}/written/{name}", f"{origin.host}/{name}")
    return Bundle(tmp_path / "written", pushed)


def in_archives(bundle: Bundle, folder: Path) -> Bundle:
    for name in (BY_TAG, BY_SUBJECT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(f"{folder / name}.tar", "w") as archive:
            archive.add(bundle.root / name, ".")
    return Bundle(folder, bundle.pushed)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("tool", ["by_regctl", "by_oras"])
def test_they_are_found_of_layouts(
    request: pytest.FixtureRequest, signer: Signer, tmp_path: Path, tool: str, packed: bool
) -> None:
    bundle: Bundle = request.getfixturevalue(tool)
    if packed:
        bundle = in_archives(bundle, tmp_path / "archives")
    with MirrorProcess(tmp_path / "mirror.log", "--layouts", str(bundle.root)) as mirror:
        signer.finds(mirror.host, bundle.pushed)
        quiet(mirror)
