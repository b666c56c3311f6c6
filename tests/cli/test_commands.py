"""The command line as a whole: options, exit statuses, output for people and for programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.content import LINUX_AMD64, LINUX_ARM64, LayoutWriter
from tests.server_process import MIRROR


def mirror(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mirror` in `folder`, its output as text."""
    command = [str(MIRROR), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a layout of two platforms, `team/app:1.0`, and `other:2.0`."""
    writer = LayoutWriter(tmp_path / "layouts" / "team" / "app")
    images = [writer.image([b"x" * 2000], platform=platform) for platform in (LINUX_AMD64, LINUX_ARM64)]
    writer.tag(writer.index(images), "1.0").save()
    other = LayoutWriter(tmp_path / "layouts" / "other")
    other.tag(other.image([b"other"]), "2.0").save()
    return tmp_path


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("ls", "--nonsense"), ("serve", "extra"), ("forget",)])
def test_wrong_use_is_exit_status_2_and_says_how_it_is_used(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = mirror(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: mirror" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "٣"])
def test_a_limit_that_is_none_is_told_with_what_was_expected(tmp_path: Path, limit: str) -> None:
    done = mirror(tmp_path, "search", f"--limit={limit}")
    assert done.returncode == 2
    assert done.stderr.endswith(f"argument --limit: found {limit}, expected a whole number, 1 or more\n")


def test_a_command_runs_where_standard_error_is_closed(folder: Path) -> None:
    """As some service managers start one."""
    done = subprocess.run(
        ["sh", "-c", f"exec {MIRROR} ls --json 2>&-"], cwd=folder, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0
    assert {row["name"] for row in json.loads(done.stdout)["content"]} == {"other", "team/app"}


def test_a_command_runs_where_standard_error_is_no_file(folder: Path) -> None:
    """As in a program that calls it and captures what it says, or in a notebook."""
    program = "import io, sys; sys.stderr = io.StringIO(); from mirror.cli.main import main; sys.exit(main(['ls']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "team/app" in done.stdout


def test_version_and_help(tmp_path: Path) -> None:
    done = mirror(tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "mirror")
    assert mirror(tmp_path, "--help").returncode == 0


COMMANDS = ["serve", "ls", "check-config", "search", "referrers x", "forget x"]
COMMANDS += ["cache ls", "cache stats", "cache refresh x", "cache forget x"]


@pytest.mark.parametrize("command", COMMANDS)
def test_config_layouts_and_cache_are_options_of_every_command_and_checked_by_it(folder: Path, command: str) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "mirror.yaml").write_text("wrong: 1\n")
    options = ("--config", "etc/mirror.yaml", "--layouts", "layouts", "--layouts", "layouts/../more", "--cache", "")
    done = mirror(folder, *command.split(), *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": found")[0] for line in done.stderr.splitlines()] == [
        "--cache: cache.path",
        "etc/mirror.yaml:1: wrong",
    ]


def test_a_wrong_configuration_is_exit_status_2(folder: Path) -> None:
    (folder / "config.yaml").write_text("layots: [layouts]\n")
    done = mirror(folder, "ls")
    assert done.returncode == 2
    assert "layots" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("ls",),
        ("search", "app"),
        ("referrers", "team/app:1.0"),
        ("cache", "ls"),
        ("cache", "stats"),
        ("cache", "refresh", "team/app:1.0"),
        ("cache", "forget", "team/app:1.0"),
    ],
    ids=" ".join,
)
def test_a_cache_that_cannot_be_made_is_exit_status_2_and_one_line(folder: Path, command: tuple[str, ...]) -> None:
    (folder / "file").write_text("no folder can be made below this")
    config = "layouts: [layouts]\ncache: {path: file/cache}\nupstreams: {docker.io: {}}\n"
    (folder / "config.yaml").write_text(config)
    done = mirror(folder, *command)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert str(folder / "file" / "cache") in line


def test_ls_is_a_table_of_what_there_is(folder: Path) -> None:
    done = mirror(folder, "ls")
    assert (done.returncode, done.stderr) == (0, "")
    header, other, app = done.stdout.splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "DIGEST", "PLATFORMS", "SIZE", "NOTES"]
    assert other.split()[:2] == ["other", "2.0"]
    assert app.split()[:2] == ["team/app", "1.0"]
    assert "linux/amd64, linux/arm64/v8" in app
    assert "KiB" in app


def test_ls_json_has_the_same_in_full(folder: Path) -> None:
    done = mirror(folder, "ls", "--json")
    found = json.loads(done.stdout)
    assert [(row["name"], row["tag"], row["problems"]) for row in found["content"]] == [
        ("other", "2.0", []),
        ("team/app", "1.0", []),
    ]
    assert found["content"][1]["platforms"] == ["linux/amd64", "linux/arm64/v8"]
    assert found["problems"] == []


@pytest.mark.parametrize("default_host", ["docker.io", "quay.io", None])
def test_ls_marks_what_is_never_completed_from_an_upstream(folder: Path, default_host: str | None) -> None:
    (folder / "layouts" / "quay.io").mkdir()
    (folder / "layouts" / "other").rename(folder / "layouts" / "quay.io" / "other")
    config: dict[str, object] = {"layouts": ["layouts"], "default_host": default_host, "upstreams": {"docker.io": {}}}
    (folder / "config.yaml").write_text(json.dumps(config))
    rows = mirror(folder, "ls").stdout.splitlines()[1:]
    marked = [row.split()[0] for row in rows if row.endswith("local only when asked for without a host")]
    assert marked == (["team/app"] if default_host == "docker.io" else [])


def test_ls_of_a_name_shows_only_that(folder: Path) -> None:
    done = mirror(folder, "ls", "other")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["REPOSITORY", "other"]
    missing = mirror(folder, "ls", "nothing/here")
    assert missing.returncode == 1
    assert "nothing/here" in missing.stderr


def test_ls_from_another_folder_means_paths_from_there(folder: Path) -> None:
    elsewhere = folder / "else" / "where"
    elsewhere.mkdir(parents=True)
    done = mirror(elsewhere, "ls", "--layouts", "../../layouts", "other")
    assert done.returncode == 0
    (folder / "config.yaml").write_text("layouts: [layouts]\n")
    assert mirror(elsewhere, "ls", "--config", "../../config.yaml", "other").returncode == 0


@pytest.mark.parametrize("what", ["missing", "size"])
def test_ls_marks_what_is_wrong_and_exits_with_1(folder: Path, what: str) -> None:
    blobs = folder / "layouts" / "other" / "blobs" / "sha256"
    (layer,) = [path for path in blobs.iterdir() if path.read_bytes() == b"other"]
    layer.unlink() if what == "missing" else layer.write_bytes(b"oth")
    done = mirror(folder, "ls")
    assert done.returncode == 1
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("other")]
    assert f"blob sha256:{layer.name} is missing or of another size" in row
    (shown,) = [row for row in json.loads(mirror(folder, "ls", "--json").stdout)["content"] if row["name"] == "other"]
    assert len(shown["problems"]) == 1


def test_ls_says_what_was_skipped(folder: Path) -> None:
    (folder / "layouts" / "other" / "oci-layout").write_text("broken")
    done = mirror(folder, "ls")
    assert done.returncode == 1
    assert f"skipped: {folder}/layouts/other: oci-layout: not JSON" in done.stderr
    assert json.loads(mirror(folder, "ls", "--json").stdout)["problems"][0]["path"] == f"{folder}/layouts/other"


def test_no_name_on_disk_can_forge_a_line_or_break_the_list(folder: Path) -> None:
    odd = os.fsencode(folder / "layouts") + b"/odd\nskipped: forged\x1b[31m\xff"
    (folder / "layouts" / "other").rename(os.fsdecode(odd))
    index = Path(os.fsdecode(odd)) / "index.json"
    index.write_bytes(index.read_bytes().replace(b'"2.0"', b'"docker.io/library/odd:1"'))
    for arguments in (("ls", "--sources"), ("ls", "--sources", "--json")):
        done = mirror(folder, *arguments)
        assert "Traceback" not in done.stderr
        assert "docker.io/library/odd" in done.stdout
        assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("skipped: forged")]
        assert "\x1b" not in done.stdout + done.stderr


def test_a_reader_that_has_enough_is_no_error(folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$0" ls --json | head -c 1; "$0" ls | true', str(MIRROR)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize("command", ["ls", "ls --json", "check-config", "search", "cache stats"])
def test_output_that_nobody_reads_or_that_finds_no_room_is_no_traceback(folder: Path, command: str) -> None:
    """Written at once (PYTHONUNBUFFERED), or when it ends."""
    for buffering in ({}, {"PYTHONUNBUFFERED": "1"}):
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"} | buffering
        shell = f'"$0" {command} | true; "$0" {command} > /dev/full; echo "status $?"'
        done = subprocess.run(
            ["bash", "-c", shell, str(MIRROR)],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.stderr.splitlines() == [
            f"mirror {command.split(maxsplit=1)[0]}: [Errno 28] No space left on device"
        ]
        assert done.stdout == "status 2\n"


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "search",
        "referrers other:2.0",
        "cache ls",
        "cache stats",
        "cache forget a.example/b",
        "serve --workers 2",
    ],
)
def test_a_cache_that_cannot_be_made_is_exit_status_2_and_named(folder: Path, command: str) -> None:
    (folder / "file").write_text("no folder can be made below this")
    done = mirror(folder, *command.split(), "--cache", "file/cache")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert str(folder / "file" / "cache") in done.stderr


def test_forget_takes_a_remembered_name_out_once(folder: Path) -> None:
    (folder / "cache").mkdir()
    (folder / "cache" / "remembered").write_text("team/app\nteam/old\n")
    assert mirror(folder, "forget", "team/old").returncode == 0
    again = mirror(folder, "forget", "team/old")
    assert again.returncode == 1
    assert "team/old" in again.stderr
    assert "team/app" in (folder / "cache" / "remembered").read_text()
    assert "team/old" not in (folder / "cache" / "remembered").read_text()
