"""Following the scans: nothing that is heard, or fails to be, ends it."""

import asyncio
import json
import socket

import pytest

from mirror.sources import scan_loop
from mirror.sources.scan_feed import Heard, ScanFeed
from mirror.sources.scan_loop import ScanLoop
from tests.serving import DEADLINE_SECONDS

NOTHING = json.dumps({"order": [], "unpacking": False})


@pytest.mark.parametrize(
    "said",
    ["no JSON", "[]", '{"what": 1}', '{"path": "/x", "lines": 1}\n{"another": "format"}', '{"order": ["/never"]}'],
)
async def test_what_is_not_understood_costs_one_scan(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when another version was installed, and its scan process came up below a server of this one."""
    monkeypatch.setattr(scan_loop, "FAILED_SECONDS", 0)
    taken = asyncio.Event()

    async def take(heard: Heard) -> None:
        assert heard.places == ()
        taken.set()

    def speak(listener: socket.socket) -> None:
        for line in (said, NOTHING):
            worker, _ = listener.accept()
            with worker:
                worker.sendall(f"{line}\n".encode())
                worker.recv(1)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        speaking = asyncio.create_task(asyncio.to_thread(speak, listener))
        loop = ScanLoop(ScanFeed(listener.getsockname()))
        loop.start(take)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await taken.wait()
        await loop.stop()
        await speaking
