"""Reads far ahead of a fill: how much of a blob may be fetched apart for them, by all processes together.

It is not stored, and takes of the bandwidth that the fill has. So it is a small share of the blob, dealt out in
steps; a read gets a part of what is left: a single one gets much, of a crowd each gets its first bytes soon.
"""

from mirror.store.parts import Part

# So much of any blob, and that share of its size.
_LEAST_BYTES = 1024 * 1024
_SHARE = 64
_STEP_BYTES = 64 * 1024
# What one read gets at most of the steps left.
_SHARE_OF_READ = 8
# Reads at a time in one process; each is a connection of the upstream's.
_MAX_READS = 4


class Apart:
    """The share of one fill, seen from one process."""

    def __init__(self) -> None:
        self.reads = 0
        # Nobody in this process has to ask for the steps before it again.
        self._next_step = 0

    @property
    def has_taken(self) -> bool:
        """Whether steps may be this process's: they are free again when it closes the part."""
        return self._next_step > 0

    def may_have(self, size: int) -> bool:
        """Whether a read may be begun, of a blob of `size` bytes."""
        return self.reads < _MAX_READS and self._next_step < _steps(size)

    def take(self, part: Part, size: int, wanted_bytes: int) -> int:
        """How many of `wanted_bytes` may be fetched apart, once; 0 where all has been dealt out."""
        steps = _steps(size)
        limit = max(1, (steps - self._next_step) // _SHARE_OF_READ)
        wanted = min(limit, -(-wanted_bytes // _STEP_BYTES))
        taken = 0
        while taken < wanted and self._next_step < steps:
            taken += part.take_step(self._next_step)
            self._next_step += 1
        return min(wanted_bytes, taken * _STEP_BYTES)


def _steps(size: int) -> int:
    return (_LEAST_BYTES + size // _SHARE) // _STEP_BYTES
