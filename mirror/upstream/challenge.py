"""WWW-Authenticate: which ways to authenticate a server offers (RFC 9110, 11.3 and 11.6.1)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 a grammar
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))(?=[ \t]*(?:,|$))')
# token68, as Negotiate uses it: a value by itself, which ends the challenge.
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|$))")
_GAP = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate. `scheme` and the names of `parameters` are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of all WWW-Authenticate headers, in their order.

    A header may hold several, separated by the same comma that separates parameters: a word followed by `=` is a
    parameter, one that is not is a scheme. What cannot be read ends its header; it never raises.
    """
    return [challenge for header in headers for challenge in _parse(header)]


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = _end(_GAP.match(header, 0))
    while position < len(header):
        # A parameter cannot come before the first scheme.
        if found and (match := _PARAMETER.match(header, position)):
            quoted, plain = match[2], match[3]
            value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
            parameters.setdefault(match[1].lower(), value)
        elif match := _SCHEME.match(header, position):
            parameters = {}
            found.append(Challenge(match[1].lower(), parameters))
            # Directly behind its scheme, a word that is no parameter is the scheme's token68.
            after = _end(re.compile(r"[ \t]+").match(header, match.end()))
            if after and not _PARAMETER.match(header, after) and (value68 := _TOKEN68.match(header, after)):
                match = value68
        else:
            break
        position = _end(_GAP.match(header, match.end()))
    return found


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0
