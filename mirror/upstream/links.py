"""Link headers: where the next page of a list is (RFC 8288, 3; distribution-spec 1.1, "Listing Tags")."""

import re
from collections.abc import Iterable

# Read piece by piece: one expression for a whole header could be made to try for ever.
_TARGET = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(r"\s*;\s*([^\s;,=\"<>]+)(?:\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"<>]+)))?")


def parse_next(headers: Iterable[str]) -> str | None:
    """The target of the first link whose `rel` has `next` in it; None where there is none. Never raises."""
    for header in headers:
        position = 0
        while target := _TARGET.match(header, position):
            position = target.end()
            found = False
            while parameter := _PARAMETER.match(header, position):
                position = parameter.end()
                relations = (parameter[2] or parameter[3] or "").lower().split()
                found = found or (parameter[1].lower() == "rel" and "next" in relations)
            if found:
                return target[1]
    return None
