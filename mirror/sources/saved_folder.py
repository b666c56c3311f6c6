"""RepoTags of a `docker save` archive that was unpacked into a folder: `manifest.json` beside `index.json`.

Docker 25+ writes `docker.io/…` into `index.json` for local builds too; only the RepoTag tells that no host was named.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES, ManifestLinks
from mirror.sources.archive_folders import MANIFEST_JSON
from mirror.sources.docker_save import MAX_MANIFEST_JSON_BYTES, named_digest, read_manifest_json
from mirror.sources.layout import blob_path
from mirror.sources.place import Entry
from mirror.store.files import Unreadable, read_regular

# Of one folder; a saved image has a handful.
_MAX_MANIFESTS_READ = 10_000


def saved_tags(folder: str, entries: Iterable[Entry], root: str | None) -> Mapping[Digest, Sequence[str]]:
    """By the digest of the entry, the RepoTags that `manifest.json` gives to its config; empty without that file."""
    try:
        images = read_manifest_json(read_regular(f"{folder}/{MANIFEST_JSON}", MAX_MANIFEST_JSON_BYTES, root))
    except (FileNotFoundError, Unreadable):
        return {}
    if images is None:
        return {}
    tags = {digest: image.repo_tags for image in images[0] if (digest := named_digest(image.config)) is not None}
    found: dict[Digest, list[str]] = {}
    for entry in entries if tags else ():
        for config in _configs(folder, entry.descriptor.digest, root):
            found.setdefault(entry.descriptor.digest, []).extend(tags.get(config, ()))
    return found


def _configs(folder: str, digest: Digest, root: str | None) -> set[Digest]:
    """The configs of every manifest that is reached from this one."""
    found: set[Digest] = set()
    seen, ahead = {digest}, [digest]
    while ahead and len(seen) < _MAX_MANIFESTS_READ:
        with contextlib.suppress(FileNotFoundError, Unreadable, ManifestInvalid):
            links = ManifestLinks.parse(read_regular(blob_path(folder, ahead.pop()), MAX_MANIFEST_BYTES, root))
            if links.config is not None:
                found.add(links.config.digest)
            children = {child.digest for child in links.manifests} - seen
            seen |= children
            ahead.extend(children)
    return found
