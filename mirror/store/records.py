"""What `_index.json` and `_journal` hold: one descriptor per tag, and one per manifest that no tag points at.

`_index.json` is an OCI image index (image-spec 1.1, image-index.md) with one descriptor per line; `_journal` has the
same lines for what was put since, and what was forgotten, so that a put does not rewrite a large index.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import DigestInvalid, ManifestInvalid

REF_NAME = "org.opencontainers.image.ref.name"
FETCHED = "dev.mirror.fetched"
ETAG = "dev.mirror.etag"

_HEAD = '{"schemaVersion":2,"mediaType":"' + media_types.OCI_INDEX + '","manifests":['
_COMPACT = (",", ":")


@dataclass(frozen=True, slots=True)
class Record:
    """A manifest that was fetched, and the tag that it was fetched by, if any. `fetched_at` in Unix seconds."""

    descriptor: Descriptor
    tag: str | None
    fetched_at: float
    etag: str | None = None

    def to_line(self) -> str:
        """A descriptor on one line; of the descriptor itself only what serving needs is kept."""
        annotations = {REF_NAME: self.tag} if self.tag is not None else {}
        annotations[FETCHED] = format_time(self.fetched_at)
        if self.etag:
            annotations[ETAG] = self.etag
        kept = Descriptor(
            self.descriptor.media_type, self.descriptor.digest, self.descriptor.size, annotations=annotations
        )
        return json.dumps(kept.to_json(), separators=_COMPACT)

    @classmethod
    def from_json(cls, document: Any) -> "Record":
        """Raises ManifestInvalid."""
        found = Descriptor.from_json(document)
        return cls(
            Descriptor(found.media_type, found.digest, found.size),
            found.annotations.get(REF_NAME),
            parse_time(found.annotations.get(FETCHED)),
            found.annotations.get(ETAG),
        )


def forget_tag_line(tag: str) -> str:
    return json.dumps({"forget": tag}, separators=_COMPACT)


def forget_digest_line(digest: Digest) -> str:
    return json.dumps({"drop": digest}, separators=_COMPACT)


class Table:
    """The tags and manifests of one repository. Lines that say nothing (a torn write) are passed over."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.tags: dict[str, Record] = {}
        self.manifests: dict[Digest, Record] = {}
        self._sorted: tuple[str, ...] | None = None
        for record in records:
            self._put(record)

    def apply(self, lines: Iterable[str]) -> None:
        """Bring the table forward by lines of the journal, in their order."""
        for line in lines:
            try:
                document = json.loads(line)
                match document:
                    case {"forget": str(tag)}:
                        self._forget(tag)
                    case {"drop": str(digest)}:
                        self.manifests.pop(Digest.parse(digest), None)
                    case _:
                        self._put(Record.from_json(document))
            except (ValueError, RecursionError, ManifestInvalid, DigestInvalid):
                continue

    def sorted_tags(self) -> tuple[str, ...]:
        """In ASCII order."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self.tags))
        return self._sorted

    def to_index(self) -> bytes:
        """The whole table as an OCI image index, one descriptor per line, tags first."""
        tagged = {record.descriptor.digest for record in self.tags.values()}
        lines = [self.tags[tag].to_line() for tag in self.sorted_tags()]
        lines += [record.to_line() for digest, record in self.manifests.items() if digest not in tagged]
        return (_HEAD + "\n" + ",\n".join(lines) + "\n]}\n").encode()

    def _put(self, record: Record) -> None:
        if record.tag is not None:
            if record.tag not in self.tags:
                self._sorted = None
            self.tags[record.tag] = record
        # Without the tag: it may move on, and this manifest stays.
        self.manifests[record.descriptor.digest] = Record(record.descriptor, None, record.fetched_at, record.etag)

    def _forget(self, tag: str) -> None:
        if self.tags.pop(tag, None) is not None:
            self._sorted = None


def parse_index(content: bytes) -> Iterator[Record]:
    """The records of an `_index.json`. Read line by line where we wrote it: other threads run on in between, and of
    a file that was cut short the whole lines remain; as one document where another tool has rewritten it.
    """
    text = content.decode("utf-8", "replace")
    lines = text.split("\n")
    if lines[0] == _HEAD:
        for line in lines[1:]:
            try:
                yield Record.from_json(json.loads(line.removesuffix(",")))
            except (ValueError, RecursionError, ManifestInvalid):
                continue
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return
    listed = document.get("manifests") if isinstance(document, dict) else None
    for entry in listed if isinstance(listed, list) else []:
        try:
            yield Record.from_json(entry)
        except ManifestInvalid:
            continue


def format_time(seconds: float) -> str:
    """Unix seconds as RFC 3339, in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str | None) -> float:
    """RFC 3339 as Unix seconds; 0 (long ago) where there is no time to read."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return 0.0
