"""Archives among local content: what each holds now, and the slow work that some of them need first."""

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mirror.logs import event
from mirror.oci.digest import Digest
from mirror.sources.archive import ArchivePath, read_archive
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.store.archive_file import ArchiveChanging, ArchiveError, ArchiveUnreadable, Stamp
from mirror.store.archive_state import ArchiveState, UnpackRecord
from mirror.store.layer_hashes import hash_layers
from mirror.store.tar_index import Member
from mirror.store.unpack import UnpackFailed, archive_kind, drop_unpacked, unpack, unpacked_path

log = logging.getLogger(__name__)

# How long after a failure that was not the archive's own fault (a full disk) it is tried again.
RETRY_SECONDS = 60.0
# Unpacked copies younger than this are kept: another process may have made them for an archive not seen here yet.
MIN_UNPACKED_AGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """Slow work on the archive at `path`, as it was with `stamp`.

    Unpacking where `members` is None; else hashing these members of `tar`, the archive itself or its unpacked
    copy, which then has `stamp`.
    """

    path: str
    stamp: Stamp
    tar: str = ""
    members: tuple[Member, ...] | None = None


@dataclass(frozen=True, slots=True)
class Shelved:
    """What an archive holds now. `final`: the same as long as the file is the same, and no job is done."""

    places: tuple[Place, ...] = ()
    problems: tuple[str, ...] = ()
    jobs: tuple[Job, ...] = ()
    final: bool = True


class Shelf:
    """Reads archives in place. `folder` in the cache takes the unpacked copies of compressed ones.

    `tidies`: drops what no archive needs any more; not for who only looks at a cache that a server works with.
    Everything here blocks, and may be called from any thread.
    """

    def __init__(self, state: ArchiveState, folder: str, max_unpacked_bytes: int, tidies: bool = True) -> None:
        self._state = state
        self._folder = folder
        self._max_unpacked_bytes = max_unpacked_bytes
        self._tidies = tidies
        self.min_unpacked_age_seconds = MIN_UNPACKED_AGE_SECONDS
        self._lock = threading.Lock()
        self._failed: dict[Job, tuple[float, str]] = {}
        self._verifying: dict[tuple[str, Digest], threading.Lock] = {}

    def read(self, at: ArchivePath, stamp: Stamp, namer: Namer) -> Shelved:
        """What the archive, which has `stamp` now, holds. Never raises for what is found in it."""
        try:
            if archive_kind(at.path) not in (None, "tar"):
                return self._compressed(at, stamp, namer)
            return self._tar(at, stamp, namer)
        except (ArchiveChanging, ArchiveUnreadable) as error:
            # What makes a file readable (permissions, a disk that is back) does not show in its stamp.
            return Shelved(problems=(str(error),), final=False)
        except ArchiveError as error:
            return Shelved(problems=(str(error),))

    def work(self, job: Job) -> None:
        """Do a job and remember what it found, for the next `read`. Never raises for what is found."""
        begun = time.monotonic()
        try:
            if job.members is None:
                self._unpack(job)
            else:
                found = hash_layers(job.tar, job.stamp, job.members, self._max_unpacked_bytes)
                self._state.remember_layers(job.tar, job.stamp, found)
        except (ArchiveError, OSError) as error:
            with self._lock:
                self._failed[job] = (time.monotonic(), str(error))
            return
        what = "unpacked" if job.members is None else "hashed"
        event(log, logging.INFO, what, path=job.path, seconds=round(time.monotonic() - begun, 1))

    def verify(self, place: Place, digest: Digest) -> bool:
        """Whether the bytes that the place claims for `digest` are right; hashed when first asked."""
        claim = place.claims.get(digest) if place.claims else None
        if claim is None or place.stamp is None:
            return True
        tar = place.unpacked or place.path
        with self._lock:
            one_at_a_time = self._verifying.setdefault((tar, digest), threading.Lock())
        with one_at_a_time:
            known = self._state.layers(tar, place.stamp).get(claim.member)
            if known is None:
                try:
                    found = hash_layers(tar, place.stamp, [claim.member], self._max_unpacked_bytes)
                except ArchiveError:
                    return False
                self._state.remember_layers(tar, place.stamp, found)
                known = found[claim.member]
        with self._lock:
            self._verifying.pop((tar, digest), None)
        return claim.holds(known)

    def forget_others(self, paths: Sequence[str], places: Sequence[Place]) -> None:
        """Forget archives that are gone."""
        if not self._tidies:
            return
        self._state.forget_others({*paths, *(place.unpacked for place in places if place.unpacked)})
        with self._lock:
            self._failed = {job: failure for job, failure in self._failed.items() if job.path in paths}

    def drop_others(self, places: Sequence[Place]) -> None:
        """Drop the unpacked copies that none of the places needs any more, once they are old enough."""
        if not self._tidies:
            return
        tars = [place.unpacked for place in places if place.unpacked]
        keep = {Digest(f"sha256:{os.path.basename(tar).removesuffix('.tar')}") for tar in tars}
        try:
            for dropped in drop_unpacked(self._folder, keep, self.min_unpacked_age_seconds):
                event(log, logging.INFO, "unpacked_copy_dropped", path=dropped)
        except OSError as error:
            log.warning("unpacked copies that nobody needs are not dropped: %s", error)

    def _tar(self, at: ArchivePath, stamp: Stamp, namer: Namer) -> Shelved:
        tar = at.unpacked or at.path
        try:
            tar_stamp = stamp if at.unpacked is None else Stamp.of(os.stat(at.unpacked))
        except OSError as error:
            raise ArchiveChanging(f"its unpacked copy cannot be read: {error.strerror}") from None
        contents = read_archive(at, namer, self._state.layers(tar, tar_stamp))
        if at.unpacked is None and contents.stamp != stamp:
            raise ArchiveChanging("it was changed while it was read")
        claims = {claim.digest: claim for claim in contents.unverified}
        places = tuple(
            replace(place, claims={d: claims[d] for d in place.members or () if d in claims} or None)
            for place in contents.places
        )
        if not contents.needs_hashing:
            return Shelved(places, contents.problems)
        job, problems = self._due(Job(at.path, contents.stamp, tar, contents.needs_hashing))
        return Shelved(places, contents.problems + problems, (job,) if job else (), final=False)

    def _compressed(self, at: ArchivePath, stamp: Stamp, namer: Namer) -> Shelved:
        record = self._state.unpacked(at.path, stamp)
        if record is not None and record.problem is not None:
            return Shelved(problems=(record.problem,))
        if record is not None and record.key is not None:
            unpacked = unpacked_path(self._folder, record.key)
            if os.path.exists(unpacked):
                return self._tar(replace(at, unpacked=unpacked, modified_ns=stamp.modified_ns), stamp, namer)
        job, problems = self._due(Job(at.path, stamp))
        return Shelved(problems=problems, jobs=(job,) if job else (), final=False)

    def _due(self, job: Job) -> tuple[Job | None, tuple[str, ...]]:
        """The job, unless it failed a moment ago; then the failure."""
        with self._lock:
            failure = self._failed.get(job)
        if failure is None:
            return job, ()
        since, reason = failure
        return (job if time.monotonic() - since > RETRY_SECONDS else None), (reason,)

    def _unpack(self, job: Job) -> None:
        try:
            done = unpack(job.path, self._folder, self._max_unpacked_bytes)
        except (UnpackFailed, ArchiveChanging):
            raise
        except ArchiveError as error:
            self._state.remember_unpacked(job.path, job.stamp, UnpackRecord(None, str(error)))
        else:
            self._state.remember_unpacked(job.path, done.stamp, UnpackRecord(done.key))
