"""Wiring: the configuration becomes sources, a registry and a listener. Nothing else reads the configuration."""

import asyncio
import logging
from collections.abc import AsyncIterator, MutableSequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from mirror.config import Config
from mirror.logs import event
from mirror.oci.names import normalize_host
from mirror.server.access import Everyone
from mirror.server.http import Listener, TlsFiles
from mirror.server.names import NameRules
from mirror.server.registry import Registry
from mirror.sources import heap
from mirror.sources.adoption import find_homes
from mirror.sources.library import Library
from mirror.sources.local import LocalContent
from mirror.sources.merged import Content
from mirror.sources.scan import Scan
from mirror.sources.scan_process import ScanProcess, ScanSettings
from mirror.sources.shelf import Job
from mirror.sources.snapshot import Snapshot
from mirror.sources.view import View
from mirror.sources.walk import Root
from mirror.store.generated import GeneratedManifests
from mirror.store.remembered import RememberedNames

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place among the others. `ready` has a byte for each; `parent` ends when the parent does."""

    index: int
    ready: MutableSequence[int]
    parent: Connection

    @property
    def all_ready(self) -> bool:
        """Whether every worker serves."""
        return all(self.ready)


@dataclass(frozen=True, slots=True)
class Running:
    """A mirror that answers."""

    listener: Listener
    local: LocalContent

    async def reload(self) -> None:
        """What SIGHUP asks for: look at the folders now, and read the certificate again."""
        self.local.rescan()
        await self.listener.reload_tls()


def scan_settings(config: Config) -> ScanSettings:
    """What to scan, and where the slow work on archives is remembered."""
    return ScanSettings(
        [Root(str(root.path), root.prefix, root.host, root.coalesce) for root in config.layouts],
        own_hosts(config),
        str(config.cache.path / "archives.db"),
        str(config.cache.path / "unpacked"),
        config.unpack_max_bytes,
    )


def generated(config: Config) -> GeneratedManifests:
    """The manifests that were made for local content."""
    return GeneratedManifests(config.cache.path / "generated")


def own_hosts(config: Config) -> frozenset[str]:
    """The names of this mirror itself: those configured, and the address that it listens on."""
    listen = config.listen
    here = {str(listen)} if listen.port else set()
    if listen.port and listen.host in ("127.0.0.1", "::1", "localhost"):
        here |= {f"localhost:{listen.port}", f"127.0.0.1:{listen.port}"}
    return frozenset(normalize_host(name) for name in here | set(config.names))


def view_now(config: Config) -> tuple[Scan, View]:
    """All local content as it lies there now, with the slow work that archives need done first. Blocks."""
    scanning = scan_settings(config).scanner()
    scan = scanning.scan()
    done: set[Job] = set()
    while scanning.shelf is not None and (jobs := [job for job in scan.jobs if job not in done]):
        for job in jobs:
            scanning.shelf.work(job)
        done.update(jobs)
        scan = scanning.scan()
    library = Library(Snapshot.of(scan.places), verify=scanning.shelf.verify if scanning.shelf else None)
    homes = find_homes(scan.places, library)
    return scan, View(Library(Snapshot.of(scan.places, homes), library), generated(config))


def remembered(config: Config) -> RememberedNames:
    """The plain names that local content once had."""
    return RememberedNames(config.cache.path / "remembered")


@asynccontextmanager
async def running(config: Config, slot: Slot | None = None) -> AsyncIterator[Running]:
    """The configured mirror, listening from the start; its first scan goes on beside. `slot`: one of several."""
    settings = scan_settings(config)
    local = LocalContent(
        await asyncio.to_thread(settings.scanner),
        await asyncio.to_thread(remembered, config),
        generated(config),
        config.refresh_seconds,
        ScanProcess(settings),
    )
    content = Content(local, {}, config.default_host)
    rules = NameRules(config.default_host, own_hosts(config), frozenset(config.upstreams))
    listener = Listener(
        Registry(content, rules, Everyone(), lambda: local.ready if slot is None else slot.all_ready),
        config.listen.host,
        config.listen.port,
        tls=TlsFiles(str(config.tls.cert), str(config.tls.key)) if config.tls else None,
        shutdown_timeout_seconds=config.shutdown_timeout_seconds,
        access_log=config.access_log,
        reuse_port=slot is not None,
    )
    async with listener:
        event(log, logging.INFO, "listening", url=listener.url, config=config.source, cache=config.cache.path)
        local.start()
        readying = asyncio.create_task(_settle(local, slot), name="wait until this worker is ready")
        try:
            yield Running(listener, local)
        finally:
            readying.cancel()
            await local.stop()


async def _settle(local: LocalContent, slot: Slot | None) -> None:
    """Say when this worker is ready; then, once all content is known, that it is here to stay."""
    await local.wait_ready()
    if slot is not None:
        slot.ready[slot.index] = 1
    await local.wait_complete()
    heap.settle()
