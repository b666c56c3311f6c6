"""`mirror serve` as people start it: a process of its own, asked over its port and stopped by a signal."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

# The command that the package installs, beside the interpreter of this environment.
MIRROR = Path(sys.executable).with_name("mirror")

START_SECONDS = 30
# Above the server's own shutdown_timeout: whatever takes longer hangs.
STOP_SECONDS = 30
_POLL_SECONDS = 0.02


class MirrorProcess:
    """A context: started, listening and ready inside; outside it was stopped by SIGTERM and exited with 0.

        with MirrorProcess(tmp_path / "mirror.log", "--layouts", str(folder)) as mirror:
            skopeo(f"docker://{mirror.host}/hello:latest")

    `arguments` go behind `mirror serve`; it listens on a free port of loopback, unless they say otherwise.
    """

    def __init__(self, log: Path, *arguments: str, cwd: Path | None = None) -> None:
        self.log = log
        self.url = ""
        own = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
        self.command = [str(MIRROR), "serve", *own, "--log-format", "json", *arguments]
        self._cwd = cwd or log.parent
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """`127.0.0.1:port`, as clients write it in front of a repository."""
        return urlsplit(self.url).netloc

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process, once started."""
        return self._process

    def pids(self) -> list[int]:
        """The process and, where there are several workers, theirs (and that of a helper of multiprocessing's)."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log lines so far, those of one event if it is named."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        # The last line may be half written; one that is no JSON is not ours (a warning of the interpreter).
        whole = [line for line in lines if line.endswith("\n") and line.startswith("{")]
        events = [json.loads(line) for line in whole]
        return [event for event in events if name in (None, event.get("event"))]

    def begin(self) -> None:
        """Start the process, and wait for nothing."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._cwd, start_new_session=True
            )

    def start(self) -> None:
        """Raises AssertionError, with the log, when it is not ready within START_SECONDS."""
        self.begin()
        self.wait_ready()

    def wait_ready(self) -> None:
        """As `start`, for what has begun."""
        assert self._process is not None, "not started"
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            status = self._process.poll()
            if status is not None:
                raise AssertionError(f"mirror serve exited with {status} instead of listening\n{self._said()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"mirror serve is not ready after {START_SECONDS} s\n{self._said()}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        if not self.url:
            listening = self.events("listening")
            if not listening:
                return False
            self.url = listening[0]["url"].rstrip("/")
        return self.status("/readyz") == 200

    def status(self, path: str) -> int | None:
        """The status that a plain GET of `path` is answered with; None where nobody answers."""
        connection = (
            # Whose certificate it is, is not asked here: clients check that.
            http.client.HTTPSConnection(self.host, timeout=5, context=ssl._create_unverified_context())  # noqa: S323
            if self.url.startswith("https:")
            else http.client.HTTPConnection(self.host, timeout=5)
        )
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM); the exit status. Raises AssertionError when it does not within STOP_SECONDS."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"mirror serve does not stop\n{self._said()}") from None

    def kill(self) -> None:
        """As a power cut does it (SIGKILL), all of its processes at once."""
        assert self._process is not None, "not started"
        workers = self.pids()[1:]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + STOP_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < deadline, "killed, and still there"
            time.sleep(_POLL_SECONDS)

    def _said(self) -> str:
        return f"{' '.join(self.command)}\n{self.log.read_text(errors='replace')}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.poll() is not None:
            # A test that stopped or killed it itself has looked at the status already.
            return
        status = self.stop()
        # An error on its way out says more than the exit status that it led to.
        assert kind is not None or status == 0, f"mirror serve exited with {status}\n{self._said()}"
