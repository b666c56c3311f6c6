"""The filters of a search, as SQL."""

import json
from collections.abc import Sequence

from mirror.store.search_pages import Conditions
from mirror.store.search_query import Query


def conditions(query: Query, hidden: Sequence[int]) -> Conditions:
    """What fits a query that does not see the repositories of these numbers."""
    fits = Conditions()
    if hidden:
        fits = fits.also("repository NOT IN (SELECT value FROM json_each(?))", json.dumps(list(hidden)))
    if query.digest is not None:
        fits = fits.also("digest = ?", query.digest)
    for column, low, high in (
        ("first_seen", query.since_ms, query.until_ms),
        ("created", query.created_since_ms, query.created_until_ms),
    ):
        # `+`: not by an index, which would be slower where much fits.
        fits = fits if low is None else fits.also(f"+{column} >= ?", low)
        fits = fits if high is None else fits.also(f"+{column} < ?", high)
    if query.kind == "version":
        fits = fits.also("tag != ''")
    elif query.kind == "artifact":
        images = "(SELECT id FROM texts WHERE text IN ('oci-image', 'docker-image'))"
        fits = fits.also(f"(kind IS NULL OR kind NOT IN {images})")
    if query.type is not None:
        fits = fits.also("(SELECT id FROM texts WHERE text = ?) IN (kind, media_type, artifact_type)", query.type)
    if query.platform is not None:
        listed = (f",{query.platform},", f",{query.platform}/")
        fits = fits.also("platforms IN (SELECT id FROM texts WHERE instr(text, ?) OR instr(text, ?))", *listed)
    for pair in query.annotations:
        number = "(SELECT ',' || id || ',' FROM annotations WHERE key = ? AND value = ?)"
        fits = fits.also(f"instr(annotations, {number})", *pair)
    return _with_text(fits, query.text)


def _with_text(fits: Conditions, text: str) -> Conditions:
    """`text` in `name:tag`, or a pattern that all of the name or of `name:tag` fits."""
    inner = text.strip("*")
    if "*" not in inner and (inner == text or text[0] == text[-1] == "*"):
        return fits.also("instr(words, ?)", inner) if inner else fits
    pattern = text.replace("[", "[[]").replace("?", "[?]")
    return fits.also("(words GLOB ? OR name GLOB ?)", pattern, pattern)
