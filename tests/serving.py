"""A mirror in this process, on a free port of loopback, asked over real sockets.

async with serving(tmp_path / "mirror", {"default_host": None}, layouts=[folder]) as mirror:
    answer = await mirror.get("/v2/team/app/manifests/1.0")
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import yarl
from multidict import CIMultiDict, CIMultiDictProxy

from mirror.app.serving import Running, running
from mirror.config import load

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

# Whatever takes longer hangs.
DEADLINE_SECONDS = 20.0
# distribution-spec 1.1, "Error Codes", those about pulling; UNAVAILABLE is the design's, UNKNOWN is a bug's.
CODES = {
    *("BLOB_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID"),
    *("NAME_UNKNOWN", "TOOMANYREQUESTS", "UNAUTHORIZED", "UNSUPPORTED", "UNAVAILABLE", "UNKNOWN"),
}


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The specification's code of an error answer, whose form is checked on the way."""
        (error,) = self.json()["errors"]
        assert set(error) <= {"code", "message", "detail"}
        assert isinstance(error["message"], str)
        assert error["code"] in CODES
        assert self.headers["Content-Type"].startswith("application/json")
        return str(error["code"])


class Mirror:
    """A running mirror, and a client that sends targets as they are written."""

    def __init__(self, mirror: Running, session: aiohttp.ClientSession, cache: Path) -> None:
        self.running = mirror
        self.url = mirror.listener.url
        self.session = session
        self.cache = cache

    @property
    def host(self) -> str:
        """`127.0.0.1:port`."""
        return urlsplit(self.url).netloc

    async def request(
        self, method: str, target: str, headers: Mapping[str, str] | Sequence[tuple[str, str]] = (), body: bytes = b""
    ) -> Reply:
        """Send exactly this target; headers that come twice are sent twice."""
        url = yarl.URL(self.url + target, encoded=True)
        async with self.session.request(
            method, url, headers=CIMultiDict(headers), data=body or None, allow_redirects=False
        ) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def get(self, target: str, headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> Reply:
        return await self.request("GET", target, headers)

    async def head(self, target: str, headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()) -> Reply:
        return await self.request("HEAD", target, headers)

    async def raw(self, head: bytes) -> Reply:
        """Send these bytes as they are, on a connection of their own, and read one answer to its end."""
        address = urlsplit(self.url)
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                writer.write(head)
                await writer.drain()
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers: CIMultiDict[str] = CIMultiDict()
                for line in filter(None, lines):
                    name, _, value = line.partition(":")
                    headers.add(name, value.strip())
                body = await reader.readexactly(int(headers.get("Content-Length", "0")))
            finally:
                writer.close()
                await writer.wait_closed()
        return Reply(int(first.split()[1]), CIMultiDictProxy(headers), body)

    async def raw_get(self, target: bytes, *headers: bytes) -> Reply:
        """GET a target of any bytes, with header lines of any bytes."""
        lines = [b"GET " + target + b" HTTP/1.1", b"Host: " + self.host.encode(), *headers]
        return await self.raw(b"\r\n".join(lines) + b"\r\n\r\n")

    async def refresh(self) -> Self:
        """Look at the folders now; back when what changed there is served."""
        before = self.running.local.generation
        self.running.local.rescan()
        await until(lambda: self.running.local.generation > before)
        return self


async def until(condition: Callable[[], bool]) -> None:
    """Back when the condition holds; fails when it does not within DEADLINE_SECONDS."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 what is waited for has no event to wait on
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    layouts: Sequence[Path | Mapping[str, Any]] = (),
    **options: Any,
) -> AsyncIterator[Mirror]:
    """A mirror with this configuration, complete (scanned, all names known) when the context is entered.

    `options` as `mirror.app.running` takes them.

    `folder` takes its config.yaml and its cache. Folders are looked at again by `refresh` only.
    """
    path = await asyncio.to_thread(_write_config, folder, config or {}, layouts)
    async with running(load(path), **options) as mirror:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await mirror.local.wait_complete()
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Mirror(mirror, session, folder / "cache")


@contextmanager
def kept_serving(
    folder: Path, config: Mapping[str, Any] | None = None, *, layouts: Sequence[Path | Mapping[str, Any]] = ()
) -> Iterator[tuple[Run[Any], Mirror]]:
    """As `serving`, for many plain tests: what is asked of the mirror is given to `run`, in a loop of its own."""
    with asyncio.Runner() as runner:
        context = serving(folder, config, layouts=layouts)
        mirror = runner.run(context.__aenter__())
        try:
            yield runner.run, mirror
        finally:
            runner.run(context.__aexit__(None, None, None))


def _write_config(folder: Path, config: Mapping[str, Any], layouts: Sequence[Path | Mapping[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    roots = [{"path": root} if isinstance(root, Path) else root for root in layouts]
    document = {"listen": "127.0.0.1:0", "refresh": "1h", "layouts": roots, **config}
    path = folder / "config.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(document, default=str), encoding="utf-8")
    return path
