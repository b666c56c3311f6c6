"""Which folders of an archive hold something to serve, by the names of its members alone."""

from dataclasses import dataclass, field

from mirror.oci.digest import Digest
from mirror.oci.errors import DigestInvalid
from mirror.store.tar_index import Member, TarIndex

INDEX_JSON = "index.json"
OCI_LAYOUT = "oci-layout"
MANIFEST_JSON = "manifest.json"
REPOSITORIES = "repositories"
MAX_FOLDERS = 10_000
_MARKS = frozenset({INDEX_JSON, OCI_LAYOUT, MANIFEST_JSON, REPOSITORIES})


@dataclass(slots=True)
class Folder:
    """What lies in one folder of the archive."""

    marks: set[str] = field(default_factory=set)
    blobs: dict[Digest, Member] = field(default_factory=dict)


def find_folders(index: TarIndex) -> dict[str, Folder]:
    """The folders of an archive that hold something to serve, by name; the archive's own is the empty one."""
    folders: dict[str, Folder] = {}
    for name in index.names():
        above, _, last = name.rpartition("/")
        if last in _MARKS:
            folder, digest = above, None
        else:
            folder, digest = _blob(name)
            if digest is None:
                continue
        if folder not in folders and len(folders) >= MAX_FOLDERS:
            continue
        found = folders.setdefault(folder, Folder())
        if digest is None:
            found.marks.add(last)
        elif (member := index.find(name)) is not None:
            found.blobs[digest] = member
    return folders


def _blob(name: str) -> tuple[str, Digest | None]:
    """`folder/blobs/sha256/<hex>` → (`folder`, digest); no digest for other names."""
    parts = name.rsplit("/", 3)
    if len(parts) < 3 or parts[-3] != "blobs":
        return "", None
    try:
        return "/".join(parts[:-3]), Digest.parse(f"{parts[-2]}:{parts[-1]}")
    except DigestInvalid:
        return "", None
