"""What the README tells people to type works as it stands there."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server_process import MIRROR, MirrorProcess

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```sh run\n(.*?)```", README, re.DOTALL)
ADDRESS = "127.0.0.1:5000"


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) >= 5
    assert "make serve" in README
    assert "make test" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readmes_commands_work(tmp_path: Path, command: str) -> None:
    program = command.split(maxsplit=1)[0]
    if program != "mirror" and shutil.which(program) is None:
        reason = f"{program} not installed"
        pytest.fail(reason, pytrace=False) if os.environ.get("CI") else pytest.skip(reason)
    shutil.copytree(ROOT / "layouts", tmp_path / "layouts")
    shutil.copy(ROOT / "config.yaml", tmp_path)
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        done = subprocess.run(
            ["sh", "-euc", command.replace(ADDRESS, mirror.host)],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PATH": f"{MIRROR.parent}:{os.environ['PATH']}"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_paths_in_the_documents_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    if name == "ARCHITECTURE.md":
        for path in re.findall(r"`((?:server|sources|store|oci|cli|config)/[a-z_]+\.py)`", text):
            assert (ROOT / "mirror" / path).exists(), path
