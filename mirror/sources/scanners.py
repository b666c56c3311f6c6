"""Scanners and shelves as settings describe them."""

from mirror.sources.archive_reader import ArchiveReader
from mirror.sources.place_memory import RememberedPlaces
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import ScanSettings
from mirror.sources.shelf import Shelf
from mirror.store.archive_state import ArchiveState
from mirror.store.place_state import PlaceState


def scanner_of(settings: ScanSettings, tidies: bool = True) -> Scanner:
    """Blocks: opens what is remembered of archives.

    `tidies`: whether what no archive needs any more is dropped from the cache.
    """
    memory = RememberedPlaces(PlaceState(settings.places_file))
    return Scanner(settings.roots, settings.own_hosts, shelf_of(settings, tidies), memory)


def shelf_of(settings: ScanSettings, tidies: bool = True) -> Shelf:
    """Blocks, as `scanner_of`."""
    state = ArchiveState(settings.state_file)
    return Shelf(ArchiveReader(state, settings.unpacked_folder, settings.max_unpacked_bytes), tidies)
