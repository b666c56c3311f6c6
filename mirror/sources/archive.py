"""Archives served in place: what one tar holds, as places whose bytes are members of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mirror.oci.digest import Digest
from mirror.oci.errors import ManifestInvalid
from mirror.oci.manifest import MAX_MANIFEST_BYTES, ManifestLinks
from mirror.sources.archive_folders import (
    INDEX_JSON,
    MANIFEST_JSON,
    MAX_FOLDERS,
    OCI_LAYOUT,
    REPOSITORIES,
    Folder,
    find_folders,
)
from mirror.sources.docker_save import (
    MAX_MANIFEST_JSON_BYTES,
    ImageBroken,
    SavedImage,
    generate,
    read_config,
    read_manifest_json,
)
from mirror.sources.layout import MAX_INDEX_BYTES, LayoutBroken, check_layout_file, read_index
from mirror.sources.naming import Namer, PlaceName
from mirror.sources.place import Entry, Naming, Place
from mirror.store.archive_file import Stamp, open_archive
from mirror.store.layer_hashes import Claim, StoredLayer
from mirror.store.tar_index import MAX_PROBLEMS, Member, MemberUnusable, OpenTar, index_tar

# Longest first: the whole extension is no part of a name.
EXTENSIONS = tuple(f"{tar}{packed}" for packed in (".gz", ".zst", ".zstd", "") for tar in (".oci.tar", ".tar"))
EXTENSIONS += (".tgz", ".tzst")
# How many manifests of one archive are read to find out which of them a RepoTag means.
_MAX_MANIFESTS_READ = 200_000
_NOTHING_KNOWN: Mapping[Member, StoredLayer] = {}


@dataclass(frozen=True, slots=True)
class ArchiveContents:
    """What one archive holds.

    `path` and `stamp` are those of the tar that was read. `unverified` are digests that saved images claim for
    members, to be compared with the bytes before the whole of one is served (files in `blobs/` are not among them:
    they are as in a layout's folder). `needs_hashing` are compressed layers whose digest must be computed before
    their image can be served. For both: `hash_layers`, then `read_archive` again with what it found as `known`.
    `problems` are of the archive, each place has its own.
    """

    path: str
    stamp: Stamp
    places: tuple[Place, ...] = ()
    unverified: tuple[Claim, ...] = ()
    needs_hashing: tuple[Member, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchivePath:
    """An archive below a root: `parts` is its path below that root, folders and file name.

    `modified_ns` and `path` are those of the file that people see; `unpacked` the tar in the cache where that
    one is compressed.
    """

    path: str
    root: str
    parts: tuple[str, ...]
    modified_ns: int | None = None
    unpacked: str | None = None
    coalesce: bool = True


def read_archive(
    at: ArchivePath, namer: Namer, known: Mapping[Member, StoredLayer] = _NOTHING_KNOWN
) -> ArchiveContents:
    """What the archive holds: its layouts, saved images, and blobs without a layout.

    Reads headers and small documents only, whatever the archive's size. `known` is what hashing its members found
    before. Raises ArchiveError where the archive cannot be served at all; what is broken inside it costs itself
    a line in `problems`.
    """
    with open_archive(at.unpacked or at.path) as archive:
        tar = OpenTar(archive, index_tar(archive))
        return _Reader(tar, at, namer, known).read()


def without_extension(file_name: str) -> str:
    """`app.tar.gz` → `app`: what a place is called."""
    for extension in EXTENSIONS:
        if file_name.lower().endswith(extension) and len(file_name) > len(extension):
            return file_name[: -len(extension)]
    return file_name


class _Reader:
    def __init__(self, tar: OpenTar, at: ArchivePath, namer: Namer, known: Mapping[Member, StoredLayer]) -> None:
        self._tar = tar
        self._at = at
        self._namer = namer
        self._known = known
        self._unverified: dict[str, dict[Claim, None]] = {}  # by folder
        self._needs_hashing: dict[Member, None] = {}
        self._manifests_left = _MAX_MANIFESTS_READ

    def read(self) -> ArchiveContents:
        """All that the archive holds; what is wrong in it is told among the problems."""
        folders = find_folders(self._tar.index)
        places = tuple(place for name in sorted(folders) if (place := self._place(name, folders[name])) is not None)
        problems = list(self._tar.index.problems)
        if len(folders) >= MAX_FOLDERS:
            problems.append(f"more than {MAX_FOLDERS} layouts: the rest of them is not served")
        if not self._manifests_left:
            problems.append(f"more than {_MAX_MANIFESTS_READ} manifests: some RepoTags were not matched")
        if not places and not self._needs_hashing:
            problems.append("neither a layout (oci-layout, index.json) nor saved images (manifest.json), nor blobs")
        return ArchiveContents(
            path=self._at.unpacked or self._at.path,
            stamp=self._tar.index.stamp,
            places=places,
            unverified=tuple({claim: None for claims in self._unverified.values() for claim in claims}),
            needs_hashing=tuple(self._needs_hashing),
            problems=tuple(problems),
        )

    def _place(self, name: str, folder: Folder) -> Place | None:
        """The layout or the saved images in a folder; a place without entries where it only holds blobs."""
        *above, file_name = self._at.parts
        inside = name.split("/") if name else []
        place_name = self._namer.place([*above, without_extension(file_name), *inside])
        problems: list[str] = []
        images = self._saved_images(name, folder, problems)
        entries, without_manifest = self._listed(name, folder, images, place_name, problems)
        members = dict(folder.blobs)
        entries += self._generated(name, without_manifest, place_name, members, problems)
        if not entries and not members and not problems:
            return None
        if place_name.problem and any(not entry.namings for entry in entries):
            # Where every entry has a full name, nobody needs the place's.
            problems.append(place_name.problem)
        stamp = self._tar.index.stamp
        unverified = self._unverified.get(name, ())
        claims = {claim.digest: claim for claim in unverified if members.get(claim.digest) == claim.member}
        modified_ns = self._at.modified_ns if self._at.modified_ns is not None else stamp.modified_ns
        return Place(
            path=self._at.path,
            root=self._at.root,
            name=place_name.name if entries else None,
            entries=entries,
            modified_ns=modified_ns,
            inside=name,
            plain=place_name.plain,
            coalesce=self._at.coalesce,
            members=members,
            problems=_bounded(problems),
            unpacked=self._at.unpacked,
            stamp=stamp,
            claims=claims or None,
        )

    def _saved_images(self, name: str, folder: Folder, problems: list[str]) -> tuple[SavedImage, ...]:
        if MANIFEST_JSON not in folder.marks:
            if REPOSITORIES in folder.marks and not name:
                problems.append("repositories without manifest.json: saved by a Docker before 1.10, save it again")
            return ()
        try:
            _, content = self._tar.content(_join(name, MANIFEST_JSON), MAX_MANIFEST_JSON_BYTES)
        except MemberUnusable as error:
            problems.append(str(error))
            return ()
        found = read_manifest_json(content)
        if found is None:
            # Deeper down, many programs have a file of this name.
            problems += [] if name else ["manifest.json: not a list of saved images"]
            return ()
        images, others = found
        if others:
            problems.append(f"manifest.json: {others} of its items are no saved images")
        return images

    def _listed(
        self, name: str, folder: Folder, images: tuple[SavedImage, ...], place: PlaceName, problems: list[str]
    ) -> tuple[tuple[Entry, ...], tuple[SavedImage, ...]]:
        """The entries of the layout's index.json, and those of the saved images that are not among them."""
        if not {INDEX_JSON, OCI_LAYOUT} <= folder.marks:
            if INDEX_JSON in folder.marks and folder.blobs:
                problems.append("index.json without oci-layout: not an OCI layout")
            return (), images
        try:
            check_layout_file(self._tar.content(_join(name, OCI_LAYOUT), MAX_MANIFEST_BYTES)[1])
            _, content = self._tar.content(_join(name, INDEX_JSON), MAX_INDEX_BYTES)
            entries, wrong = read_index(content, self._namer, place)
            if images:
                repo_tags, images = self._repo_tags(name, folder, images, entries)
                entries, wrong = read_index(content, self._namer, place, repo_tags)
        except (MemberUnusable, LayoutBroken) as error:
            problems.append(str(error))
            return (), images
        problems.extend(wrong)
        return entries, images

    def _repo_tags(
        self, name: str, folder: Folder, images: Iterable[SavedImage], entries: Iterable[Entry]
    ) -> tuple[dict[Digest, list[str]], tuple[SavedImage, ...]]:
        """Whose RepoTags are which, and the images that have no entry.

        An image is the entry that leads to a manifest with its config.
        """
        owners: dict[Digest, list[Digest]] = {}
        for entry in entries:
            for config in self._configs(folder, entry.descriptor.digest):
                owners.setdefault(config, []).append(entry.descriptor.digest)
        tags: dict[Digest, list[str]] = {}
        others: list[SavedImage] = []
        for image in images:
            try:
                config, _, _ = read_config(self._tar, name, image)
            except ImageBroken:
                others.append(image)  # why, is said where its manifest would be generated
                continue
            for owner in owners.get(config, ()):
                tags.setdefault(owner, []).extend(image.repo_tags)
            if config not in owners:
                others.append(image)
        return tags, tuple(others)

    def _configs(self, folder: Folder, digest: Digest) -> set[Digest]:
        """The configs of every manifest that is reached from an entry."""
        found: set[Digest] = set()
        seen = {digest}
        ahead = [digest]
        while ahead and self._manifests_left:
            member = folder.blobs.get(ahead.pop())
            if member is None or member.size > MAX_MANIFEST_BYTES:
                continue
            self._manifests_left -= 1
            try:
                links = ManifestLinks.parse(b"".join(self._tar.archive.chunks(member.offset, member.size)))
            except ManifestInvalid:
                continue
            if links.config is not None:
                found.add(links.config.digest)
            children = {child.digest for child in links.manifests} - seen
            seen |= children
            ahead.extend(children)
        return found

    def _generated(
        self,
        name: str,
        images: Sequence[SavedImage],
        place: PlaceName,
        members: dict[Digest, Member],
        problems: list[str],
    ) -> tuple[Entry, ...]:
        """Entries for the saved images that have no manifest of their own; what they list is added to `members`."""
        entries: dict[Digest, Entry] = {}
        for image in images:
            label = ", ".join(image.repo_tags[:5]) or image.config
            try:
                found = generate(self._tar, name, image, self._known)
            except ImageBroken as error:
                problems.append(f"image {label[:200]!r} is not served: {error}")
                continue
            self._needs_hashing.update(dict.fromkeys(found.needs_hashing))
            self._unverified.setdefault(name, {}).update(dict.fromkeys(found.unverified))
            if found.descriptor is None:
                continue
            namings, wrong = self._namer.namings({}, image.repo_tags, place)
            problems.extend(f"image {label[:200]!r}: {reason}" for reason in wrong)
            same = entries.get(found.descriptor.digest)
            both: dict[Naming, None] = dict.fromkeys([*(same.namings if same else ()), *namings])
            entries[found.descriptor.digest] = Entry(found.descriptor, tuple(both), found.content)
            for digest, member in found.members.items():
                members.setdefault(digest, member)
        return tuple(entries.values())


def _bounded(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], f"and {more} more such problems") if more > 0 else tuple(problems)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
