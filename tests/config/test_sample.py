"""The commented config.yaml of the repository is documentation that is loaded, so that it stays true."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror.config import Cache, Config, Endpoint, LayoutRoot, Repositories, Tls, Upstream, load
from mirror.config.units import parse_duration
from mirror.config.values import Expected

SAMPLE = Path(__file__).parents[2] / "config.yaml"
FILES = ["tls.crt", "tls.key", "corp.pem", "password.txt", "client.crt", "client.key", "docker-config.json"]
ENVIRONMENT = {"MIRROR_PASSWORD": "hunter2", "MIRROR_TOKEN": "hunter2"}


@pytest.fixture
def uncommented(tmp_path: Path) -> Path:
    """The sample with its examples made active, and the files that they name."""
    text = re.sub(r"^#: ", "", SAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    # What was prose stays prose: no example line is left behind.
    assert not re.search(r"^#:", text, flags=re.MULTILINE)
    for name in FILES:
        (tmp_path / name).touch()
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_sample_serves_the_sample_layouts_and_contacts_nobody() -> None:
    config = load(SAMPLE, environment={})
    assert [root.path for root in config.layouts] == [SAMPLE.parent / "layouts"]
    assert str(config.listen) == "127.0.0.1:5000"
    assert config.cache.path == SAMPLE.parent / "cache"
    assert config.upstreams == {}


def test_every_example_of_the_sample_is_valid(uncommented: Path) -> None:
    config = load(uncommented, environment=ENVIRONMENT)
    assert [root.path.name for root in config.layouts] == ["layouts", "bundles", "team-archives"]
    assert {"docker.io", "quay.io", "registry.corp.example"} < set(config.upstreams)
    assert config.tls is not None


def keys_of(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from keys_of(value)
    elif isinstance(document, list):
        for value in document:
            yield from keys_of(value)


def test_the_sample_shows_every_key(uncommented: Path) -> None:
    shown = set(keys_of(yaml.safe_load(uncommented.read_text("utf-8"))))
    models = (Config, Tls, Cache, LayoutRoot, Upstream, Endpoint, Repositories)
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert keys - shown == set()


STATED = re.compile(r"^(?:#: )?[ -]*(\w+):[^#\n]*#.*\(default ([^)]*)\)", re.MULTILINE)


def same(stated: Any, default: Any) -> bool:
    if stated == default:
        return True
    try:
        return parse_duration(str(stated)) == parse_duration(str(default))
    except Expected:
        return False


def test_every_default_that_the_sample_states_is_the_default() -> None:
    empty = Path("/")
    config = Config.model_validate({"layouts": ["x"], "upstreams": {"a.b": {}}}, context={"folder": empty})
    document = config.model_dump(mode="json", by_alias=True)
    document["cache"]["path"] = document["cache"]["path"].removeprefix("/")
    upstream = document["upstreams"]["a.b"]
    sections = [document, document["cache"], document["layouts"][0], upstream, upstream["repositories"]]
    sections.append(upstream["endpoints"][0])
    stated = [(key, yaml.safe_load(text)) for key, text in STATED.findall(SAMPLE.read_text("utf-8"))]
    assert len(stated) > 30
    for key, text in stated:
        assert any(key in section and same(text, section[key]) for section in sections), (key, text)
