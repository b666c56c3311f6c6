from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mirror.config import Config, ConfigError, load

Load = Callable[..., Config]
Refuse = Callable[..., str]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Loads a text as `config.yaml` of an empty folder, with no variable set but those given."""

    def read(text: str, environment: Mapping[str, str] | None = None) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, environment=environment or {})

    return read


@pytest.fixture
def refuse(read: Load, tmp_path: Path) -> Refuse:
    """The problems of a text that must be refused, one a line, without the folder's name."""

    def refuse(text: str, environment: Mapping[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            read(text, environment)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refuse
