"""What the system lets a server have."""

import fcntl
import os
import resource
from contextlib import suppress

# Descriptors that there is room for from the start: 128 KiB of the kernel's memory.
_ROOM = 16_384


def raise_file_limit() -> None:
    """Every blob being sent holds a descriptor, and the usual soft limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_room_for_descriptors() -> None:
    """Have this process's table of descriptors grown before there are clients.

    Where there are threads, who needs the 65th, and again at each doubling, is stopped by the kernel until all
    processors have taken note (Linux, fs/file.c, expand_fdtable): some 15 ms in which nobody is answered. It never
    shrinks.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = _ROOM - 1 if soft == resource.RLIM_INFINITY else min(soft, _ROOM) - 1
    with suppress(OSError), open(os.devnull, "rb") as file:
        os.close(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, highest))
