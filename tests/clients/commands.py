"""Running real clients and their daemons, with all their state in folders of the test."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

COMMAND_SECONDS = 60
DAEMON_SECONDS = 60


def client_environment(home: Path) -> dict[str, str]:
    """An environment in which clients find and leave nothing outside `home`, and read no setting of the machine."""
    folders = {
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local",
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_RUNTIME_DIR": home / "run",
        "DOCKER_CONFIG": home / ".docker",
        "TMPDIR": home / "tmp",
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    containers = home / ".config" / "containers"
    containers.mkdir(exist_ok=True)
    policy, registries, storage = (containers / name for name in ("policy.json", "registries.conf", "storage.conf"))
    (home / "auth.json").write_text("{}")
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    registries.write_text('unqualified-search-registries = ["docker.io"]\n')
    # vfs works on every filesystem and needs no privilege to mount.
    storage.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/storage/root"\nrunroot = "{home}/storage/run"\n'
    )
    return {
        "PATH": os.environ["PATH"],
        "CONTAINERS_REGISTRIES_CONF": str(registries),
        "CONTAINERS_STORAGE_CONF": str(storage),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        **{name: str(folder) for name, folder in folders.items()},
    }


class Commands:
    """Runs commands in one environment; a command that fails fails the test, with all that it said."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.home = Path(environment["HOME"])

    def output(self, *command: str | Path) -> bytes:
        """What the command wrote to standard output."""
        words, done = self._run(command)
        assert done.returncode == 0, (
            f"{words}: exit status {done.returncode}\n"
            f"{done.stdout.decode(errors='replace')}\n{done.stderr.decode(errors='replace')}"
        )
        return done.stdout

    def __call__(self, *command: str | Path) -> str:
        """What the command wrote to standard output, without white space around it."""
        return self.output(*command).decode().strip()

    def refused(self, *command: str | Path) -> str:
        """What a command that must fail wrote to standard error."""
        words, done = self._run(command)
        assert done.returncode != 0, f"{words}: succeeded\n{done.stdout.decode(errors='replace')}"
        return done.stderr.decode(errors="replace")

    def succeeds(self, *command: str | Path) -> bool:
        """Whether the command's exit status is 0."""
        return self._run(command)[1].returncode == 0

    def _run(self, command: tuple[str | Path, ...]) -> tuple[str, subprocess.CompletedProcess[bytes]]:
        words = [str(word) for word in command]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=dict(self.environment),
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"").decode(errors="replace")
            raise AssertionError(f"{' '.join(words)}: no end after {COMMAND_SECONDS} s\n{said}") from None
        return " ".join(words), done


def podman(home: Path, *, name: str = "podman") -> list[str]:
    """podman or buildah with its global options: everything below `home`, no systemd, no journal."""
    own = [name, "--root", f"{home}/{name}/root", "--runroot", f"{home}/{name}/run", "--storage-driver=vfs"]
    if name == "podman":
        own += ["--tmpdir", f"{home}/{name}/tmp", "--events-backend=file", "--cgroup-manager=cgroupfs"]
    return own


@contextlib.contextmanager
def daemon(
    command: list[str], log: Path, environment: Mapping[str, str], is_up: Callable[[], bool]
) -> Iterator[None]:
    """Run `command` until the context ends: up once `is_up` says so; all of its process group gone afterwards.

    Raises AssertionError, with its log, when it ends early or is not up within DAEMON_SECONDS.
    """
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=dict(environment), start_new_session=True
        )
    try:
        deadline = time.monotonic() + DAEMON_SECONDS
        while not is_up():
            assert process.poll() is None, f"{command[0]} ended\n{log.read_text(errors='replace')}"
            assert time.monotonic() < deadline, f"{command[0]} does not come up\n{log.read_text(errors='replace')}"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        # What it started and left behind (dockerd's own containerd) is of its session's group or gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
