"""`mirror referrers NAME[:TAG]`: what refers to an image, in a running mirror or in folders and cache."""

import json
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from mirror.app.search import referrers_now
from mirror.cli.ask import NotAnswered, ask, pages
from mirror.cli.table import human_size, print_table
from mirror.config import Config
from mirror.oci.errors import OciError
from mirror.oci.media_types import OCI_INDEX
from mirror.oci.reference import Reference


def run(config: Config, text: str, *, artifact_type: str | None, url: str | None, as_json: bool) -> int:
    """Print the list. Returns 1 where there is no such image."""
    try:
        reference = Reference.parse(text)
    except OciError as error:
        print(f"{text}: {error}", file=sys.stderr)
        return 2
    try:
        subject, entries = _remote(url, reference) if url else _local(config, reference)
    except (NotAnswered, OciError) as error:
        print(f"{text}: {error}", file=sys.stderr)
        return 1
    if artifact_type is not None:
        entries = [entry for entry in entries if entry.get("artifactType") == artifact_type]
    if as_json:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        print(json.dumps({"subject": subject, **index}, indent=2))
        return 0
    rows = [
        [entry["digest"], entry.get("artifactType", ""), entry["mediaType"], human_size(entry["size"])]
        for entry in entries
    ]
    print_table(["DIGEST", "ARTIFACT TYPE", "MEDIA TYPE", "SIZE"], rows)
    return 0


def _local(config: Config, reference: Reference) -> tuple[str, Sequence[dict[str, Any]]]:
    subject, found = referrers_now(config, reference)
    return subject, [descriptor.to_json() for descriptor in found]


def _remote(url: str, reference: Reference) -> tuple[str, Sequence[dict[str, Any]]]:
    base = f"{url.rstrip('/')}/v2/{quote(str(reference.name), safe='/:')}"
    subject: str | None = reference.digest
    if subject is None:
        headers, _ = ask(f"{base}/manifests/{quote(reference.tag or 'latest')}", "HEAD")
        subject = headers.get("Docker-Content-Digest")
        if subject is None:
            raise NotAnswered("the answer does not say which digest the tag has")
    # All pages, and the types looked at here: a filter is something that a registry may leave out.
    entries = [entry for page in pages(f"{base}/referrers/{subject}") for entry in page.get("manifests", [])]
    return subject, entries
