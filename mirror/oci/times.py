"""Times as RFC 3339 writes them, and as Unix milliseconds."""

import re
from datetime import UTC, datetime, timedelta, timezone

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_ms(text: str) -> int | None:
    """Unix milliseconds, cut off; None where `text` is no RFC 3339 time, in UTC between the years 1 and 9999."""
    found = _RFC_3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    try:
        zone = timezone(-offset if found[8] == "-" else offset)
        # A leap second is the last moment that the calendar of this library knows.
        moment = datetime(year, month, day, hour, minute, min(second, 59) if second == 60 else second, tzinfo=zone)
        whole = moment.astimezone(UTC) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (whole.days * 86_400 + whole.seconds) * 1000 + int(f"{found[7] or ''}000"[:3])


def format_time_ms(ms: int) -> str:
    """In UTC; milliseconds are written where there are any."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")
