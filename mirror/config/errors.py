"""What is wrong with a configuration: all of it at once, each with its place."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mirror.config.values import KeyPath, format_path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. `origin` is the file, or the option of the command line; neither text holds a secret."""

    path: KeyPath
    found: str
    expected: str
    origin: str = "defaults"
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.origin}:{self.line}" if self.line else self.origin
        key = f"{format_path(self.path)}: " if self.path else ""
        return f"{place}: {key}found {self.found}, expected {self.expected}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": format_path(self.path)}


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are all that could be found, in the order of the file."""

    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))
