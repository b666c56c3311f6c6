"""One of several workers."""

from collections.abc import MutableSequence
from dataclasses import dataclass
from multiprocessing.connection import Connection


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place among the others. `ready` has a byte for each; `parent` ends when the parent does.

    `scans` is the address of the scan process that all of them share.
    """

    index: int
    ready: MutableSequence[int]
    parent: Connection
    scans: bytes

    @property
    def all_ready(self) -> bool:
        """Whether every worker serves."""
        return all(self.ready)
