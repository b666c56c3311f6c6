"""Archives from day to day: what can be said of one at once, and the slow work that is done for it beside.

Reading headers is quick, whatever an archive's size. Unpacking a compressed one, and hashing layers, read all of
its bytes: done once, remembered by path, size, time and inode.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from mirror.sources.archive import ArchiveContents, ArchivePath, read_archive, without_extension
from mirror.sources.naming import Namer
from mirror.store.archive_file import (
    ArchiveChanging,
    ArchiveError,
    ArchiveInvalid,
    Kind,
    Stamp,
    open_archive,
    sniff,
)
from mirror.store.archive_state import ArchiveState, UnpackRecord
from mirror.store.layer_hashes import hash_layers
from mirror.store.tar_index import Member
from mirror.store.unpack import drop_unpacked, unpack, unpacked_path


class NotAnArchive(ArchiveError):
    """Some other file, by its content and its name: a README is no broken archive."""


class NotUnpacked(ArchiveError):
    """A compressed archive that has not been unpacked since it came: `ArchiveReader.unpack` is to be called."""


@dataclass(frozen=True, slots=True)
class ArchiveReader:
    """Reads archives with one memory and one folder of unpacked tars; every method blocks."""

    state: ArchiveState
    unpacked_folder: str
    max_unpacked_bytes: int

    def read(self, at: ArchivePath, namer: Namer) -> ArchiveContents:
        """What the archive holds, from what is known; quick. `at.unpacked` and `at.modified_ns` are filled in here.

        Raises NotAnArchive, NotUnpacked, and the other kinds of ArchiveError. Where `needs_hashing` is not empty,
        `hash` is to be called, and more will be found by reading again.
        """
        kind, stamp = _look(at.path)
        if kind is None:
            is_called_one = without_extension(at.parts[-1]) != at.parts[-1]
            raise (ArchiveInvalid if is_called_one else NotAnArchive)("not an archive, by its content")
        if kind != "tar":
            at = replace(at, unpacked=self._unpacked(at.path, stamp))
        data_path, data_stamp = at.path, stamp
        if at.unpacked is not None:
            data_path, (_, data_stamp) = at.unpacked, _look(at.unpacked)
        known = self.state.layers(data_path, data_stamp)
        contents = read_archive(replace(at, modified_ns=stamp.modified_ns), namer, known)
        # What was known must have been known of these very bytes.
        if contents.stamp != data_stamp:
            raise ArchiveChanging("it was replaced while it was read")
        return contents

    def unpack(self, at: ArchivePath) -> None:
        """Unpack a compressed archive; slow. What is wrong with it is remembered, and said by `read`.

        Raises ArchiveChanging, ArchiveUnreadable or UnpackFailed: to be tried again later.
        """
        _, stamp = _look(at.path)
        try:
            done = unpack(at.path, self.unpacked_folder, self.max_unpacked_bytes)
        except ArchiveInvalid as error:
            self.state.remember_unpacked(at.path, stamp, UnpackRecord(None, str(error)))
        else:
            self.state.remember_unpacked(at.path, done.stamp, UnpackRecord(done.key))

    def hash(self, contents: ArchiveContents, members: Iterable[Member] | None = None) -> None:
        """Hash `members`, or all that `contents` needs or claims; slow. `read` then knows.

        Raises ArchiveChanging or ArchiveUnreadable: to be tried again later.
        """
        if members is None:
            members = [*contents.needs_hashing, *(claim.member for claim in contents.unverified)]
        found = hash_layers(contents.path, contents.stamp, members, self.max_unpacked_bytes)
        self.state.remember_layers(contents.path, contents.stamp, found)

    def forget_others(self, paths: Collection[str], min_age_seconds: float = 60) -> list[str]:
        """Forget the archives that are not among `paths`, and remove their unpacked tars: the paths of these.

        Younger tars than `min_age_seconds` stay, for other processes that serve the same folders.
        """
        tars = {unpacked_path(self.unpacked_folder, key) for key in self.state.keys()}  # noqa: SIM118 no mapping
        self.state.forget_others({*paths, *tars})
        return drop_unpacked(self.unpacked_folder, self.state.keys(), min_age_seconds)

    def _unpacked(self, path: str, stamp: Stamp) -> str:
        record = self.state.unpacked(path, stamp)
        if record is not None and record.problem is not None:
            raise ArchiveInvalid(record.problem)
        tar = unpacked_path(self.unpacked_folder, record.key) if record and record.key else None
        if tar is None or not os.path.exists(tar):
            raise NotUnpacked("it is being unpacked")
        return tar


def _look(path: str) -> tuple[Kind | None, Stamp]:
    with open_archive(path) as archive:
        return sniff(archive.read(0, 512)), archive.stamp
