"""Reading archives in tests, and what is in them as it would be served."""

from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from mirror.oci.names import DOCKER_HUB, Name, Repository
from mirror.sources.archive import ArchiveContents, ArchivePath, read_archive
from mirror.sources.naming import Namer
from mirror.sources.place import Entry, Naming, Place
from mirror.store.layer_hashes import hash_layers
from tests.sources import archives
from tests.sources.archives import Files, layer

BASE, TOP = layer("base"), layer("top")
LIMIT = 1024 * 1024


def at(path: Path) -> ArchivePath:
    return ArchivePath(str(path), str(path.parent), (path.name,))


def read(path: Path, files: Files) -> ArchiveContents:
    return read_archive(at(archives.write(path, files)), Namer())


def only(contents: ArchiveContents) -> Place:
    assert len(contents.places) == 1
    return contents.places[0]


def names(entry: Entry) -> list[str]:
    return [f"{naming.name}:{naming.tag}" for naming in entry.namings]


def hub(repository: str, tag: str, plain: bool = False) -> Naming:
    return Naming(Name(DOCKER_HUB, Repository(repository)), tag, plain)


def local(repository: str, tag: str) -> Naming:
    return Naming(Name(None, Repository(repository)), tag, True)


def blob(place: Place, digest: str) -> bytes:
    """The bytes of a blob, as they would be served."""
    assert place.members is not None
    member = place.members[Digest(digest)]
    return Path(place.unpacked or place.path).read_bytes()[member.offset : member.offset + member.size]


def manifest_of(place: Place, entry: Entry) -> ManifestLinks:
    content = entry.content or blob(place, entry.descriptor.digest)
    assert entry.descriptor.digest.matches(content)
    assert entry.descriptor.size == len(content)
    return ManifestLinks.parse(content)


def check_bytes(place: Place) -> None:
    """Everything that an image of the place lists is there and is what its digest says."""
    for entry in place.entries:
        for child in manifest_of(place, entry).blobs:
            content = blob(place, child.digest)
            assert child.digest.matches(content)
            assert child.size == len(content)


def saved_new(**layout_annotations: str) -> dict[str, bytes]:
    """Docker 25+: a layout whose manifest is the image's, and a manifest.json beside it."""
    descriptor, blobs = archives.image([BASE, TOP])
    files = archives.layout([archives.named(descriptor, **layout_annotations)], blobs)
    config = archives.blob(archives.config([BASE, TOP]))[0]
    layers = [archives.blob(stored)[0] for stored in (BASE, TOP)]
    item = {"Config": config, "RepoTags": ["legacy:1", "quay.io/x/y:2"], "Layers": layers}
    return files | {"manifest.json": archives.as_json([item])}


def hashed(path: Path) -> ArchiveContents:
    """Both passes: headers, hashing what is asked for, headers again."""
    first = read_archive(at(path), Namer())
    members = [*first.needs_hashing, *(claim.member for claim in first.unverified)]
    return read_archive(at(path), Namer(), hash_layers(str(path), first.stamp, members, LIMIT))
