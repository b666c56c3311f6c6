"""`mirror cache ls|stats|refresh|forget` beside a running mirror: what each says, and what that one answers then."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.through import mirroring
from tests.hub import Hub
from tests.hub.beside import Beside
from tests.running import get, wait_until
from tests.server_process import MIRROR, MirrorProcess

# How soon the running mirror has to go by what a command changed.
SOON_SECONDS = 2.5
# The upstream refuses connections, and soon is not asked any more.
CANNOT_ASK = ("502", "503")


@dataclass
class Setup:
    """A mirror with one upstream whose tags stand for an hour, and the command for its cache."""

    folder: Path
    beside: Beside
    hub: Hub
    mirror: MirrorProcess

    def cache(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of `mirror cache …`."""
        command = [str(MIRROR), "cache", *arguments, "--config", str(self.folder / "config.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def served(self, tag: str = "latest") -> str:
        """The digest that the running mirror gives for a tag of library/hello; its status where it gives none."""
        reply = get(self.mirror.host, f"/v2/library/hello/manifests/{tag}")
        return reply.headers.get("docker-content-digest", str(reply.status))


@pytest.fixture(params=[1, 2])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setup]:
    with Beside() as beside:
        hub = beside.open(Hub())
        hub.image("library/hello", "latest")
        upstreams = {"docker.io": {"endpoints": [hub.url], "tag_ttl": "1h", "retries": 0}}
        with mirroring(tmp_path, upstreams, workers=request.param) as mirror:
            yield Setup(tmp_path, beside, hub, mirror)


def test_ls_and_stats_tell_what_is_cached(setup: Setup) -> None:
    assert setup.cache("ls", "--json")[:2] == (0, "[]\n")
    digest = setup.served()
    blob = setup.hub.image("library/hello").layers[0]
    status, said, _ = setup.cache("ls", "--json")
    (image,) = json.loads(said)
    assert (status, image["name"], image["tag"]) == (0, "docker.io/library/hello", "latest")
    assert (image["digest"], image["missing"]) == (digest, 2)
    assert "docker.io/library/hello" in setup.cache("ls")[1]
    assert get(setup.mirror.host, f"/v2/library/hello/blobs/{setup.hub.image('library/hello', 'x').config}").status
    status, said, _ = setup.cache("stats", "--json")
    numbers = json.loads(said)
    assert (status, numbers["tags"], numbers["manifests"], numbers["repositories"]) == (0, 1, 1, 1)
    assert numbers["bytes"] > 0
    assert blob


def test_refresh_asks_now_and_the_running_mirror_gives_what_was_found(setup: Setup) -> None:
    before = setup.served()
    moved = setup.hub.image("library/hello", "latest", files={"new": b"content"}).digest
    assert setup.served() == before, "its time is not over"
    status, said, _ = setup.cache("refresh", "library/hello:latest")
    assert (status, moved in said) == (0, True)
    wait_until(lambda: all(setup.served() == moved for _ in range(6)), "the new digest", SOON_SECONDS)
    status, said, _ = setup.cache("refresh", "library/hello:latest", "--json")
    found = {"name": "docker.io/library/hello", "tag": "latest", "digest": moved}
    assert (status, json.loads(said)) == (0, found)
    assert setup.cache("refresh", "docker.io/library/hello")[0] == 0, "latest is what no tag means"


def test_refresh_of_what_cannot_be_had_is_status_1_and_of_what_cannot_be_meant_2(setup: Setup) -> None:
    before = setup.served()
    status, _, complaint = setup.cache("refresh", "library/hello:absent")
    assert (status, "Traceback" in complaint) == (1, False)
    assert "absent" in complaint
    for wrong in ("gone.example/library/hello:latest", "UPPER/case:latest", "", f"library/hello@{before}"):
        status, _, complaint = setup.cache("refresh", wrong)
        assert (status, "Traceback" in complaint, bool(complaint)) == (2, False, True), wrong
    setup.beside.run(setup.hub.refuse())
    status, _, complaint = setup.cache("refresh", "library/hello:latest")
    assert (status, "Traceback" in complaint) == (1, False)
    assert setup.served() == before, "a failure loses nothing"


def test_forget_takes_a_tag_off_a_running_mirror(setup: Setup) -> None:
    digest = setup.served()
    setup.beside.run(setup.hub.refuse())
    assert setup.served() == digest
    status, said, _ = setup.cache("forget", "library/hello:latest")
    assert (status, "forgotten" in said) == (0, True)
    wait_until(lambda: all(setup.served() in CANNOT_ASK for _ in range(6)), "the tag is gone", SOON_SECONDS)
    assert setup.served(digest) == digest, "its manifest is still had by digest"
    status, _, complaint = setup.cache("forget", f"library/hello@{digest}")
    assert (status, "digest" in complaint) == (2, True)
    assert setup.served(digest) == digest, "a digest does not mean the whole repository"
    assert setup.cache("forget", "library/hello:latest")[0] == 1, "there is none any more"


def test_forget_takes_a_repository_off_a_running_mirror(setup: Setup) -> None:
    digest = setup.served()
    setup.beside.run(setup.hub.refuse())
    assert setup.cache("forget", "docker.io/library/hello")[0] == 0
    for reference in ("latest", digest):
        wait_until(lambda: setup.served(reference) in CANNOT_ASK, "it is gone", SOON_SECONDS)  # noqa: B023 read at once
    assert setup.cache("ls", "--json")[:2] == (0, "[]\n")
    setup.beside.run(setup.hub.accept())
    wait_until(lambda: setup.served() == digest, "it comes again")


def test_commands_without_any_cache_say_so_and_make_no_mess(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("upstreams: {docker.io: {}}\n")
    for arguments, status in ((("ls",), 0), (("stats",), 0), (("forget", "library/hello"), 1)):
        command = [str(MIRROR), "cache", *arguments, "--config", str(tmp_path / "config.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), arguments
