"""A running mirror: everything that the configuration asks for, entered in order and left in the reverse one."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from mirror.app.local import generated, local_content
from mirror.app.prepare import run_folder
from mirror.app.scanning import own_hosts, scan_settings
from mirror.app.search import cached_content, extensions, filling, search_index
from mirror.app.slot import Slot
from mirror.app.upstreams import cache, pull_through
from mirror.config import Config
from mirror.logs import event
from mirror.server.access import Access, Everyone
from mirror.server.extensions import Extension
from mirror.server.http import Listener, TlsFiles
from mirror.server.metrics import Metrics
from mirror.server.names import NameRules
from mirror.server.registry import Registry
from mirror.sources.heap import COLLECT_SECONDS
from mirror.sources.local import LocalContent
from mirror.sources.merged import Content
from mirror.sources.scan_feed import ScanFeed
from mirror.sources.scan_process import ScanProcess
from mirror.sources.search_index import SearchFiller
from mirror.store.cache import Cache

log = logging.getLogger(__name__)

EVERYONE = Everyone()
# How old the numbers of other workers may be when one of them is asked.
METRICS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """A mirror that answers."""

    listener: Listener
    local: LocalContent

    async def reload(self) -> None:
        """What SIGHUP asks for: look at the folders now, and read the certificate again."""
        self.local.rescan()
        await self.listener.reload_tls()


@asynccontextmanager
async def running(
    config: Config,
    slot: Slot | None = None,
    *,
    scans: bytes | None = None,
    access: Access = EVERYONE,
    further: Sequence[Extension] = (),
) -> AsyncIterator[Running]:
    """The configured mirror, listening from the start; its first scan goes on beside. `slot`: one of several.

    `scans` is the address of the scan process that several share; without it, this mirror has one of its own.
    `access` says who may read what; `further` are extensions beside its own.
    """
    metrics = await asyncio.to_thread(_metrics, config, slot)
    fills = slot is None or slot.index == 0
    async with (
        _scanned(config, scans, first=fills) as local,
        await asyncio.to_thread(cache, config) as kept,
        pull_through(config, kept, metrics) as upstreams,
        search_index(config, fills=fills) as index,
    ):
        content = Content(local, upstreams, config.default_host, kept.names, generated(config))
        rules = NameRules(config.default_host, own_hosts(config), frozenset(config.upstreams))
        ready = (lambda: local.ready) if slot is None else (lambda: slot.all_ready)
        listener = Listener(
            Registry(content, rules, access, ready, metrics=metrics, extensions=(*extensions(index), *further)),
            config.listen.host,
            config.listen.port,
            tls=TlsFiles(str(config.tls.cert), str(config.tls.key)) if config.tls else None,
            shutdown_timeout_seconds=config.shutdown_timeout_seconds,
            access_log=config.access_log,
            fast_path=config.fast_path,
            reuse_port=slot is not None,
            # Fills are not waited for: what hangs on them is cut, and their parts stay.
            on_stopping=kept.blobs.stop,
        )
        if metrics is not None:
            metrics.before_reading(partial(_count_elsewhere, local, kept))
        filler = SearchFiller(index, cached_content(config, kept)) if fills else None
        async with listener, _beside(local, slot, metrics), filling(filler, local):
            event(
                log,
                logging.INFO,
                "listening",
                url=listener.url,
                config=config.source,
                layouts=[str(root.path) for root in config.layouts],
                cache=config.cache.path,
            )
            yield Running(listener, local)


@asynccontextmanager
async def _scanned(config: Config, scans: bytes | None, *, first: bool) -> AsyncIterator[LocalContent]:
    """Local content as long as there are scans of it. `first`: of several workers, the one that tells of it."""
    async with AsyncExitStack() as stack:
        if scans is None:
            own = ScanProcess()
            stack.push_async_callback(asyncio.to_thread, own.close)
            await asyncio.to_thread(own.start, scan_settings(config))
            scans = own.address
        yield await asyncio.to_thread(local_content, config, ScanFeed(scans), tells=first)


@asynccontextmanager
async def _beside(local: LocalContent, slot: Slot | None, metrics: Metrics | None) -> AsyncIterator[None]:
    """What goes on beside answering."""
    local.start()
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(_collect(), name="collect garbage")]
    if slot is not None:
        tasks.append(asyncio.create_task(_tell_ready(local, slot), name="tell that this worker is ready"))
    if slot is not None and metrics is not None:
        tasks.append(asyncio.create_task(_write_metrics(metrics), name="write metrics"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await local.stop()


async def _tell_ready(local: LocalContent, slot: Slot) -> None:
    await local.wait_ready()
    slot.ready[slot.index] = 1


async def _collect() -> None:
    while True:
        await asyncio.sleep(COLLECT_SECONDS)
        gc.collect()


async def _write_metrics(metrics: Metrics) -> None:
    while True:
        with suppress(OSError):  # a full disk costs numbers only
            await asyncio.to_thread(metrics.write)
        await asyncio.sleep(METRICS_SECONDS)


def _metrics(config: Config, slot: Slot | None) -> Metrics | None:
    if not config.metrics:
        return None
    if slot is None:
        return Metrics()
    folder = run_folder(config) / "metrics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        event(log, logging.WARNING, "metrics_not_shared", reason=error)
        return Metrics()
    return Metrics(folder, slot.index)


def _count_elsewhere(local: LocalContent, kept: Cache, metrics: Metrics) -> None:
    """Numbers that others keep."""
    counters = kept.blobs.counters
    for state in ("started", "finished", "failed", "passed_through"):
        metrics.set("mirror_fills", getattr(counters, state), (state,))
    metrics.set("mirror_fill_written_bytes", counters.written_bytes)
    metrics.set("mirror_evicted_bytes", kept.evicted_bytes)
    metrics.set("mirror_evicted_tags", kept.evicted_tags)
    metrics.set("mirror_fills_running", kept.blobs.running())
    metrics.set("mirror_cache_size_bytes", kept.index.usage_bytes())
    metrics.set("mirror_local_repositories", len(local.snapshot.repositories))
