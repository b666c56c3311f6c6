"""The table as a picture (SVG): for each case how far each server comes, the file server being 1."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.table import Row

# Server → colour; both are read on white and on black.
COLOURS = {"mirror, 2 workers": "#2f7ed8", "distribution 3": "#e08a1e", "distribution 2.8": "#9a9a9a"}
_LABEL_PX, _UNIT_PX, _BAR_PX, _GAP_PX, _TOP_PX = 210, 260, 9, 8, 44
# Ratios beyond are cut off there; the number beside the bar tells.
_MOST = 2.2


def picture(rows: Sequence[Row], base: str) -> str:
    """An SVG document. Cases that the base was not asked are left out."""
    drawn = [row for row in rows if row.median(base)]
    names = [name for name in COLOURS if any(row.median(name) for row in drawn)]
    row_px = len(names) * _BAR_PX + _GAP_PX
    width, height = _LABEL_PX + int(_MOST * _UNIT_PX) + 50, _TOP_PX + len(drawn) * row_px + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(names, base),
    ]
    for number, row in enumerate(drawn):
        parts.extend(_row(row, base, names, _TOP_PX + number * row_px))
    line_px = _LABEL_PX + _UNIT_PX
    parts.append(
        f'<line x1="{line_px}" y1="{_TOP_PX - 4}" x2="{line_px}" y2="{height - 10}" stroke="black" '
        'stroke-dasharray="3 3"/></svg>'
    )
    return "\n".join(parts) + "\n"


def _legend(names: Sequence[str], base: str) -> list[str]:
    parts, left = [], _LABEL_PX
    for name in names:
        parts.append(f'<rect x="{left}" y="10" width="10" height="10" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{left + 15}" y="19">{escape(name)}</text>')
        left += 40 + 7 * len(name)
    parts.append(f'<text x="{left}" y="19">dashed: {escape(base)} = 1</text>')
    return parts


def _row(row: Row, base: str, names: Sequence[str], top: int) -> list[str]:
    middle = top + len(names) * _BAR_PX / 2 + 4
    parts = [f'<text x="{_LABEL_PX - 8}" y="{middle:g}" text-anchor="end">{escape(row.case)}</text>']
    reference = row.median(base)
    for place, name in enumerate(names):
        median = row.median(name)
        if median is None or not reference:
            continue
        ratio, y = median / reference, top + place * _BAR_PX
        length = min(ratio, _MOST) * _UNIT_PX
        parts.append(
            f'<rect x="{_LABEL_PX}" y="{y}" width="{length:.1f}" height="{_BAR_PX - 1}" fill="{COLOURS[name]}"/>'
        )
        parts.append(f'<text x="{_LABEL_PX + length + 4:.1f}" y="{y + 8}" font-size="9">{ratio:.2f}</text>')
    return parts
