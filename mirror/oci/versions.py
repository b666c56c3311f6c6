"""Tags in the order of versions: semantic versions first, by their precedence, then all others in ASCII order."""

import re

# semver.org 2.0.0, and what tags are: a leading `v`, one to three numbers, zeros in front.
_VERSION = re.compile(r"[vV]?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?")
_END = "\x01"
_MORE = "\x02"
_RELEASE = "\x7f"


def version_key(tag: str) -> str:
    """A text that sorts, in the order of code points, as the tag does among versions ("" for no tag: last)."""
    found = _VERSION.fullmatch(tag) if tag.isascii() else None
    if found is None:
        return f"1{tag}" if tag else "2"
    numbers = "".join(_number(part or "0") for part in found.groups()[:3])
    if found[4] is None:
        return f"0{numbers}{_RELEASE}"
    # semver 11.4: numbers before words, and of two with the same beginning the shorter first.
    parts = "".join(
        f"{_MORE}0{_number(part)}" if part.isdigit() else f"{_MORE}1{part}{_END}" for part in found[4].split(".")
    )
    return f"0{numbers}{parts}{_END}"


def _number(digits: str) -> str:
    """The longer number is the greater one; a tag has at most 255 characters."""
    plain = digits.lstrip("0")
    return f"{len(plain):03d}{plain}"
