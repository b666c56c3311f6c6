"""What a scalar of the configuration can be before it is checked, and how it is shown without its secrets."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

KeyPath = tuple[str | int, ...]

# Keys whose values are never shown, whatever stands there.
SECRET_KEYS = frozenset({"password", "token"})
_URL_KEYS = frozenset({"endpoints", "url", "proxy"})
MASK = "***"

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_USER_INFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_QUERY = re.compile(r"[?#].*$", re.DOTALL)
_SHOWN_CHARACTERS = 100


class Expected(PydanticCustomError):
    """A value is not what its key takes; `wanted` completes the sentence "expected …"."""

    def __new__(cls, wanted: str) -> "Expected":
        return super().__new__(cls, "expected", "{wanted}", {"wanted": wanted})


class Broken:
    """Stands where a value could not be read, which has been reported: its place in lists stays taken."""


BROKEN = Broken()


class EnvironmentText(str):
    """A string in which `${NAME}` was replaced.

    `written` is the text of the file. `whole`: the scalar was one variable and nothing else, so that its value
    may also be a number, or true or false, where the key takes one.
    """

    __slots__ = ("whole", "written")
    written: str
    whole: bool

    def __new__(cls, text: str, written: str, whole: bool) -> "EnvironmentText":
        self = super().__new__(cls, text)
        self.written, self.whole = written, whole
        return self


class VariableError(ValueError):
    """A `${…}` that cannot be replaced; the message says what was found."""


def replace_variables(text: str, environment: Mapping[str, str]) -> str:
    """`${NAME}` becomes the variable's value, `$${` a plain `${`. Raises VariableError."""

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            raise VariableError("a `${` that begins no `${NAME}`")
        if match[1] not in environment:
            raise VariableError(f"`${{{match[1]}}}`, which is not set in the environment")
        value = environment[match[1]]
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            raise VariableError(f"`${{{match[1]}}}`, whose value is not UTF-8")
        return value

    replaced = _VARIABLE.sub(value_of, text)
    if replaced == text:
        return text
    variables = [match for match in _VARIABLE.finditer(text) if match[1]]
    return (
        EnvironmentText(replaced, text, whole=len(variables) == 1 and variables[0][0] == text)
        if variables
        else replaced
    )


def mask_url(text: str) -> str:
    """`text` without user, password and query: tokens hide in either."""
    return _QUERY.sub("?" + MASK, _USER_INFO.sub(lambda match: (match[1] or "") + MASK + "@", text))


def format_path(path: KeyPath) -> str:
    """`upstreams["docker.io"].tag_ttl`: a key with a dot in it stays one key."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{_quote(mask_url(part) if '@' in part else part)}]"
    return text


def describe(value: Any, path: KeyPath) -> str:
    """What was found at `path`, for a message: never a secret, never long."""
    if isinstance(value, EnvironmentText):
        if SECRET_KEYS.intersection(path):
            return describe_kind(value)
        return f"{describe(str(value), path)} (from `{mask_url(value.written) if '://' in value else value.written}`)"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if SECRET_KEYS.intersection(path):
        return describe_kind(value)
    if isinstance(value, str):
        return _quote(mask_url(value) if "://" in value or _URL_KEYS.intersection(path) else value)
    return json.dumps(value) if isinstance(value, bool) else str(value)


def describe_kind(value: Any) -> str:
    """What sort of value was found, for places where it may be a secret."""
    if isinstance(value, str):
        return "a string (not shown)"
    return "true or false" if isinstance(value, bool) else "a number" if isinstance(value, int | float) else "nothing"


def _quote(text: str) -> str:
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return json.dumps(text, ensure_ascii=False)
