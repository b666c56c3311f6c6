"""Local content, as configured: folders, what is remembered of them, what was made for them."""

from mirror.config import Config
from mirror.oci.names import normalize_host
from mirror.sources.adoption import find_homes
from mirror.sources.library import Library
from mirror.sources.scan import Scan
from mirror.sources.scan_process import ScanSettings
from mirror.sources.shelf import Job
from mirror.sources.snapshot import Snapshot
from mirror.sources.view import View
from mirror.sources.walk import Root
from mirror.store.generated import GeneratedManifests
from mirror.store.remembered import RememberedNames


def scan_settings(config: Config) -> ScanSettings:
    """What to scan, and where the slow work on archives is remembered."""
    return ScanSettings(
        [Root(str(root.path), root.prefix, root.host, root.coalesce) for root in config.layouts],
        own_hosts(config),
        str(config.cache.path / "archives.db"),
        str(config.cache.path / "places.db"),
        str(config.cache.path / "unpacked"),
        config.unpack_max_bytes,
    )


def generated(config: Config) -> GeneratedManifests:
    """The manifests that were made for local content."""
    return GeneratedManifests(config.cache.path / "generated")


def own_hosts(config: Config) -> frozenset[str]:
    """The names of this mirror itself: those configured, and the address that it listens on."""
    listen = config.listen
    here = {str(listen)} if listen.port else set()
    if listen.port and listen.host in ("127.0.0.1", "::1", "localhost"):
        here |= {f"localhost:{listen.port}", f"127.0.0.1:{listen.port}"}
    return frozenset(normalize_host(name) for name in here | set(config.names))


def view_now(config: Config) -> tuple[Scan, View]:
    """All local content as it lies there now, with the slow work that archives need done first. Blocks."""
    # A server may work with this cache, for other folders than these.
    scanning = scan_settings(config).scanner(tidies=False)
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
