"""`mirror serve`: where it listens, how it stops, what it rereads, and what it says of itself."""

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.content import LayoutWriter, describe
from tests.running import Client, get, wait_until
from tests.server_process import MIRROR, STOP_SECONDS, MirrorProcess

MIB = 1024 * 1024
LAYER = bytes(32 * MIB)
TARGET = f"/v2/app/blobs/{describe(LAYER).digest}"


@pytest.fixture
def layouts(tmp_path: Path) -> Path:
    """A layout whose layer does not fit into a socket's buffers."""
    writer = LayoutWriter(tmp_path / "layouts" / "app")
    writer.tag(writer.image([LAYER]), "1.0").save()
    return tmp_path / "layouts"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`mirror serve` where it ends by itself."""
    command = [str(MIRROR), "serve", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)


def exit_status(mirror: MirrorProcess) -> int:
    assert mirror.process is not None
    return mirror.process.wait(30)


def signal_all(mirror: MirrorProcess, number: signal.Signals) -> None:
    """Signal all processes of one that starts, as Ctrl-C in a terminal does it: it ends, or reloads, as ever."""
    os.killpg(mirror.pid, number)
    if number == signal.SIGHUP:
        mirror.wait_ready()
        assert mirror.stop() == 0
    assert exit_status(mirror) == 0
    assert "Traceback" not in mirror.log.read_text()
    assert not [event for event in mirror.events() if event["level"] == "error"]


# Where in its start it is depends on the machine: some of these come before it can listen to signals.
@pytest.mark.parametrize("wait_seconds", [0, 0.1, 0.4])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_while_it_starts_is_no_accident(
    tmp_path: Path, layouts: Path, number: signal.Signals, wait_seconds: float
) -> None:
    mirror = MirrorProcess(tmp_path / "mirror.log", "--layouts", str(layouts))
    mirror.begin()
    wait_until(lambda: len(mirror.pids()) > 1, "the scan process has begun")
    time.sleep(wait_seconds)
    signal_all(mirror, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_being_sent_and_takes_nothing_new(
    tmp_path: Path, layouts: Path, number: signal.Signals
) -> None:
    with MirrorProcess(tmp_path / "mirror.log", "--layouts", str(layouts)) as mirror:
        idle, pulling = Client(mirror.host), Client(mirror.host, receive_buffer_bytes=65536)
        with idle, pulling:
            idle.ask("/v2/")
            assert idle.reply().status == 200
            pulling.ask(TARGET)
            assert pulling.head().status == 200
            os.kill(mirror.pid, number)
            assert idle.rest() == b"", "a connection without a request ends at once"
            with pytest.raises(ConnectionRefusedError):
                Client(mirror.host)
            assert pulling.body(len(LAYER)) == LAYER
            assert pulling.rest() == b""
        assert exit_status(mirror) == 0
        assert mirror.events("stopping")
        assert not mirror.events("answers_cut_at_shutdown")
        assert not [event for event in mirror.events() if event["level"] == "error"]


def test_a_stop_sends_what_was_answered_from_memory_to_its_last_byte(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / "app")
    large = writer.index([], annotations={"padding": "x" * 4_000_000})
    writer.tag(large, "1.0").save()
    with MirrorProcess(tmp_path / "mirror.log", "--layouts", str(tmp_path / "layouts")) as mirror:
        with Client(mirror.host, receive_buffer_bytes=4096) as client:
            client.ask("/v2/app/manifests/1.0")
            assert client.head().status == 200
            os.kill(mirror.pid, signal.SIGTERM)
            wait_until(lambda: bool(mirror.events("stopping")), "it stops")
            assert client.body(large.size) == writer.content(large)
        assert exit_status(mirror) == 0


def test_a_stop_cuts_what_takes_longer_than_the_shutdown_timeout(tmp_path: Path, layouts: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"layouts": [str(layouts)], "shutdown_timeout": "300ms"}))
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        with Client(mirror.host, receive_buffer_bytes=4096) as client:
            client.ask(TARGET)
            assert client.head().status == 200
            begun = time.monotonic()
            os.kill(mirror.pid, signal.SIGTERM)
            assert exit_status(mirror) == 0
            assert time.monotonic() - begun < 15
            assert len(client.rest()) < len(LAYER)
        (cut,) = mirror.events("answers_cut_at_shutdown")
        assert cut["count"] == 1


def test_a_signal_while_it_starts_stops_it_or_is_passed_over_and_never_kills(tmp_path: Path) -> None:
    mirror = MirrorProcess(tmp_path / "mirror.log")
    with mirror:
        for _ in range(20):
            os.kill(mirror.pid, signal.SIGHUP)
        assert get(mirror.host, "/v2/").status == 200


def test_a_port_in_use_is_exit_status_2_and_a_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run(tmp_path, "--listen", address)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["listen"]) == ("cannot_serve", address)
    assert "in use" in said["reason"]


def test_it_listens_on_ipv6(tmp_path: Path, layouts: Path) -> None:
    addresses = Path("/proc/net/if_inet6")
    if not addresses.exists() or not addresses.read_text():
        pytest.skip("this machine has no IPv6")
    arguments = ("--listen", "[::1]:0", "--layouts", str(layouts))
    with MirrorProcess(tmp_path / "mirror.log", *arguments) as mirror:
        assert mirror.url.startswith("http://[::1]:")
        assert get(mirror.host, "/v2/app/manifests/1.0").status == 200


def certificate(folder: Path, name: str) -> None:
    """Write cert.pem and key.pem for `name`, self-signed."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)


def handshake(host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name, _, port = host.rpartition(":")
    return context.wrap_socket(socket.create_connection((name, int(port)), timeout=30))


def shown(host: str) -> bytes:
    """The certificate that a new connection is shown."""
    with handshake(host) as connection:
        found = connection.getpeercert(binary_form=True)
        assert found is not None
        return found


def ask_over(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"{}"):
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    return answer


@pytest.mark.client("openssl")
def test_sighup_rereads_the_certificate_and_drops_no_connection(tmp_path: Path) -> None:
    certificate(tmp_path, "first.example")
    (tmp_path / "config.yaml").write_text("tls: {cert: cert.pem, key: key.pem}\n")
    with StartedTls(tmp_path) as mirror:
        first = shown(mirror.host)
        with handshake(mirror.host) as kept:
            assert ask_over(kept).startswith(b"HTTP/1.1 200")
            certificate(tmp_path, "second.example")
            os.kill(mirror.pid, signal.SIGHUP)
            wait_until(lambda: shown(mirror.host) != first, "a new connection is shown the new certificate")
            second = shown(mirror.host)
            assert ask_over(kept).startswith(b"HTTP/1.1 200")
            for broken in (b"", b"garbage", (tmp_path / "cert.pem").read_bytes()):
                failures = len(mirror.events("tls_not_reread"))
                (tmp_path / "key.pem").write_bytes(broken)
                os.kill(mirror.pid, signal.SIGHUP)
                wait_until(lambda: len(mirror.events("tls_not_reread")) > failures, "an error in the log")  # noqa: B023 called before the next turn
                assert shown(mirror.host) == second
                assert ask_over(kept).startswith(b"HTTP/1.1 200")


@pytest.mark.client("openssl")
def test_a_key_that_needs_a_passphrase_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    certificate(tmp_path, "first.example")
    plain, locked = tmp_path / "key.pem", tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", plain, "-out", locked, "-aes256", "-passout", "pass:secret"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    locked.replace(plain)
    (tmp_path / "config.yaml").write_text("tls: {cert: cert.pem, key: key.pem}\n")
    done = subprocess.run(
        [MIRROR, "serve", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["event"] == "cannot_serve"


@pytest.mark.client("openssl")
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("tls: {cert: bad.pem, key: key.pem}", ["bad.pem", "key.pem"]),
        ("tls: {cert: cert.pem, key: bad.pem}", ["cert.pem", "bad.pem"]),
        ("tls: {cert: cert.pem, key: other/key.pem}", ["cert.pem", "other/key.pem"]),
        ("upstreams: {a.example: {ca: bad.pem}}", ["bad.pem"]),
        ("upstreams: {a.example: {client_cert: bad.pem, allow_anonymous: true}}", ["bad.pem"]),
        (
            "upstreams: {a.example: {client_cert: cert.pem, client_key: bad.pem, allow_anonymous: true}}",
            ["cert.pem", "bad.pem"],
        ),
        (
            "upstreams: {a.example: {client_cert: cert.pem, client_key: locked.pem, allow_anonymous: true}}",
            ["cert.pem", "locked.pem"],
        ),
    ],
)
def test_a_certificate_or_key_that_is_none_is_one_line_that_names_it(
    tmp_path: Path, config: str, named: list[str]
) -> None:
    certificate(tmp_path, "first.example")
    (tmp_path / "other").mkdir()
    certificate(tmp_path / "other", "other.example")
    lock = [
        "-in",
        str(tmp_path / "key.pem"),
        "-out",
        str(tmp_path / "locked.pem"),
        "-aes256",
        "-passout",
        "pass:secret",
    ]
    subprocess.run(["openssl", "pkey", *lock], check=True, capture_output=True)
    (tmp_path / "bad.pem").write_text("garbage")
    (tmp_path / "config.yaml").write_text(config)
    done = run(tmp_path, "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert said["event"] == "cannot_serve"
    assert [str(tmp_path / name) in said["reason"] for name in named] == [True] * len(named)


class StartedTls(MirrorProcess):
    """Ready when it has scanned: `/readyz` over https is not what the class below asks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "mirror.log", cwd=folder)

    def status(self, path: str) -> int | None:
        return 200 if self.events("serving") else None


def test_it_serves_what_lies_in_the_folder_that_it_was_started_from(tmp_path: Path, layouts: Path) -> None:
    with MirrorProcess(tmp_path / "mirror.log", cwd=tmp_path) as mirror:
        assert get(mirror.host, "/v2/app/manifests/1.0").status == 200
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with MirrorProcess(tmp_path / "other.log", "--layouts", "../layouts", cwd=elsewhere) as mirror:
        assert get(mirror.host, "/v2/app/manifests/1.0").status == 200


def test_it_says_at_the_start_what_is_served_from_where_and_what_was_skipped_and_why(
    tmp_path: Path, layouts: Path
) -> None:
    (layouts / "bad").mkdir()
    (layouts / "bad" / "oci-layout").write_text("{}")
    (layouts / "bad" / "index.json").write_text("{}")
    with MirrorProcess(tmp_path / "mirror.log", "--layouts", str(layouts), cwd=tmp_path) as mirror:
        (listening,) = mirror.events("listening")
        assert listening["url"] == mirror.url
        assert listening["layouts"] == [str(layouts)]
        wait_until(lambda: bool(mirror.events("serving")), "the first scan's event")
        (serving,) = mirror.events("serving")
        assert (serving["repositories"], serving["tags"]) == (1, 1)
        wait_until(lambda: bool(mirror.events("skipped")), "the event of what it skipped")
        (skipped,) = mirror.events("skipped")
        assert skipped["path"] == str(layouts / "bad")
        assert "oci-layout" in skipped["reason"]


def test_a_cache_that_cannot_be_made_is_exit_status_2_and_a_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder can be made below this")
    done = run(tmp_path, "--listen", "127.0.0.1:0", "--cache", "file/cache")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert str(tmp_path / "file" / "cache") in json.loads(line)["reason"]


def test_the_form_of_log_lines_is_that_of_every_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [str(MIRROR), "serve", "--listen", "127.0.0.1:0", "--workers", "2", "--log-format", "text"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=file, cwd=tmp_path)
    try:
        # The parent's, the workers' and the scan process's.
        words = ("starting_workers", "listening", "skipped")
        wait_until(lambda: all(word in log.read_text() for word in words), "each has said something")
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0
    assert not [line for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_log_that_nobody_reads_holds_up_neither_answers_nor_the_end(
    tmp_path: Path, layouts: Path, count: str
) -> None:
    (tmp_path / "config.yaml").write_text("{layouts: [layouts], access_log: true}")
    command = [str(MIRROR), "serve", "--listen", "127.0.0.1:0", "--workers", count, "--log-format", "json"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as mirror:
        assert mirror.stderr is not None
        said: dict[str, str] = {}
        while said.get("event") != "listening":
            said = json.loads(mirror.stderr.readline())
        # More than a pipe and its reader take.
        with Client(said["url"].removeprefix("http://")) as client:
            for _ in range(2_000):
                client.ask("/v2/", headers={"OCI-REF-NAME": "docker.io/library/ubuntu"})
                assert client.reply().status == 200
        mirror.send_signal(signal.SIGTERM)
        try:
            assert mirror.wait(30) == 0
        finally:
            mirror.kill()
