"""`mirror search` and `mirror referrers`: the same answers from a running mirror and from its folders."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import mirror
from tests.content import LINUX_AMD64, LayoutWriter
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
