"""OCI image layouts (image-spec 1.1, image-layout.md): what a layout lists, from a folder or an archive."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.sources.naming import Namer, PlaceName
from mirror.sources.place import Entry, Naming

# A layout of 100,000 tags has an index.json of about 30 MiB.
MAX_INDEX_BYTES = 256 * 1024 * 1024
LAYOUT_VERSIONS = frozenset({"1.0.0"})


class LayoutBroken(Exception):
    """This is no layout that can be served now, and why: half-written, of another version, not JSON."""


@lru_cache(16)  # nearly all of them are the same
def check_layout_file(content: bytes) -> None:
    """Raises LayoutBroken unless `content` is an `oci-layout` file of a known version."""
    document = _object(content, "oci-layout")
    version = document.get("imageLayoutVersion")
    if version not in LAYOUT_VERSIONS:
        raise LayoutBroken(f"oci-layout: imageLayoutVersion is {version!r}, expected '1.0.0'")


def read_index(
    content: bytes, namer: Namer, place: PlaceName, repo_tags: Mapping[Digest, Sequence[str]] | None = None
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """The entries of an `index.json` and what is wrong with some of them.

    `repo_tags` are the RepoTags that a `manifest.json` beside it gives to some of its manifests. An entry listed
    several times is one, with all its names. Raises LayoutBroken where nothing can be read.
    """
    listed = _object(content, "index.json").get("manifests")
    if not isinstance(listed, list):
        raise LayoutBroken(f"index.json: manifests is {type(listed).__name__}, expected a list")
    entries: dict[Digest, Entry] = {}
    several: dict[Digest, dict[Naming, None]] = {}
    problems: list[str] = []
    for document in listed:
        annotations = document.get("annotations") if isinstance(document, dict) else None
        try:
            # Of its annotations only the names are needed: what is listed to clients is read from the manifests.
            descriptor = Descriptor.from_json(document, with_annotations=False)
        except ManifestInvalid as error:
            problems.append(f"index.json: {error.detail}")
            continue
        tags = repo_tags.get(descriptor.digest, ()) if repo_tags else ()
        found, wrong = namer.namings(annotations if isinstance(annotations, dict) else {}, tags, place)
        if wrong:
            problems.extend([f"index.json: {reason} ({descriptor.digest})" for reason in wrong])
        first = entries.get(descriptor.digest)
        if first is None:
            entries[descriptor.digest] = Entry(descriptor, found)
        elif found:
            # One manifest may have every tag of a large repository: each is added to those before at once.
            several.setdefault(descriptor.digest, dict.fromkeys(first.namings)).update(dict.fromkeys(found))
    for digest, all_namings in several.items():
        entries[digest] = entries[digest]._replace(namings=tuple(all_namings))
    return tuple(entries.values()), tuple(problems)


def blob_path(layout: str, digest: Digest) -> str:
    """Where a layout folder keeps the bytes of `digest`."""
    algorithm, _, value = digest.partition(":")
    return f"{layout}/blobs/{algorithm}/{value}"


def _object(content: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LayoutBroken(f"{name}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise LayoutBroken(f"{name}: {type(document).__name__}, expected an object")
    return document
