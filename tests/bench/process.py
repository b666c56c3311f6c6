"""The real server as a process of its own, watched from outside: when it answers, what it uses."""

import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.server_process import MIRROR

PATIENCE_SECONDS = 120.0
_QUIET_CPU_SECONDS = 0.03
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was started at `begun` (on the clock of `time.perf_counter`)."""

    process: "subprocess.Popen[bytes]"
    port: int
    begun: float

    def seconds(self) -> float:
        """Since it was started."""
        return time.perf_counter() - self.begun

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> tuple[int, bytes, bool]:
        """Status, body, and whether there was a Warning."""
        asked = connection or self.connection()
        asked.request("GET", path)
        answer = asked.getresponse()
        body = answer.read()
        if connection is None:
            asked.close()
        return answer.status, body, answer.getheader("Warning") is not None

    def wait_port(self) -> float:
        """Seconds from the start until the port takes connections."""
        while self.seconds() < PATIENCE_SECONDS:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.002)
            else:
                return self.seconds()
        raise AssertionError("the port does not answer")

    def wait_catalogued(self) -> float:
        """Seconds from the start until `/v2/_catalog` comes without a Warning."""
        self.wait_port()
        while self.get("/v2/_catalog?n=1")[2]:
            if self.seconds() > PATIENCE_SECONDS:
                raise AssertionError("never catalogued")
        return self.seconds()

    def wait_ready(self) -> float:
        """Seconds from the start until every worker serves."""
        self.wait_port()
        while self.get("/readyz")[0] != 200:
            if self.seconds() > PATIENCE_SECONDS:
                raise AssertionError("never ready")
            time.sleep(0.005)
        return self.seconds()

    def wait_quiet(self) -> None:
        """Back when nothing goes on any more: search has been filled."""
        used = -1.0
        while self.cpu_seconds() - used > _QUIET_CPU_SECONDS:
            if self.seconds() > 4 * PATIENCE_SECONDS:
                raise AssertionError("never quiet")
            used = self.cpu_seconds()
            time.sleep(3)  # long enough that a busy machine lets it run at all

    def family(self) -> list[int]:
        """The server's process and its children."""
        parents = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    parents[int(folder.name)] = int(_stat(int(folder.name))[1])
                except OSError:
                    continue  # it has ended meanwhile
        found = [self.process.pid]
        for pid in found:
            found.extend(child for child, parent in parents.items() if parent == pid)
        return found

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system, children included."""
        return sum(sum(map(int, _stat(pid)[11:13])) for pid in self.family()) * _TICK_SECONDS

    def memory_bytes(self, key: str = "VmRSS") -> int:
        """Resident memory (`VmHWM`: its peak), children included; pages that they share count twice."""
        total = 0
        for pid in self.family():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(f"{key}:"):
                    total += int(line.split()[1]) * 1024
        return total

    def rescan(self) -> None:
        """Ask for a scan now."""
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def serving(folder: Path, layouts: Path, cache: Path, *arguments: str, refresh: str = "1h") -> Iterator[Server]:
    """The server over one root, with files of its own in `folder`."""
    config = folder / "config.yaml"
    config.write_text(f"refresh: {refresh}\nlayouts:\n  - path: {layouts}\ncache: {{path: {cache}}}\n")
    port = _PORT
    command = [str(MIRROR), "serve", "--config", str(config), "--listen", f"127.0.0.1:{port}", *arguments]
    with (folder / "mirror.log").open("ab") as log:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Server(process, port, begun)
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def latencies(server: Server, paths: Sequence[str], status: int = 200) -> list[float]:
    """Seconds that each GET took, one after the other on one connection."""
    connection = server.connection()
    taken = []
    for path in paths:
        begun = time.perf_counter()
        answered, _, _ = server.get(path, connection)
        taken.append(time.perf_counter() - begun)
        assert answered == status, f"{path}: {answered}"
    connection.close()
    return taken


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def shuffled(values: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the values, the same for the same seed."""
    return random.Random(seed).sample(values, count)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the command's name: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# One for all servers: names, and with them what is remembered, depend on the mirror's own address.
_PORT = _free_port()
