"""The event loop of a server, in a process of its own."""

import subprocess
import sys

LOOK_UP = """
import asyncio, os
from mirror.cli.loop import run_loop

async def main():
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)
    print(len(os.listdir("/proc/self/task")))

run_loop(main())
"""


def test_names_that_hang_leave_threads_for_others() -> None:
    """Of libuv's own four threads, lookups get two."""
    ran = subprocess.run([sys.executable, "-c", LOOK_UP], capture_output=True, text=True, check=True, timeout=60)
    assert int(ran.stdout) > 60
