"""What the search index is told of one manifest, and of one row."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Facts:
    """What a manifest's own content, and that of its children and config, tells. `created_ms`: Unix milliseconds.

    `size` in bytes, everything below included. `children` are the manifests that an index lists.
    """

    media_type: str
    artifact_type: str | None = None
    kind: str | None = None
    platforms: tuple[str, ...] = ()
    size: int = 0
    created_ms: int | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    children: tuple[tuple[str, str, int], ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Facts":
        document = json.loads(text)
        document["platforms"] = tuple(document["platforms"])
        document["children"] = tuple(tuple(child) for child in document["children"])
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row to be. `seen_ms`: since when it is known to be here, where that is known; Unix milliseconds."""

    tag: str
    digest: str
    facts: Facts
    seen_ms: int | None = None


def joined(texts: Sequence[object]) -> str:
    """A list within a row: `,a,b,`, so that each can be looked for between commas."""
    return f",{','.join(map(str, texts))}," if texts else ""


def split_listed(listed: str) -> list[str]:
    """What `joined` joined."""
    return listed.strip(",").split(",") if listed else []
