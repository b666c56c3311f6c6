"""Sizes and durations as people write them: `50GiB`, `1.5h`."""

import re
from decimal import Decimal

from mirror.config.values import Expected

SIZE_UNITS = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}
DURATION_UNITS = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
# What a file's offset can hold, and far longer than any process lives: numbers beyond are slips of the finger.
MAX_SIZE_BYTES = (1 << 63) - 1
MAX_DURATION_SECONDS = 36_500 * 86_400

# Digits are bounded, so that no text costs more than a glance.
_NUMBER = r"([0-9]{1,19}(?:\.[0-9]{1,40})?)"
_SIZE = re.compile(rf"{_NUMBER}(KiB|MiB|GiB|TiB)")
_BYTES = re.compile(r"[0-9]{1,19}")
_DURATION = re.compile(rf"{_NUMBER}(ms|s|m|h|d)")

SIZE_WANTED = "a size: bytes as a number, or with a unit, KiB, MiB, GiB or TiB, such as 50GiB"
DURATION_WANTED = "a duration with a unit, ms, s, m, h or d, such as 60s"


def parse_size(text: str) -> int:
    """Bytes that `text` means, rounded down; plain digits are bytes. Raises Expected."""
    if _BYTES.fullmatch(text):
        size_bytes = int(text)
    elif match := _SIZE.fullmatch(text):
        size_bytes = int(Decimal(match[1]) * SIZE_UNITS[match[2]])
    else:
        raise Expected(SIZE_WANTED)
    if size_bytes > MAX_SIZE_BYTES:
        raise Expected("a size below 8388608TiB")
    return size_bytes


def parse_duration(text: str) -> float:
    """Seconds that `text` means; without a unit only `0` means something. Raises Expected."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Expected(DURATION_WANTED)
    seconds = Decimal(match[1]) * DURATION_UNITS[match[2]]
    if seconds > MAX_DURATION_SECONDS:
        raise Expected("a duration of at most 36500d")
    return float(seconds)


def format_size(size_bytes: int) -> str | int:
    """The shortest exact spelling that `parse_size` reads back, or the number itself."""
    for unit, factor in SIZE_UNITS.items():
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return size_bytes


def format_duration(seconds: float) -> str:
    """A whole number of the largest unit that divides `seconds`, else a fraction of seconds; reads back exactly."""
    exact = Decimal(repr(seconds))
    if not exact:
        return "0s"
    for unit, factor in DURATION_UNITS.items():
        count = exact / factor
        if count == count.to_integral_value():
            return f"{int(count)}{unit}"
    return f"{exact:f}s"
