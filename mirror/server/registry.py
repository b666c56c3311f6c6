"""`find`: one function that decides every answer. Sending is somebody else's."""

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from mirror.logs import event
from mirror.oci.errors import MethodUnsupported, NameUnknown, NotFound, OciError, Unavailable
from mirror.oci.names import Name
from mirror.server.access import ANONYMOUS, Access
from mirror.server.answer import Answer, answer, given_again, json_answer, namespace_headers
from mirror.server.ask import Ask
from mirror.server.blobs import blob
from mirror.server.catalog import catalog
from mirror.server.conditions import conditioned
from mirror.server.crowds import Crowds
from mirror.server.errors import error_answer, internal_error
from mirror.server.extensions import Extension, ExtensionAsk, discovery
from mirror.server.manifests import manifest
from mirror.server.metrics import CONTENT_TYPE, Metrics
from mirror.server.names import NameRules, Wanted, read_names
from mirror.server.recent import Recent
from mirror.server.referrers import referrers
from mirror.server.request import Key, Request
from mirror.server.route import Endpoint, Route, parse_target
from mirror.server.tags import tags
from mirror.sources.merged import Content
from mirror.sources.source import LOCAL, Origin

log = logging.getLogger(__name__)

# Rendered answers: bounded by bytes; each stands until its content's generation or freshness ends.
KNOWN_BYTES = 64 * 1024 * 1024
# What an answer weighs beside its body and its key: headers, and heads rendered for GET, HEAD and 304.
ANSWER_BYTES = 6 * 1024
# What requests mean whose answers are not kept: crowds ask for one blob.
REMEMBERED_BYTES = 4 * 1024 * 1024
# What an entry weighs beside its key, of whose parts it holds copies.
MEANT_BYTES = 4 * 1024
CATALOG_WAIT_SECONDS = 5.0
# What is found again unasked is asked for each so many times: else it would be dropped as if nobody wanted it.
RENEWED_HITS = 64
# How exactly the cache knows when something was last used; telling it takes as long as the answer itself.
USED_SECONDS = 0.1

NAMED: Mapping[Endpoint, Callable[[Ask], Awaitable[tuple[Answer, Origin]]]] = {
    Endpoint.MANIFEST: manifest,
    Endpoint.BLOB: blob,
    Endpoint.TAGS: tags,
    Endpoint.REFERRERS: referrers,
}


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer that is not in memory: entering the context finds it, and keeps its body open."""

    answer: Callable[[], AbstractAsyncContextManager[Answer]]


@dataclass(slots=True, weakref_slot=True)
class _Known:
    """An answer that may be given again. Whoever remembers it beside the registry does so weakly: its bytes count."""

    answer: Answer
    # None: it is nobody's content.
    name: Name | None
    generation: int
    origin: Origin
    # On `time.monotonic`'s clock: when its source was last told that it is used.
    told_at: float = float("-inf")
    hits: int = 0
    # As HEAD gets it, and who has it already; by the identity of their answers.
    variants: dict[int, "_Known"] = field(default_factory=dict)


class Registry:
    """Decides answers over all content."""

    def __init__(
        self,
        content: Content,
        rules: NameRules,
        access: Access,
        ready: Callable[[], bool],
        *,
        metrics: Metrics | None = None,
        extensions: Sequence[Extension] = (),
    ) -> None:
        self._extensions = extensions
        self._ready = ready
        self._metrics = metrics
        # Counts an answer that goes out, by the request's method. Every answer passes here: no call in between.
        self.sent: Callable[[str, Answer], None] = _uncounted if metrics is None else metrics.answered
        self._content = content
        self._local = content.local
        self._rules = rules
        self._access = access
        self._crowds = Crowds()
        self._meant: Recent[Key, tuple[Route, Wanted]] = Recent(REMEMBERED_BYTES)
        self._known: Recent[Key, _Known] = Recent(KNOWN_BYTES)

    def find(self, request: Request) -> Answer | Pending:
        """The answer to a request, or how to come by it. Quick, and touches no disk and no network."""
        known: _Known | None = request.again()
        if known is not None and self._stands(known):
            known.hits += 1
            if known.hits % RENEWED_HITS == 0:
                self._known.get(request.key)
            return known.answer
        if request.method not in ("GET", "HEAD"):
            return error_answer(MethodUnsupported({"method": request.method[:40]}))
        known = self._known.get(request.key)
        if known is not None and self._stands(known):
            found = conditioned(known.answer, request)
            _remember(known, found, request)
            return found
        try:
            route, wanted = self._meant.get(request.key) or self._read(request)
        except OciError as error:
            return conditioned(error_answer(error), request)
        at_once = self._at_once(route)
        if at_once is not None:
            found = _of(route, at_once, wanted)
            if route.endpoint is Endpoint.PING:
                self._keep(request, _Known(found, None, self._local.generation, LOCAL))
            return conditioned(found, request)
        return Pending(lambda: self._pending(request, route, wanted))

    def _read(self, request: Request) -> tuple[Route, Wanted]:
        """What the request's target and names mean. Raises OciError."""
        route = parse_target(request.target)
        meant = route, read_names(route, request.ref_names, request.host, self._rules)
        self._meant.put(request.key, meant, _key_bytes(request) + MEANT_BYTES)
        return meant

    def _stands(self, known: _Known) -> bool:
        """Whether it may be given now; if so, its source is told that it is used."""
        if known.generation != self._local.generation:
            return False
        origin = known.origin
        if origin.fresh_until is not None and time.monotonic() >= origin.fresh_until:
            return False
        if known.name is not None and not self._access.may_read(ANONYMOUS, known.name):
            return False
        if origin.used is not None:
            _tell_used(known, origin.used)
        return True

    def _keep(self, request: Request, known: _Known) -> None:
        self._known.put(request.key, known, known.answer.length + ANSWER_BYTES + _key_bytes(request))

    def _at_once(self, route: Route) -> Answer | None:
        """Answers that need no content."""
        match route.endpoint:
            case Endpoint.PING:
                return json_answer(200, {}, {})
            case Endpoint.HEALTH:
                return answer(200, {"Content-Type": "text/plain"}, b"ok\n")
            case Endpoint.READY:
                ready = self._ready()
                body = b"ready\n" if ready else b"the first scan has not ended\n"
                return answer(200 if ready else 503, {"Content-Type": "text/plain"}, body)
            case Endpoint.METRICS if self._metrics is None:
                return error_answer(NotFound({"path": route.path}))
            case _:
                return None

    @asynccontextmanager
    async def _pending(self, request: Request, route: Route, wanted: Wanted) -> AsyncIterator[Answer]:
        async with AsyncExitStack() as stack:
            try:
                if route.endpoint is Endpoint.CATALOG:
                    found = await self._catalog(route, wanted)
                elif route.endpoint is Endpoint.METRICS and self._metrics is not None:
                    found = answer(200, {"Content-Type": CONTENT_TYPE}, await asyncio.to_thread(self._metrics.render))
                elif route.endpoint is Endpoint.EXTENSION:
                    found = await self._extension(route)
                elif route.endpoint is Endpoint.DISCOVERY:
                    found = await self._discovery(route, wanted)
                else:
                    found = await self._named(request, route, wanted, stack)
            except OciError as error:
                found = error_answer(error)
            except OSError as error:
                # The disk, or this process's limits: "unknown" would be a lie, which clients might keep.
                said = {"method": request.method, "target": request.target[:300], "reason": str(error)}
                event(log, logging.ERROR, "request_failed", **said)
                found = error_answer(Unavailable(retry_after_seconds=1))
            except Exception:
                log.exception(
                    "request_failed", extra={"fields": {"method": request.method, "target": request.target}}
                )
                found = internal_error()
            yield conditioned(_of(route, found, wanted), request)

    async def _named(self, request: Request, route: Route, wanted: Wanted, stack: AsyncExitStack) -> Answer:
        if wanted.repository is None:
            raise NameUnknown({"name": route.name[:300]})
        await self._local.wait_named(wanted.host, wanted.repository)
        # Taken before asking: what changes meanwhile makes the answer one of the past.
        generation = self._local.generation
        name, source = self._content.meant(wanted.host, wanted.repository)
        if not self._access.may_read(ANONYMOUS, name):
            raise NameUnknown({"name": str(name)})

        def find(stack: AsyncExitStack) -> Awaitable[tuple[Answer, Origin]]:
            return self._found(Ask(request.method, route, wanted, name, source, stack), request, generation)

        if route.endpoint is Endpoint.BLOB and request.method == "GET":
            return await stack.enter_async_context(self._crowds.member(request.key, generation, find))
        return (await find(stack))[0]

    async def _found(self, ask: Ask, request: Request, generation: int) -> tuple[Answer, Origin]:
        found, origin = await NAMED[ask.route.endpoint](ask)
        found = _of(ask.route, found, ask.wanted)
        whole = isinstance(found.body, bytes) and len(found.body) == found.length
        if whole and (origin.fresh_until is None or origin.fresh_until > time.monotonic()):
            self._keep(request, _Known(given_again(found, origin), ask.name, generation, origin))
        return found, origin

    async def _extension(self, route: Route) -> Answer:
        name, _, endpoint = route.reference.partition("/")
        for extension in self._extensions:
            if extension.name == name and endpoint in extension.endpoints:
                await self._local.wait_ready()
                ask = ExtensionAsk(route, self._content, self._access, ANONYMOUS)
                return await extension.endpoints[endpoint](ask)
        raise NotFound({"path": route.path[:300]})

    async def _discovery(self, route: Route, wanted: Wanted) -> Answer:
        """Of a repository, only where there may be one: nothing is asked of an upstream for it."""
        if route.name:
            if wanted.repository is None:
                raise NameUnknown({"name": route.name[:300]})
            await self._local.wait_named(wanted.host, wanted.repository)
            name, _ = self._content.meant(wanted.host, wanted.repository)
            if not (self._access.may_read(ANONYMOUS, name) and self._content.may_have(name)):
                raise NameUnknown({"name": str(name)})
        return discovery(self._extensions)

    async def _catalog(self, route: Route, wanted: Wanted) -> Answer:
        try:
            async with asyncio.timeout(CATALOG_WAIT_SECONDS):
                await self._local.wait_complete()
        except TimeoutError:
            pass
        names = [name for name in await self._content.names() if self._access.may_read(ANONYMOUS, name)]
        return catalog(route, wanted.host, names, self._local.complete)


def _uncounted(method: str, answer: Answer) -> None:
    """Nobody asks for numbers."""


def _key_bytes(request: Request) -> int:
    target, host, ref_names = request.key
    # A character may take four bytes.
    return 4 * (len(target) + len(host or "") + sum(map(len, ref_names)))


def _tell_used(known: _Known, used: Callable[[], None]) -> None:
    now = time.monotonic()
    if now - known.told_at >= USED_SECONDS:
        known.told_at = now
        used()


def _remember(known: _Known, found: Answer, request: Request) -> None:
    """Have the request find what its conditions made of the known answer at once when it comes again."""
    # Ranges are as many as clients care to ask for.
    if found.status in (200, 304):
        variant = known
        if found is not known.answer:
            variant = known.variants.get(id(found)) or replace(known, answer=found, variants={})
            known.variants[id(found)] = variant
        object.__setattr__(request, "again", weakref.ref(variant))


def _of(route: Route, found: Answer, wanted: Wanted) -> Answer:
    """The answer as one of this route: with the host that the client chose, if it did."""
    endpoint = route.endpoint.name.lower()
    if found.endpoint == endpoint:
        return found  # it is
    headers = {**found.headers, **namespace_headers(wanted.chosen)}
    return replace(found, headers=headers, endpoint=endpoint)
