"""Every way to fail, for every kind of question, over a warm cache and over a cold one."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hub import (
    Authority,
    BlackHole,
    Corrupt,
    Drip,
    Hub,
    RedirectLoop,
    Reset,
    Status,
    Truncate,
    WrongLength,
)
from tests.hub.content import build_image
from tests.hub.faults import Fault
from tests.hub.fixtures import Hubs
from tests.pull_through.asking import APP, check_cache, forget_run, listed, path, pulling, upstream
from tests.serving import Mirror, Reply

REFUSED, DNS, TLS = "refused", "DNS failure", "TLS failure"


@dataclass(frozen=True)
class Failing:
    """A way to fail, and what a client is told that nothing is cached for.

    `in_body`: it is met by who reads a body, so that a HEAD goes well.
    """

    what: str
    fault: Fault | None
    status: int
    code: str | None = "UNAVAILABLE"
    in_body: bool = False
    retry_after: bool = False


FAILURES = [
    Failing(REFUSED, None, 502),
    Failing(DNS, None, 502),
    Failing(TLS, None, 502),
    Failing("black hole", BlackHole(), 504),
    Failing("reset", Reset(), 502),
    Failing("401", Status(401), 403, "DENIED"),
    Failing("403", Status(403), 403, "DENIED"),
    Failing("404", Status(404), 404, None),
    Failing("408", Status(408), 504),
    Failing("410", Status(410), 404, None),
    Failing("429", Status(429, {"Retry-After": "9"}), 503, retry_after=True),
    Failing("500", Status(500), 502),
    Failing("502", Status(502), 502),
    Failing("503", Status(503), 502),
    Failing("503 with Retry-After", Status(503, {"Retry-After": "9"}), 502),
    Failing("504", Status(504), 502),
    Failing("truncated body", Truncate(20), 502, in_body=True),
    Failing("wrong bytes", Corrupt(), 502, in_body=True),
    Failing("wrong length", WrongLength(5), 502, in_body=True),
    Failing("slow drip", Drip(200), 504, in_body=True),
    Failing("redirect loop", RedirectLoop(), 502),
]
KINDS = ["HEAD tag", "GET tag", "GET digest", "blob", "tags", "referrers"]
# What a repository without an answer is told to be, by kind.
UNKNOWN = {
    "HEAD tag": (404, "MANIFEST_UNKNOWN"),
    "GET tag": (404, "MANIFEST_UNKNOWN"),
    "GET digest": (404, "MANIFEST_UNKNOWN"),
    "blob": (404, "BLOB_UNKNOWN"),
    "tags": (404, "NAME_UNKNOWN"),
    # A registry without the API and without the fallback tag: nothing refers to it.
    "referrers": (200, None),
}
DEADLINE_SECONDS = 2.0


def host_of(kind: str) -> str:
    """A host for each kind, all of them the same hub: so that no breaker of one answers for another."""
    return f"{kind.lower().replace(' ', '-')}.test"


@pytest.mark.parametrize("failing", FAILURES, ids=lambda one: one.what)
async def test_over_a_warm_cache_everything_is_served_exactly_and_soon(
    tmp_path: Path, hubs: Hubs, authority: Authority, failing: Failing
) -> None:
    hub = await hubs()
    folder = tmp_path / "mirror"
    always = {"tag_ttl": "0s", "referrers_ttl": "0s"}
    before = await _warm(folder, hub, always)
    if failing.in_body:
        # A HEAD is not hit by it: it is met when the tag has moved.
        hub.keep(APP, build_image({"moved": b""}), "1")
    endpoint = await _fail(hubs, hub, authority, failing)
    forget_run(folder)
    async with pulling(folder, _hosts(endpoint, **always)) as mirror:
        for kind in KINDS:
            for again in (False, True):
                began = time.monotonic()
                answer = await _ask(mirror, hub, kind)
                seconds = time.monotonic() - began
                assert (answer.status, answer.body) == (200, before[kind].body), kind
                assert seconds < (DEADLINE_SECONDS if not again else 0.9), (kind, again, seconds)
                _check_marks(failing, kind, answer)
    await check_cache(folder / "cache")


@pytest.mark.parametrize("failing", FAILURES, ids=lambda one: one.what)
async def test_over_a_cold_cache_the_client_is_told_what_it_can_act_on(
    tmp_path: Path, hubs: Hubs, authority: Authority, failing: Failing
) -> None:
    hub = await hubs()
    image = hub.image(APP, "1", files={"x": b"x" * 5000})
    hub.reference(APP, image, "application/vnd.test")
    endpoint = await _fail(hubs, hub, authority, failing)
    short = {"connect_timeout": "400ms", "first_byte_timeout": "400ms", "idle_timeout": "200ms", "unknown_ttl": "0s"}
    folder = tmp_path / "mirror"
    async with pulling(folder, _hosts(endpoint, **short)) as mirror:
        for kind in KINDS:
            answer = await _ask(mirror, hub, kind)
            status, code = UNKNOWN[kind] if failing.status == 404 else (failing.status, failing.code)
            if failing.in_body and answer.status == 200:
                # What is slow, or resumed after a cut, need not be wrong.
                _check_right(hub, kind, answer)
                continue
            assert answer.status == status, (kind, answer)
            if kind != "HEAD tag" and code:
                assert answer.code == code
            assert ("Retry-After" in answer.headers) == failing.retry_after
            if failing.retry_after:
                assert 1 <= int(answer.headers["Retry-After"]) <= 9
            assert "WWW-Authenticate" not in answer.headers
    await check_cache(folder / "cache")


def _hosts(endpoint: str, **keys: Any) -> dict[str, dict[str, Any]]:
    return {host_of(kind): upstream(endpoint, **keys) for kind in KINDS}


async def _ask(mirror: Mirror, hub: Hub, kind: str) -> Reply:
    image = next(iter(hub.repositories[APP].manifests))
    host, blob = host_of(kind), next(iter(hub.repositories[APP].blobs))
    match kind:
        case "HEAD tag":
            return await mirror.head(path("manifests", "1", host=host))
        case "GET tag":
            return await mirror.get(path("manifests", "1", host=host))
        case "GET digest":
            return await mirror.get(path("manifests", image, host=host))
        case "blob":
            return await mirror.get(path("blobs", blob, host=host))
        case "tags":
            return await mirror.get(path("tags", "", host=host))
        case _:
            return await mirror.get(path("referrers", image, host=host))


async def _warm(folder: Path, hub: Hub, keys: dict[str, Any]) -> dict[str, Reply]:
    image = hub.image(APP, "1", files={"x": b"x" * 5000})
    hub.reference(APP, image, "application/vnd.test")
    async with pulling(folder, _hosts(hub.url, **keys)) as mirror:
        replies = {kind: await _ask(mirror, hub, kind) for kind in KINDS}
    assert {reply.status for reply in replies.values()} == {200}
    return replies


async def _fail(hubs: Hubs, hub: Hub, authority: Authority, failing: Failing) -> str:
    """Make the hub fail; the URL to ask it at."""
    match failing.what:
        case "refused":
            await hub.refuse()
        case "DNS failure":
            return "http://no-such-host.invalid"
        case "TLS failure":
            return (await hubs(tls=await asyncio.to_thread(authority.server_context))).url
    if failing.fault is not None:
        hub.fault(failing.fault)
    return hub.url


def _check_right(hub: Hub, kind: str, answer: Reply) -> None:
    stored = hub.repositories[APP]
    match kind:
        case "blob":
            assert answer.body == next(iter(stored.blobs.values()))
        case "tags":
            assert answer.json()["tags"] == ["1"]
        case "referrers":
            assert listed(answer.body) == [list(stored.manifests)[1]]
        case _:
            pytest.fail(f"{kind} cannot be right")


def _check_marks(failing: Failing, kind: str, answer: Reply) -> None:
    status = answer.headers["Cache-Status"]
    assert status.endswith(f'detail="{host_of(kind)}"')
    if kind in ("GET digest", "blob"):
        assert status.startswith("mirror; hit; detail=")
        assert "Age" not in answer.headers
    elif failing.what == "slow drip" and kind in ("tags", "referrers") and "Age" not in answer.headers:
        pass  # it came in time
    else:
        assert status.startswith("mirror; hit; ttl=-"), (kind, status)
        assert int(answer.headers["Age"]) >= 0
