"""What is done once, before all workers; light to load, since their parent does no more."""

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from mirror.config import Config
from mirror.store.search import SearchIndex

SEARCH_FILE = "search.db"


def prepare(config: Config) -> None:
    """Once before all workers: what earlier ones shared while they ran is over."""
    shutil.rmtree(run_folder(config), ignore_errors=True)
    if (config.cache.path / SEARCH_FILE).exists():
        begin_search(config).close()


def run_folder(config: Config) -> Path:
    """What the workers of one mirror share while they run; cleared at start."""
    return config.cache.path / "run"


def begin_search(config: Config) -> SearchIndex:
    """The index, of which nobody believes that it is complete: what was served before may be no more. Blocks."""
    index = SearchIndex(config.cache.path / SEARCH_FILE)
    with suppress(sqlite3.Error):  # a full disk costs search its truth, not the mirror its start
        index.complete = False
    return index
