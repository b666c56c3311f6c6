"""config.yaml as plain values, with the line of every key, and what is wrong with the YAML itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mirror.config.errors import ConfigError, Problem
from mirror.config.values import BROKEN, KeyPath, VariableError, replace_variables

# Far above any configuration written by hand, far below what would hurt: `--config /dev/zero`, alias bombs.
MAX_FILE_BYTES = 4 << 20
MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_UNIQUE = "each key once"


@dataclass
class Document:
    """What a file says. `lines` and `origins` (options of the command line) are found by key path."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, found: str, expected: str, line: int | None = None) -> None:
        """Note what is wrong at `path`; its line, where not given, is that of the nearest key around it."""
        parts = [path[:length] for length in range(len(path), 0, -1)]
        option = next((self.origins[part] for part in parts if part in self.origins), None)
        if option is None and line is None:
            line = next((self.lines[part] for part in parts if part in self.lines), None)
        self.problems.append(Problem(path, found, expected, option or self.name, None if option else line))

    def at(self, path: KeyPath) -> Any:
        """The value at `path`, as written; None where nothing is, the string that stands for a mapping as itself."""
        value: Any = self.values
        for part in path:
            if isinstance(value, str):
                return value
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def read_document(path: Path, environment: Mapping[str, str]) -> Document:
    """The file at `path`, variables replaced; what is wrong inside it is noted in the document.

    Raises ConfigError where there is no YAML to speak of: no file, not UTF-8, a syntax error.
    """
    document = Document(str(path))
    text = _read_text(path)
    try:
        loader = _Loader(text, document, environment)
        node = loader.get_single_node()
        values = None if node is None else loader.build(node, ())
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(error, str(path), text)]) from None
    except RecursionError:
        raise ConfigError([Problem((), "values nested without end", "a few levels", str(path))]) from None
    if isinstance(values, dict):
        document.values = values
    elif values is not None:
        document.problem((), "a list" if isinstance(values, list) else "a single value", "keys with values", 1)
    return document


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = "a directory" if isinstance(error, IsADirectoryError) else (error.strerror or str(error)).lower()
        raise ConfigError([Problem((), reason, "a readable YAML file", str(path))]) from None
    except ValueError:
        raise ConfigError([Problem((), "a path with a NUL in it", "a readable YAML file", str(path))]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([Problem((), "more than 4 MiB", "a configuration", str(path))])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem((), "bytes that are not UTF-8", "a file in UTF-8", str(path), line)]) from None


def _syntax_problem(error: yaml.YAMLError, name: str, text: str) -> Problem:
    """Only the rule that was broken is told, never the line's content: it may hold a password."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        found = error.problem or "a syntax error"
        if "alias" in found:
            found = "an alias (*name) that no anchor (&name) defines"
        elif "anchor" in found or "tag" in found:
            found = "an anchor or tag that YAML does not allow here"
        column = f", column {mark.column + 1}" if mark else ""
        return Problem((), found + column, "valid YAML", name, mark.line + 1 if mark else None)
    position = getattr(error, "position", 0)
    return Problem((), "a control character", "valid YAML", name, text.count("\n", 0, position) + 1)


class _Loader(yaml.SafeLoader):
    """Values with their lines; a key written twice is noted rather than overwritten.

    Dates stay strings: no key takes one, and a password may look like one.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML declares it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, document: Document, environment: Mapping[str, str]) -> None:
        super().__init__(text)
        self.document = document
        self.environment = environment
        self.active: set[int] = set()
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of `node`, which stands at `path`; `BROKEN` where a problem was noted instead."""
        line = node.start_mark.line + 1
        self.document.lines.setdefault(path, line)
        self.count += 1
        if self.count > MAX_VALUES:
            raise RecursionError
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            return self._broken(path, "a YAML tag", "a plain value", line)
        if id(node) in self.active:
            return self._broken(path, "an alias of what it stands in", "a value that ends", line)
        self.active.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        finally:
            self.active.discard(id(node))

    def _broken(self, path: KeyPath, found: str, expected: str, line: int) -> Any:
        self.document.problem(path, found, expected, line)
        return BROKEN

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        first_lines: dict[str, int] = {}
        values: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.document.problem(path, "a list or a mapping as a key", "a name as a key", line)
            elif key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif key.value in first_lines:
                found = f"the key again, on line {line} after line {first_lines[key.value]}"
                self.document.problem((*path, key.value), found, _UNIQUE, line)
            else:
                first_lines[key.value] = line
                self.document.lines.setdefault((*path, key.value), line)
                values[key.value] = self.build(value, (*path, key.value))
        for other in merged:
            inherited = self.build(other, path)
            if isinstance(inherited, dict):
                values = {**inherited, **values}
            else:
                self.document.problem(path, "something else to merge (<<)", "a mapping", other.start_mark.line + 1)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath, line: int) -> Any:
        kind = node.tag.removeprefix(_TAG)
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return self.construct_yaml_bool(node)
                case "int":
                    return self.construct_yaml_int(node)
                case "float":
                    return self.construct_yaml_float(node)
                case "str" | "value":
                    return replace_variables(node.value, self.environment)
        except VariableError as error:
            return self._broken(
                path, str(error), "`${NAME}` of a variable that is set, or `$${` for a plain `${`", line
            )
        except (ValueError, KeyError, ArithmeticError):
            return node.value
        return self._broken(path, "a YAML tag", "a plain value", line)
