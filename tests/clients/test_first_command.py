"""What the README's first command does, in a fresh copy of what the repository carries."""

import shutil
from pathlib import Path

import pytest

from tests.clients import sample
from tests.clients.commands import Commands
from tests.server_process import MirrorProcess

ROOT = Path(__file__).parents[2]


@pytest.mark.client("crane")
@pytest.mark.parametrize("config", [True, False], ids=["with config.yaml", "without"])
def test_serve_without_arguments_serves_the_sample_beside_it(run: Commands, tmp_path: Path, config: bool) -> None:
    shutil.copytree(sample.LAYOUTS, tmp_path / "layouts")
    if config:
        shutil.copy(ROOT / "config.yaml", tmp_path)
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        assert run("crane", "catalog", mirror.host).splitlines() == ["hello"]
        run("crane", "validate", "--remote", f"{mirror.host}/hello:latest")
    # Served in place, and left as it was.
    before, after = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (sample.LAYOUTS, tmp_path / "layouts")
    )
    assert after == before
