"""Folders of layouts at random, and what a scan of them says."""

import queue
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from mirror.sources.place import Place
from mirror.sources.scan_feed import Heard, ScansEnded
from mirror.sources.scan_settings import Root, ScanSettings
from tests.content import LayoutWriter, write_by_rename
from tests.sources import archives
from tests.sources.archives import layer, tar_of

# Tags of a layout; an empty one is an entry without a name, one with a slash names its repository itself.
TAGS = st.sampled_from(["", "1", "2", "1.1.0+oci", "quay.io/other/app:3", "shared:1"])
NAMES = st.sampled_from(["app", "team/app", "team/web", "quay.io/team/app", "BAD", "saved.tar"])


@dataclass(frozen=True)
class Content:
    """What lies at one path: the tags of its images, told apart by `seed`. `broken`: not to be read."""

    tags: tuple[str, ...] = ("1",)
    seed: int = 0
    broken: bool = False


CONTENTS = st.builds(Content, st.lists(TAGS, max_size=4).map(tuple), st.integers(0, 2), st.booleans())
FOLDERS = st.dictionaries(NAMES, CONTENTS, max_size=5)


def settings_of(tmp_path: Path, root: Path) -> ScanSettings:
    cache = tmp_path / "cache"
    return ScanSettings(
        roots=[Root(str(root))],
        own_hosts=frozenset(),
        state_file=str(cache / "archives.db"),
        places_file=str(cache / "places.db"),
        unpacked_folder=str(cache / "unpacked"),
        max_unpacked_bytes=1024 * 1024,
    )


def write_all(root: Path, folders: Mapping[str, Content]) -> None:
    """Make the root hold these folders and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, content in folders.items():
        write(root / name, content)


def write(path: Path, content: Content) -> None:
    """A layout at `path`, or a saved image where its name says so."""
    if path.name.endswith(".tar"):
        images = {tag or "x:1": [layer(f"{tag}{content.seed}")] for tag in content.tags if ":" in tag or not tag}
        whole = tar_of(archives.old_docker(images))
        write_by_rename(path, whole[: len(whole) // 2] if content.broken else whole)
        return
    writer = LayoutWriter(path)
    for number, tag in enumerate(content.tags):
        image = writer.image([f"{tag} {number} {content.seed}".encode()])
        if tag:
            writer.tag(image, tag)
        else:
            writer.add(image)
    writer.save()
    if content.broken:
        write_by_rename(path / "index.json", b'{"manifests": [')


class ToldScans:
    """`Scans` of what a test tells."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[Heard | None] = queue.SimpleQueue()

    def tell(self, places: Sequence[Place], *, unpacking: bool = False) -> None:
        self._told.put(Heard(tuple(places), changed=True, unpacking=unpacking))

    def next(self) -> Heard:
        found = self._told.get()
        if found is None:
            raise ScansEnded
        return found

    def ask(self) -> None:
        """A test tells when it wants to."""

    def doubt(self, path: str) -> None:
        """Nobody reads here."""

    def close(self) -> None:
        self._told.put(None)
