"""Asking: one request at a time to look, `wrk` to measure."""

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cases import REVALIDATES, Case

# What wrk prints for people rounds; this does not.
_SCRIPT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format('RESULT {"requests":%d,"bytes":%d,"us":%d,"errors":%d,"p50_us":%d,"p99_us":%d}',
    summary.requests, summary.bytes, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Measured:
    """What one run of wrk saw."""

    requests_per_second: float
    bytes_per_second: float
    p50_us: int
    p99_us: int
    errors: int


@dataclass(frozen=True)
class Looked:
    """One answer."""

    status: int
    etag: str | None
    body: bytes


@dataclass(frozen=True)
class Asked:
    """A case as one server is asked it."""

    path: str
    headers: Mapping[str, str]


def look(port: int, case: Case, path: str, headers: dict[str, str]) -> Looked:
    """Ask once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(case.method, path, headers=headers)
        answer = connection.getresponse()
        return Looked(answer.status, answer.headers.get("ETag"), answer.read())
    finally:
        connection.close()


def headers_for(port: int, case: Case, path: str) -> dict[str, str]:
    """The case's headers for this server, warm: every worker was asked before, most likely."""
    headers = {name: value for name, value in case.headers.items() if name != REVALIDATES}
    etag = None
    for _ in range(8):
        etag = look(port, case, path, headers).etag
    if REVALIDATES in case.headers and etag:
        headers[REVALIDATES] = etag
    return headers


def measure(folder: Path, port: int, case: Case, asked: Asked, seconds: float) -> Measured:
    """One run of wrk, or of what stands in for it. Raises CalledProcessError."""
    if case.method == "HEAD":
        return _measure_heads(port, case, asked, seconds)
    script = folder / f"{case.method}.lua"
    script.write_text(f'wrk.method = "{case.method}"\n{_SCRIPT}')
    sent = [f"--header={name}: {value}" for name, value in asked.headers.items()]
    load = [f"-t{case.threads}", f"-c{case.connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script)]
    command = ["wrk", *load, *sent, f"http://127.0.0.1:{port}{asked.path}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(next(line for line in said.splitlines() if line.startswith("RESULT")).partition(" ")[2])
    took = result["us"] / 1e6
    return Measured(
        result["requests"] / took, result["bytes"] / took, result["p50_us"], result["p99_us"], result["errors"]
    )


def _measure_heads(port: int, case: Case, asked: Asked, seconds: float) -> Measured:
    lines = [f"HEAD {asked.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in asked.headers.items()]
    settings: dict[str, object] = {"port": port, "connections": case.connections // 2, "seconds": seconds}
    settings["head"] = "\r\n".join([*lines, "", ""])
    command = [sys.executable, "-m", "tests.bench.heads", json.dumps(settings)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(run.communicate()[0]) for run in runs]
    rates = [result["requests"] / result["us"] * 1e6 for result in results]
    sent = [result["bytes"] / result["us"] * 1e6 for result in results]
    return Measured(sum(rates), sum(sent), 0, 0, sum(result["errors"] for result in results))
