"""`mirror ls`: where tags and platforms come from, and what is to be known of archives."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mirror.cli.ls import run
from mirror.config import load
from tests.sources import archives
from tests.sources.archives import layer


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for number, (name, text, architecture) in enumerate(
        [("old.tar", "old", "amd64"), ("new.tar", "new", "amd64"), ("arm.tar", "arm", "arm64")]
    ):
        saved = archives.old_docker({"team/app:1": [layer(text)]}, architecture=architecture)
        path = archives.write(tmp_path / "files" / name, saved)
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    return tmp_path / "files"


def listed(
    files: Path, capsys: pytest.CaptureFixture[str], *, sources: bool = True, as_json: bool = False
) -> tuple[int, str, str]:
    config = files.parent / "config.yaml"
    config.write_text(f"layouts: [{{path: {files}}}]\n")
    status = run(load(config), None, as_json=as_json, sources=sources)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_it_says_where_each_platform_comes_from(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = listed(files, capsys)
    assert (status, err) == (0, "")
    tagged = next(line for line in out.splitlines() if " 1 " in line)
    assert tagged.split()[:2] == ["docker.io/team/app", "1"]
    assert "linux/amd64, linux/arm64" in tagged
    assert f"{files}/arm.tar (linux/arm64), {files}/new.tar (linux/amd64)" in tagged
    assert f"{files}/old.tar (linux/amd64: by digest only, another file is newer)" in tagged


def test_it_says_whose_digest_it_is_and_who_is_never_asked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = listed(files, capsys, sources=False)
    assert "manifest made by mirror: its digest is no registry's" in out
    assert "local only when asked for without a host" in out
    assert "SOURCES" not in out


def test_the_same_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = listed(files, capsys, as_json=True)
    (row,) = json.loads(out)["content"]
    assert row["generated"] is True
    sources: list[dict[str, Any]] = row["sources"]
    assert [(Path(one["path"]).name, one["platforms"], one["hidden"]) for one in sources] == [
        ("arm.tar", ["linux/arm64"], []),
        ("new.tar", ["linux/amd64"], []),
        ("old.tar", [], ["linux/amd64"]),
    ]


def test_compressed_and_broken_archives_and_entries_without_names(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptor, blobs = archives.image([layer("tool")])
    packed = archives.packed(archives.tar_of(archives.layout([descriptor], blobs)))
    (files / "tools.tar.gz").write_bytes(packed)
    (files / "half.tar").write_bytes(packed[:100])
    status, out, err = listed(files, capsys)
    assert status == 1
    assert f"skipped: {files}/half.tar: " in err
    (line,) = [line for line in out.splitlines() if line.startswith("tools ")]
    assert "(no tag, digest only)" in line
    assert "made by mirror" not in line
    assert f"{files}/tools.tar.gz" in line
    # What a server may be using is left alone, whoever looks.
    assert len(list((files.parent / "cache" / "unpacked").iterdir())) == 1
