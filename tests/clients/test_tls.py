"""Clients that check the listener's certificate."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import sample
from tests.clients.commands import Commands, podman
from tests.clients.conftest import Containerd
from tests.server_process import MirrorProcess


@pytest.fixture
def authority(run: Commands, tmp_path: Path) -> Path:
    """A folder as containers' tools take it for `--cert-dir`: `ca.crt`, which signed itself for 127.0.0.1."""
    folder = tmp_path / "certs"
    folder.mkdir()
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"),
        *("-days", "2", "-subj", "/CN=mirror", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", folder.parent / "tls.key", "-out", folder / "ca.crt"),
    )
    return folder


@contextlib.contextmanager
def listening(authority: Path) -> Iterator[str]:
    """`host:port` of a mirror that serves the sample behind that certificate."""
    config = authority.parent / "config.yaml"
    config.write_text(
        f"""listen: 127.0.0.1:0
tls: {{cert: {authority}/ca.crt, key: {authority.parent}/tls.key}}
layouts:
  - path: {sample.LAYOUTS}
"""
    )
    with MirrorProcess(authority.parent / "mirror.log", "--config", str(config)) as mirror:
        assert mirror.url.startswith("https://")
        yield mirror.host


@pytest.mark.client("openssl", "crane", "skopeo", "podman")
def test_crane_skopeo_and_podman_trust_the_listener_whose_authority_they_know(authority: Path, run: Commands) -> None:
    with listening(authority) as host:
        image = f"{host}/hello:latest"
        assert "certificate" in run.refused("skopeo", "inspect", "--raw", f"docker://{image}")
        trusting = Commands({**run.environment, "SSL_CERT_FILE": str(authority / "ca.crt")})
        assert trusting("crane", "digest", image) == sample.INDEX
        raw = run.output("skopeo", "inspect", "--raw", "--cert-dir", authority, f"docker://{image}")
        assert raw == sample.read(sample.INDEX)
        pulled = run(*podman(run.home), "pull", "--quiet", "--cert-dir", authority, image)
        assert pulled == sample.NATIVE.config.hex


@pytest.mark.xdist_group("daemons")
@pytest.mark.client("openssl", "containerd", "ctr")
def test_containerd_trusts_the_listener_whose_authority_it_knows(
    authority: Path, containerd: Containerd, tmp_path: Path
) -> None:
    with listening(authority) as host:
        # By itself it speaks plain http to loopback, certificate or not.
        hosts = tmp_path / "hosts" / host / "hosts.toml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text(
            f"""server = "https://{host}"
[host."https://{host}"]
  capabilities = ["pull", "resolve"]
  ca = "{authority}/ca.crt"
"""
        )
        image = f"{host}/hello:latest"
        containerd("images", "pull", "--hosts-dir", tmp_path / "hosts", image)
        _, listed = containerd("images", "ls", f"name=={image}").splitlines()
        assert listed.split()[2] == sample.INDEX
        containerd("images", "rm", "--sync", image)
