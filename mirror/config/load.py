"""Where a configuration comes from: a file, the command line, the defaults."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirror.config.document import Document, read_document
from mirror.config.models import Config
from mirror.config.validate import validate

DEFAULT_FILE = Path("config.yaml")
DEFAULT_LAYOUTS = "layouts"


def load(
    path: Path | None,
    *,
    layouts: Sequence[str] = (),
    cache: str | None = None,
    listen: str | None = None,
    workers: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The configuration of the file at `path`, in which the other values of the command line replace its own.

    Without `path`, `./config.yaml` is read where there is one, else `./layouts` is served. `environment` is
    this process's unless given. Raises ConfigError with everything that is wrong.
    """
    source = path
    if source is None and os.path.lexists(DEFAULT_FILE):
        source = DEFAULT_FILE
    if source is None:
        document = Document("defaults", {"layouts": [DEFAULT_LAYOUTS]})
        folder = Path.cwd()
    else:
        document = read_document(source, os.environ if environment is None else environment)
        # Not resolved: paths are relative to where the file was named, also when that is a link.
        folder = source.absolute().parent
    _override(document, layouts, cache, listen, workers)
    config = validate(document, folder)
    config._source = source.absolute() if source is not None else None
    return config


def _override(
    document: Document, layouts: Sequence[str], cache: str | None, listen: str | None, workers: str | None
) -> None:
    """Put the command line's values in the place of the file's; its paths are relative to the working directory."""
    values = document.values
    if layouts:
        values["layouts"] = [{"path": _from_here(folder)} for folder in layouts]
        document.origins["layouts",] = "--layouts"
    if cache is not None:
        section = values.get("cache")
        if section is None or isinstance(section, dict):
            values["cache"] = {**(section or {}), "path": _from_here(cache)}
            document.origins["cache", "path"] = "--cache"
    if listen is not None:
        values["listen"] = listen
        document.origins["listen",] = "--listen"
    if workers is not None:
        values["workers"] = _number_or_text(workers)
        document.origins["workers",] = "--workers"


def _from_here(path: str) -> Any:
    # An empty path is left for validation to refuse, rather than meaning the working directory.
    return str(Path.cwd() / path) if path else path


def _number_or_text(value: str) -> int | str:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
