"""From a document to a Config: every problem that pydantic finds, told in this program's words."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mirror.config.checks import check, check_hosts
from mirror.config.document import Document
from mirror.config.errors import ConfigError
from mirror.config.models import Cache, Config, Endpoint, LayoutRoot, Repositories, Tls, Upstream
from mirror.config.values import BROKEN, KeyPath, describe, describe_kind

_WANTED = {
    "model_type": "a mapping of keys",
    "mapping_type": "a mapping of keys",
    "tuple_type": "a list",
}


def validate(document: Document, folder: Path) -> Config:
    """The checked configuration; relative paths are below `folder`. Raises ConfigError with all problems."""
    context = {"folder": folder}
    check_hosts(document)
    config, errors = _attempt(document.values, context)
    broken = [_note(document, details) for details in errors]
    if config is None:
        config = _validate_rest(document.values, broken, context)
    if config is not None:
        check(config, document, broken)
    if document.problems:
        raise ConfigError(sorted(document.problems, key=lambda problem: problem.line or 0))
    assert config is not None  # noqa: S101  no problem, so nothing was raised
    return config


def _note(document: Document, details: ErrorDetails) -> KeyPath:
    """Put one of pydantic's errors into the document's problems, and return where it is."""
    path: KeyPath = details["loc"]
    value = document.at(path)
    context = details.get("ctx", {})
    match details["type"]:
        case _ if value is BROKEN or any(document.at(path[:length]) is BROKEN for length in range(len(path))):
            pass  # told when it was read
        case "extra_forbidden":
            document.problem(path, "an unknown key", _nearest_key(path))
        case "missing":
            document.problem(path, "nothing", "a value: this key is needed")
        case "expected":
            document.problem(path, describe(value, path), str(context["wanted"]))
        case "literal_error":
            document.problem(path, describe(value, path), str(context["expected"]).replace("'", ""))
        case "model_type" | "mapping_type" if isinstance(value, bool | int | float | str):
            # A password in the wrong place is a password still.
            document.problem(path, describe_kind(value), _WANTED[details["type"]])
        case kind:
            document.problem(path, describe(value, path), _WANTED.get(kind, details["msg"].lower()))
    return path


def _nearest_key(path: KeyPath) -> str:
    keys = _keys_at(path[:-1])
    near = difflib.get_close_matches(str(path[-1]), keys, n=1, cutoff=0.5)
    return f"a known one; did you mean {near[0]}?" if near else f"one of {', '.join(keys)}"


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that the mapping at `path` takes."""
    section: type[BaseModel] = Config
    match path:
        case ("tls",):
            section = Tls
        case ("cache",):
            section = Cache
        case ("layouts", _):
            section = LayoutRoot
        case ("upstreams", _):
            section = Upstream
        case ("upstreams", _, "endpoints", _):
            section = Endpoint
        case ("upstreams", _, "repositories"):
            section = Repositories
    return [field.alias or name for name, field in section.model_fields.items()]


def _attempt(values: Any, context: dict[str, Path]) -> tuple[Config | None, list[ErrorDetails]]:
    try:
        return Config.model_validate(values, context=context), []
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=False)


def _validate_rest(values: Any, broken: list[KeyPath], context: dict[str, Path]) -> Config | None:
    """What the document says without its broken parts, so that the rest is checked in the same go.

    A section that lacks what it needs goes as a whole, which shows when the broken key is gone: hence two rounds.
    """
    gone = list(broken)
    for _ in range(2):
        config, errors = _attempt(_without(values, (), frozenset(gone)), context)
        if config is not None:
            return config
        gone += [details["loc"][:-1] if details["type"] == "missing" else details["loc"] for details in errors]
    return None


def _without(value: Any, path: KeyPath, broken: frozenset[KeyPath]) -> Any:
    """A copy of `value` without what is broken; an entry of a list goes as a whole."""
    if isinstance(value, dict):
        return {
            key: _without(child, (*path, key), broken) for key, child in value.items() if (*path, key) not in broken
        }
    if isinstance(value, list):
        kept = []
        for index, child in enumerate(value):
            here = (*path, index)
            if not any(bad[: len(here)] == here for bad in broken):
                kept.append(_without(child, here, broken))
        return kept
    return value
