"""A mirror in front of registries, as its users configure it."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mirror.oci.digest import Digest
from tests.clients import sample
from tests.clients.commands import Commands, client_environment
from tests.clients.registries import Registry
from tests.server_process import MirrorProcess

# Every pull of a tag asks, so that nothing is served unseen because it is young.
ALWAYS_ASK = {"tag_ttl": 0, "referrers_ttl": 0}


def upstream(url: str, **keys: Any) -> dict[str, Any]:
    """The configuration of an upstream behind `url`."""
    return {"endpoints": [url], **ALWAYS_ASK, **keys}


@contextlib.contextmanager
def mirroring(folder: Path, upstreams: Mapping[str, Any], **keys: Any) -> Iterator[MirrorProcess]:
    """`mirror serve` with its config.yaml and its cache in `folder`; `keys` as in that file."""
    config = write_config(folder, upstreams, **keys)
    listen = ("--listen", keys["listen"]) if "listen" in keys else ()
    with MirrorProcess(folder / "mirror.log", "--config", str(config), *listen) as mirror:
        yield mirror


def write_config(folder: Path, upstreams: Mapping[str, Any], **keys: Any) -> Path:
    """Write `folder`/config.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"upstreams": dict(upstreams), **keys}))
    return config


def fill(command: str, folder: Path) -> tuple[Path, dict[str, Digest]]:
    """A registry's storage: the sample with its referrers, the same with Docker's media types, both in two places.

    Gives the storage and the digest of each repository's `latest`.
    """
    storage = folder / "storage"
    run = Commands(client_environment(folder / "home"))
    try:
        with Registry(command, folder, storage) as registry:
            run("regctl", "registry", "set", "--tls=disabled", registry.host)
            copy = ["regctl", "image", "copy", "--referrers", "--digest-tags", f"ocidir://{sample.LAYOUT}:latest"]
            for name in ("library/hello", "team/hello"):
                run(*copy, f"{registry.host}/{name}:latest")
            run(
                *("skopeo", "copy", "--all", "--format", "v2s2", "--dest-tls-verify=false"),
                *(f"oci:{sample.LAYOUT}:latest", f"docker://{registry.host}/library/schema2:latest"),
            )
            schema2 = Digest.parse(run("crane", "digest", f"{registry.host}/library/schema2:latest"))
    finally:
        shutil.rmtree(folder / "home", ignore_errors=True)
    return storage, {"hello": sample.INDEX, "schema2": schema2}


def quiet(mirror: MirrorProcess) -> None:
    """Nothing in the log that would trouble an operator, but that a registry that was stopped is left alone."""
    loud = [event for event in mirror.events() if event["level"] not in ("info", "debug")]
    assert [event for event in loud if event["event"] != "upstream_left_alone"] == []
