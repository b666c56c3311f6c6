"""`mirror search` and `mirror referrers`: the same answers from a running mirror and from its folders."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_commands import mirror
from tests.content import LINUX_AMD64, LayoutWriter
from tests.hub import Hub, Image
from tests.hub.beside import Beside
from tests.server_process import MirrorProcess

SPDX = "application/spdx+json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with `team/app:1.0` and an SBOM of it, and three tags of `many`."""
    writer = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    image = writer.image([b"app"], platform=LINUX_AMD64, annotations={"team": "blue"})
    writer.tag(image, "1.0").add(writer.attachment(b"{}", SPDX, image)).save()
    many = LayoutWriter(tmp_path / "layouts" / "many")
    for number in range(3):
        many.tag(many.image([b"%d" % number]), f"1.{number + 8}")
    many.save()
    return tmp_path


def found(folder: Path, *arguments: str) -> Any:
    done = mirror(folder, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_search_is_a_table_of_what_fits(folder: Path) -> None:
    done = mirror(folder, "search", "team", "--type", "sbom")
    header, line = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert header.split()[:4] == ["REPOSITORY", "TAG", "DIGEST", "TYPE"]
    assert line.split()[0] == "team/app"
    assert "sbom" in line.split()


def test_search_takes_the_parameters_of_the_endpoint(folder: Path) -> None:
    versions = found(folder, "search", "--kind", "version", "--sort", "version", "--order", "desc")
    assert [item["tag"] for item in versions["items"]] == ["1.10", "1.9", "1.8", "1.0"]
    assert found(folder, "search", "--annotation", "team=blue")["total"] == 1
    assert found(folder, "search", "--platform", "linux/amd64", "--since", "2000-01-01T00:00:00Z")["total"] == 4
    limited = mirror(folder, "search", "many", "--limit", "2")
    assert len(limited.stdout.splitlines()) == 3
    assert "2 of 3" in limited.stderr


def test_search_says_what_is_wrong_and_what_is_not_there(folder: Path) -> None:
    wrong = mirror(folder, "search", "--kind", "thing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "kind" in wrong.stderr
    nothing = mirror(folder, "search", "no-such-thing")
    assert (nothing.returncode, len(nothing.stdout.splitlines())) == (1, 1)


def test_referrers_are_listed_by_tag_and_by_digest(folder: Path) -> None:
    listed = found(folder, "referrers", "team/app:1.0")
    assert [entry["artifactType"] for entry in listed["manifests"]] == [SPDX]
    assert found(folder, "referrers", f"team/app@{listed['subject']}") == listed
    assert found(folder, "referrers", "team/app:1.0", "--type", "a/b")["manifests"] == []
    table = mirror(folder, "referrers", "team/app:1.0")
    assert SPDX in table.stdout
    for wrong, status in (("team/app:2.0", 1), ("nothing/here", 1), ("UPPER", 2)):
        done = mirror(folder, "referrers", wrong)
        assert (done.returncode, done.stdout) == (status, "")
        assert wrong in done.stderr


def test_a_running_mirror_gives_the_same(folder: Path) -> None:
    with MirrorProcess(folder / "mirror.log", cwd=folder) as running:
        url = f"http://{running.host}"
        served = found(folder, "search", "--all", "--url", url)
        assert served["total"] == len(served["items"]) == 5
        assert found(folder, "search") == served
        assert found(folder, "search", "many", "--limit", "1", "--url", url)["total"] == 3
        listed = found(folder, "referrers", "team/app:1.0", "--url", url)
        assert listed == found(folder, "referrers", "team/app:1.0")
        absent = mirror(folder, "referrers", "team/app:2.0", "--url", url)
        assert (absent.returncode, "404" in absent.stderr) == (1, True)
    gone = mirror(folder, "search", "--url", url)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize("current", [True, False], ids=["by the tag", "by the API"])
def test_referrers_of_what_is_cached_are_those_that_a_mirror_gives(tmp_path: Path, current: bool) -> None:
    """Also where nobody asked for the list: a client that knows only the fallback tag left that."""
    with Beside() as beside:
        hub = beside.open(Hub(current=current))
        image = hub.image("team/app", "1.0")
        sbom: Image = hub.reference("team/app", image, SPDX)
        config = {"layouts": [], "upstreams": {hub.host: {"endpoints": [hub.url], "tag_ttl": 0, "referrers_ttl": 0}}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        name = f"{hub.host}/team/app"
        with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as running:
            asked = f"manifests/{image.digest.fallback_tag}" if current else f"referrers/{image.digest}"
            for path in ("manifests/1.0", asked):
                assert running.status(f"/v2/{name}/{path}") == 200
            beside.run(hub.refuse())
            served = found(tmp_path, "referrers", f"{name}:1.0", "--url", f"http://{running.host}")
        assert [entry["digest"] for entry in served["manifests"]] == [sbom.digest]
        assert found(tmp_path, "referrers", f"{name}:1.0") == served
        assert found(tmp_path, "referrers", f"{name}@{image.digest}") == served
        unknown = mirror(tmp_path, "referrers", f"{hub.host}/no/such@{image.digest}")
        assert (unknown.returncode, unknown.stdout) == (1, "")


def test_workers_share_one_index_and_one_of_them_always_fills_it(folder: Path) -> None:
    with MirrorProcess(folder / "mirror.log", "--workers", "2", cwd=folder) as running:
        url = f"http://{running.host}"
        first = found(folder, "search", "--url", url)
        assert first["total"] == 5
        for _ in range(6):  # each on a connection of its own, to either of them
            assert found(folder, "search", "--url", url) == first
        workers = [pid for pid in running.pids()[1:] if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        for number, worker in enumerate(workers):
            os.kill(worker, signal.SIGKILL)
            writer = LayoutWriter(folder / "layouts" / f"new-{number}")
            writer.tag(writer.image([b"%d" % number]), "1").save()
            deadline = time.monotonic() + 30
            while mirror(folder, "search", f"new-{number}", "--url", url).returncode != 0:
                assert time.monotonic() < deadline, "a new layout is not found"
                time.sleep(0.1)
