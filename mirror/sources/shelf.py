"""Archives among local content, for the scan: what each holds now, and the slow work that some of them need first."""

import logging
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from mirror.logs import event
from mirror.oci.digest import Digest
from mirror.sources.archive import ArchivePath
from mirror.sources.archive_reader import ArchiveReader, NotAnArchive, NotUnpacked
from mirror.sources.naming import Namer
from mirror.sources.place import Place
from mirror.store.archive_file import ArchiveChanging, ArchiveError, ArchiveUnreadable, Stamp
from mirror.store.layer_hashes import hash_layers

log = logging.getLogger(__name__)

# How long after a failure that was not the archive's own fault (a full disk) it is tried again.
RETRY_SECONDS = 60.0
# Unpacked copies younger than this are kept: another process may have made them for an archive not seen here yet.
MIN_UNPACKED_AGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """Slow work on an archive, as it was with `stamp`: unpacking it, or hashing layers whose digest nobody knows."""

    at: ArchivePath
    namer: Namer
    stamp: Stamp
    unpacks: bool


@dataclass(frozen=True, slots=True)
class Shelved:
    """What an archive holds now. `final`: the same as long as the file is the same."""

    places: tuple[Place, ...] = ()
    problems: tuple[str, ...] = ()
    jobs: tuple[Job, ...] = ()
    final: bool = True


class Shelf:
    """Everything here blocks, and may be called from any thread.

    `tidies`: drops what no archive needs any more; not for who only looks at a cache that a server works with.
    """

    def __init__(self, reader: ArchiveReader, tidies: bool = True) -> None:
        self._reader = reader
        self._tidies = tidies
        self.min_unpacked_age_seconds = MIN_UNPACKED_AGE_SECONDS
        self._lock = threading.Lock()
        # When a job failed, on the clock of `time.monotonic`, and why.
        self._failed: dict[Job, tuple[float, str]] = {}
        self._verifying: dict[tuple[str, Digest], threading.Lock] = {}

    def read(self, at: ArchivePath, stamp: Stamp, namer: Namer) -> Shelved:
        """What the archive, which has `stamp` now, holds. Never raises for what is found in it."""
        try:
            contents = self._reader.read(at, namer)
        except NotAnArchive:
            return Shelved()
        except NotUnpacked:
            return self._with_job(Shelved(final=False), Job(at, namer, stamp, unpacks=True))
        except (ArchiveChanging, ArchiveUnreadable) as error:
            # What makes a file readable (permissions, a disk that is back) does not show in its stamp.
            return Shelved(problems=(str(error),), final=False)
        except ArchiveError as error:
            return Shelved(problems=(str(error),))
        found = Shelved(contents.places, contents.problems, final=not contents.needs_hashing)
        return found if found.final else self._with_job(found, Job(at, namer, stamp, unpacks=False))

    def work(self, job: Job) -> None:
        """Do a job and remember what it found, for the next `read`. Never raises for what is found."""
        begun = time.monotonic()
        try:
            if job.unpacks:
                self._reader.unpack(job.at)
            else:
                contents = self._reader.read(job.at, job.namer)
                self._reader.hash(contents, contents.needs_hashing)
        except (ArchiveError, OSError) as error:
            with self._lock:
                self._failed[job] = (time.monotonic(), str(error))
            return
        what = "unpacked" if job.unpacks else "hashed"
        event(log, logging.INFO, what, path=job.at.path, seconds=round(time.monotonic() - begun, 1))

    def verify(self, place: Place, digest: Digest) -> bool:
        """Whether the bytes that the place claims for `digest` are right; hashed when first asked."""
        claim = place.claims.get(digest) if place.claims else None
        if claim is None or place.stamp is None:
            return True
        tar, state = place.bytes_path, self._reader.state
        with self._lock:
            one_at_a_time = self._verifying.setdefault((tar, digest), threading.Lock())
        with one_at_a_time:
            known = state.layers(tar, place.stamp).get(claim.member)
            if known is None:
                try:
                    found = hash_layers(tar, place.stamp, [claim.member], self._reader.max_unpacked_bytes)
                except ArchiveError:
                    return False
                state.remember_layers(tar, place.stamp, found)
                known = found[claim.member]
        with self._lock:
            self._verifying.pop((tar, digest), None)
        return claim.holds(known)

    def tidy(self, paths: Collection[str]) -> None:
        """Forget the archives that are not among `paths`, and drop unpacked copies that none needs any more."""
        if not self._tidies:
            return
        try:
            for dropped in self._reader.forget_others(paths, self.min_unpacked_age_seconds):
                event(log, logging.INFO, "unpacked_copy_dropped", path=dropped)
        except OSError as error:
            log.warning("unpacked copies that no archive needs are not dropped: %s", error)
        with self._lock:
            self._failed = {job: failure for job, failure in self._failed.items() if job.at.path in paths}

    def _with_job(self, found: Shelved, job: Job) -> Shelved:
        """With the job, unless it failed a moment ago; then with the failure."""
        with self._lock:
            failure = self._failed.get(job)
        if failure is None:
            return replace(found, jobs=(job,))
        since, reason = failure
        due = time.monotonic() - since > RETRY_SECONDS
        return replace(found, problems=(*found.problems, reason), jobs=(job,) if due else ())
