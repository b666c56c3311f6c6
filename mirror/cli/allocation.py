"""How memory for bytes on their way is taken from the system."""

import ctypes
import sys

# What stays for the next pieces when all have gone: the queue of one fill, twice.
_KEPT_BYTES = 16 * 1024 * 1024
# mallopt(3) of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_pieces() -> None:
    """Take buffers below 4 MiB from the heap, and do not give the heap back in between.

    By itself glibc gives every piece of a body back to the system at once and gets the next one page by page, zeroed:
    a third of the kernel's part of a fill. Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 4 * 1024 * 1024)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
