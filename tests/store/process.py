"""A process of its own that fills one blob: `python -m tests.store.process <folder> <job as JSON>`.

The upstream is `make_content(size)`; each request is a line in `<folder>/asked`. It stops at byte `gate_at` until
the file `<folder>/go` exists. Prints `held` when it came to the gate, then the digest of the body read.
"""

import asyncio
import hashlib
import json
import resource
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.feed import Incoming
from tests.store.supplier import make_content, until

CHUNK_BYTES = 64 * 1024


@dataclass
class Work:
    """`file_bytes`: what the largest file of the process may hold, as a disk would that is full."""

    size: int
    name: str
    gate_at: int | None = None
    file_bytes: int | None = None
    told: bool = True


class Process:
    """The command, seen from the test."""

    def __init__(self, folder: Path, work: Work) -> None:
        self._arguments = ["-m", "tests.store.process", str(folder), json.dumps(asdict(work))]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Process":
        pipe = asyncio.subprocess.PIPE
        root = Path(__file__).parents[2]
        self._process = await asyncio.create_subprocess_exec(sys.executable, *self._arguments, stdout=pipe, cwd=root)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            return (await self._process.stdout.readline()).decode().strip()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()


async def main(folder: Path, work: Work) -> None:
    content = make_content(work.size)
    digest = Digest.of(content)

    @asynccontextmanager
    async def fetch(offset: int, etag: str | None, stop: int | None = None) -> AsyncGenerator[Incoming, None]:
        with (folder / "asked").open("a") as asked:
            asked.write(f"{work.name} {offset}\n")

        async def chunks() -> AsyncGenerator[bytes, None]:
            position = offset
            while position < (work.size if stop is None else stop):
                if position == work.gate_at:
                    print("held", flush=True)  # noqa: T201 it talks to the test that way
                    await until((folder / "go").exists)
                chunk = content[position : position + CHUNK_BYTES]
                position += len(chunk)
                yield chunk
                await asyncio.sleep(0)

        yield Incoming(offset, work.size, None, chunks())

    if work.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (work.file_bytes, work.file_bytes))
    store = BlobStore(folder)
    body = hashlib.sha256()
    async with store.join(digest, work.size if work.told else None, fetch) as pull:
        size = await pull.started()
        async for piece in pull.body.read(0, size):
            body.update(piece)
    await until(lambda: store.running() == 0)
    print(body.hexdigest(), flush=True)  # noqa: T201 it talks to the test that way


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Work(**json.loads(sys.argv[2]))))
