import platform
import subprocess
import sys

import pytest

# The queue of one fill, 8 MiB in pieces, again and again; prints the page faults that it took.
_PIECES = """
import resource
import mirror.cli

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
for _ in range(100):
    pieces = [bytearray(256 * 1024) for _ in range(32)]
    del pieces
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="others allocate in their own way")
def test_pieces_of_bodies_are_not_taken_from_the_system_each_time_anew() -> None:
    done = subprocess.run([sys.executable, "-c", _PIECES], capture_output=True, check=True, text=True)
    taken_once = 32 * 64  # pages of 4 KiB
    assert int(done.stdout) < 2 * taken_once
