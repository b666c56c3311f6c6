"""A disk that takes no more: what is there is served, by a mirror that starts now too; the rest comes through."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.through import mirroring, upstream
from tests.content import LayoutWriter
from tests.hub import Hub, Image, Status
from tests.hub.beside import Beside
from tests.running import get
from tests.server_process import MirrorProcess

NAME = "/v2/docker.io/library/hello"
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of a few MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        for size in (MIB, 4096, 1):
            try:
                while ballast.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def write_protect(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def served(mirror: MirrorProcess, image: Image, tag: str) -> None:
    reply = get(mirror.host, f"{NAME}/manifests/{tag}")
    assert (reply.status, reply.body) == (200, image.content)
    for digest, content in image.blobs.items():
        reply = get(mirror.host, f"{NAME}/blobs/{digest}")
        assert (reply.status, reply.body == content) == (200, True)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("spoil", [fill_up, write_protect])
def test_a_mirror_that_starts_where_nothing_can_be_written_serves_everybody(
    tmp_path: Path, disk: Path, workers: int, spoil: object
) -> None:
    local = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    local.tag(local.image([b"local"]), "1").save()
    keys = {"cache": {"path": str(disk / "cache")}, "layouts": [str(tmp_path / "layouts")], "workers": workers}
    with Beside() as beside:
        hub = beside.open(Hub())
        warm = hub.image("library/hello", "warm", layers=[b"w" * 2 * MIB])
        cold = hub.image("library/hello", "cold", layers=[b"c" * 2 * MIB])
        upstreams = {"docker.io": upstream(hub.url, retries=0)}
        with mirroring(tmp_path / "mirror", upstreams, **keys) as mirror:
            served(mirror, warm, "warm")
        assert callable(spoil)
        spoil(disk)
        with mirroring(tmp_path / "mirror", upstreams, **keys) as mirror:
            pids = mirror.pids()
            assert get(mirror.host, "/v2/team/app/manifests/1").status == 200
            for _ in range(2):
                served(mirror, warm, "warm")
                served(mirror, cold, "cold")
            assert get(mirror.host, f"{NAME}/tags/list").status == 200
            assert get(mirror.host, "/metrics").status == 200
            assert get(mirror.host, "/v2/_mirror/search?q=app").status == 200
            hub.fault(Status(500))
            for number in range(20):
                assert get(mirror.host, f"{NAME}/manifests/absent{number}").status in (502, 503)
            served(mirror, warm, "warm")
            assert mirror.pids() == pids
            said = mirror.log.read_text()
            assert "Traceback" not in said
            assert "made anew" not in said, "what is right is thrown away because the disk is full"
