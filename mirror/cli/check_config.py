"""`mirror check-config`: the effective configuration, or everything that is wrong with it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from mirror.config import Config, ConfigError, load


def run(
    config_path: Path | None,
    *,
    layouts: Sequence[str] = (),
    cache: str | None = None,
    listen: str | None = None,
    workers: str | None = None,
    as_json: bool = False,
) -> int:
    """Print the configuration with its secrets masked, as YAML that can be read again, or as JSON.

    Returns the exit status: 0, or 2 with the problems on stderr (with `as_json`, as a document on stdout).
    """
    try:
        config = load(config_path, layouts=layouts, cache=cache, listen=listen, workers=workers)
    except ConfigError as error:
        if as_json:
            print(json.dumps({"problems": [problem.to_json() for problem in error.problems]}, indent=2))
        else:
            print(error, file=sys.stderr)
        return error.exit_status
    print(to_json(config) if as_json else to_yaml(config), end="")
    return 0


def to_yaml(config: Config) -> str:
    """The effective configuration, every key written out, as YAML."""
    source = f"# from {config.source}\n" if config.source else "# no configuration file: defaults\n"
    document = config.model_dump(mode="json", by_alias=True)
    return source + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def to_json(config: Config) -> str:
    return json.dumps(config.model_dump(mode="json", by_alias=True), indent=2) + "\n"
