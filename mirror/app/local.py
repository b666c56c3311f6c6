"""Local content, as configured: folders, what is remembered of them, what was made for them."""

from mirror.app.scanning import scan_settings
from mirror.config import Config
from mirror.sources.adoption import find_homes
from mirror.sources.library import Library
from mirror.sources.local import LocalContent
from mirror.sources.scan import Scan
from mirror.sources.scan_loop import Scans
from mirror.sources.scanners import scanner_of, shelf_of
from mirror.sources.shelf import Job
from mirror.sources.snapshot import Snapshot
from mirror.sources.view import View
from mirror.store.generated import GeneratedManifests
from mirror.store.remembered import RememberedNames


def local_content(config: Config, scans: Scans, *, tells: bool) -> LocalContent:
    """Local content, as far as `scans` tell of it; `tells` as there. Blocks."""
    # Only what looks for changes drops what no archive needs any more.
    verify = shelf_of(scan_settings(config), tidies=False).verify
    return LocalContent(scans, remembered(config), generated(config), verify, tells=tells)


def generated(config: Config) -> GeneratedManifests:
    """The manifests that were made for local content."""
    return GeneratedManifests(config.cache.path / "generated")


def view_now(config: Config) -> tuple[Scan, View]:
    """All local content as it lies there now, with the slow work that archives need done first. Blocks."""
    # A server may work with this cache, for other folders than these.
    scanning = scanner_of(scan_settings(config), tidies=False)
    scan = scanning.scan()
    done: set[Job] = set()
    while scanning.shelf is not None and (jobs := [job for job in scan.jobs if job not in done]):
        for job in jobs:
            scanning.shelf.work(job)
        done.update(jobs)
        scan = scanning.scan()
    library = Library(Snapshot.of(scan.places), verify=scanning.shelf.verify if scanning.shelf else None)
    homes = find_homes(library.snapshot, library)
    return scan, View(Library(Snapshot.of(scan.places, homes), library), generated(config))


def remembered(config: Config) -> RememberedNames:
    """The plain names that local content once had."""
    return RememberedNames(config.cache.path / "remembered")
