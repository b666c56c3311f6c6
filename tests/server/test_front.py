"""The fast path is the ordinary one, only faster: the same bytes, the same numbers, the same log."""

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.server.delivery import MAX_BEHIND_BYTES, Delivery
from mirror.server.heads import read_head
from tests.server.conftest import NAME, SBOM
from tests.server.paths import (
    Paths,
    all_that_comes,
    answer,
    both_paths,
    connection,
    manifest,
    one_by_one,
    plain,
    together,
    undated,
)
from tests.serving import Run, until

Kept = tuple[Run[Any], Paths]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("front")
    with asyncio.Runner() as runner:
        context = both_paths(folder)
        paths = runner.run(context.__aenter__())
        try:
            yield runner.run, paths
        finally:
            runner.run(context.__aexit__(None, None, None))


def targets(paths: Paths) -> list[str]:
    """Every endpoint, found and not found, well named and not."""
    sample = paths.sample
    base = f"/v2/{NAME}"
    references = ["1.0", "multi", "1.1.0+oci", "1.1.0%2Boci", "absent", "-", sample.image.digest, Digest.of(b"no")]
    digests = [sample.layer.digest, sample.image.digest, Digest.of(b"standalone"), Digest.of(b"no"), "sha256:xyz", ""]
    lists = [
        "tags/list",
        "tags/list?n=2",
        "tags/list?n=0",
        "tags/list?n=x",
        "tags/list?n=2&last=docker",
        "tags/list/",
    ]
    return [
        *(f"{base}/manifests/{reference}" for reference in references),
        *(f"{base}/manifests/1.0?{query}" for query in ("ns=docker.io", "ns=team.example", "ns=", "ns=%00", "x=1")),
        *(f"{base}/blobs/{digest}" for digest in digests),
        *(f"{base}/referrers/{digest}" for digest in digests),
        f"{base}/referrers/{sample.image.digest}?artifactType={SBOM}",
        *(f"{base}/{page}" for page in lists),
        *("/v2/", "/v2", "/docker.io/v2/", "/v2/_catalog", "/v2/_catalog?n=1", "/v2/_oci/ext/discover"),
        *("/healthz", "/readyz", "/", "/v3/", "//v2/", "/v2/?n=a#b", "/v2/_mirror/features", "/v2/_mirror/no"),
        *(
            f"/mirror.example/v2/{NAME}/manifests/1.0",
            "/v2/absent/tags/list",
            "/v2/A/tags/list",
            "/v2/a%2fb/tags/list",
        ),
        f"http://mirror.example{base}/manifests/1.0",
    ]


def lines(paths: Paths) -> list[str]:
    """Headers that decide something, and some that decide nothing; those at the end are no plain HTTP."""
    digest = paths.sample.image.digest
    return [
        f'If-None-Match: "{digest}"',
        f'If-None-Match: W/"{digest}"',
        f'if-none-match: "x", "{digest}"',
        "If-None-Match: *",
        'If-None-Match: "x"',
        "Range: bytes=0-9",
        "Range: bytes=-4",
        "Range: bytes=99999999-",
        "Range: bytes=1-2,4-5",
        "Range: lines=1-2",
        f'If-Range: "{digest}"',
        f"OCI-REF-NAME: {NAME}:1.0",
        "oci-ref-name:docker.io/library/other  ",
        "OCI-REF-NAME: ",
        "OCI-REF-NAME: %",
        "Accept: application/vnd.oci.image.manifest.v1+json",
        "Accept: */*",
        "Accept-Encoding: gzip",
        "User-Agent: containerd/2.0.0",
        "X-Meta-Source: a\tb",
        "Empty:",
        "Connection: close",
        "Connection: keep-alive",
        "connection: Close",
        "Connection: keep-alive, close",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Authorization: Bearer abc",
        "Content-Length: 0",
        "Content-Type: a/b",
        "Expect: 100-continue",
        "TE: trailers",
        "Host: other.example",
        "X: \xe4",
        "X : y",
        " folded: y",
        "no colon",
        "Transfer-Encoding: identity",
    ]


def request_of(method: str, target: str, version: str, headers: list[str]) -> bytes:
    return "\r\n".join([f"{method} {target} {version}", "Host: mirror.example", *headers, "", ""]).encode("latin-1")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_both_paths_give_the_same_bytes(kept: Kept, data: st.DataObject) -> None:
    run, paths = kept
    requests = st.builds(
        request_of,
        st.sampled_from(["GET", "GET", "GET", "HEAD", "HEAD", "POST", "PUT", "DELETE", "get", "FOO"]),
        st.sampled_from(targets(paths)),
        st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1"]),
        st.lists(st.sampled_from(lines(paths)), max_size=4),
    )
    asked = data.draw(st.lists(requests, min_size=1, max_size=3))
    assert run(one_by_one(paths.fast, asked)) == run(one_by_one(paths.ordinary, asked))


def test_every_endpoint_is_the_same_on_both_paths_cold_and_warm(kept: Kept) -> None:
    run, paths = kept
    for method in ("GET", "HEAD"):
        for header in (
            "Accept: */*",
            "OCI-REF-NAME: docker.io/team/app",
            f'If-None-Match: "{paths.sample.image.digest}"',
        ):
            asked = [plain(target, method, header) for target in targets(paths)]
            assert run(one_by_one(paths.fast, asked)) == run(one_by_one(paths.ordinary, asked))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_requests_sent_together_are_answered_as_those_sent_one_by_one(kept: Kept, data: st.DataObject) -> None:
    """From memory and from disk in any order: the connection changes hands in the middle."""
    run, paths = kept
    heads = st.sampled_from(
        [
            manifest(),
            manifest(method="HEAD"),
            manifest(f'If-None-Match: "{paths.sample.image.digest}"'),
            plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}"),
            plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}", "GET", "Range: bytes=7-9"),
            plain(f"/v2/{NAME}/tags/list?n=2"),
            plain("/v2/_catalog"),
            plain("/v2/absent/manifests/1"),
            plain("/v2/", "DELETE"),
        ]
    )
    asked = data.draw(st.lists(heads, min_size=1, max_size=40))
    expected = b"".join(run(one_by_one(paths.ordinary, asked)))
    assert run(together(paths.fast, asked)) == expected


SMUGGLED = [
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\r\n c: d\r\n\r\n",
    b"GET /v2/ HTTP/1.1\nHost: x\n\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\n\r\n",
    b"GET  /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1 \r\nHost: x\r\n\r\n",
    b"GET /v2/\tHTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: \xc3\xa4\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close, keep-alive\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key1: a\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 9000 + b"\r\n\r\n",
    b"GET /v2/?" + b"b" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("sent", SMUGGLED)
def test_what_two_servers_could_read_differently_is_left_to_the_parser(kept: Kept, sent: bytes) -> None:
    run, paths = kept
    assert read_head(sent) is None
    for asked in ([sent], [manifest(), sent], [sent, manifest()]):
        assert run(one_by_one(paths.fast, asked)) == run(one_by_one(paths.ordinary, asked))


def test_what_is_in_memory_never_reaches_aiohttp(kept: Kept) -> None:
    run, paths = kept
    small = plain(f"/v2/{NAME}/blobs/{Digest.of(b'standalone')}")
    asked = [
        manifest("Accept: a/b", "Accept: c/d"),
        manifest(method="HEAD"),
        manifest("Connection: keep-alive"),
        manifest(f'If-None-Match: "{paths.sample.image.digest}"'),
        small,
        plain(f"/v2/{NAME}/blobs/{Digest.of(b'standalone')}", "GET", "Range: bytes=2-4"),
        plain(f"/v2/{NAME}/tags/list?n=1"),
        plain("/v2/"),
        plain("/v2/a%2fb/tags/list"),
    ]
    warm = run(one_by_one(paths.fast, asked))
    before = paths.ordinarily_answered
    assert run(one_by_one(paths.fast, asked)) == warm
    assert paths.ordinarily_answered == before
    assert b"standalone" in b"".join(run(one_by_one(paths.fast, [small])))


def test_a_connection_comes_back_after_an_answer_from_the_disk(kept: Kept) -> None:
    run, paths = kept
    blob = plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}")
    before = paths.ordinarily_answered

    async def talk() -> None:
        async with connection(paths.fast) as (reader, writer):
            for request in (manifest(), blob, manifest(), blob, manifest()):
                writer.write(request)
                assert (await answer(reader, b"GET")).startswith(b"HTTP/1.1 200 OK\r\n")
            await until(lambda: paths.held > 0)

    run(talk())
    assert paths.ordinarily_answered == before, "none of these is for aiohttp"


def test_a_request_behind_one_that_takes_time_gets_its_answer_after_it(kept: Kept) -> None:
    """It comes while the first is being answered: before, within, and right after its answer."""
    run, paths = kept
    blob = plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}")

    async def talk() -> None:
        async with connection(paths.fast) as (reader, writer):
            for turns in range(40):
                writer.write(blob)
                for _ in range(turns):
                    await asyncio.sleep(0)
                writer.write(manifest())
                assert paths.sample.content(paths.sample.layer) in await answer(reader, b"GET")
                assert (await answer(reader, b"GET")).endswith(paths.sample.content(paths.sample.image))

    run(talk())


def test_requests_behind_one_that_takes_time_are_not_taken_without_end(kept: Kept) -> None:
    """They wait in the client's own buffers; each gets its answer in its turn."""
    run, paths = kept
    behind = manifest("X-Long: " + 2_000 * "x")
    count = 4 * MAX_BEHIND_BYTES // len(behind)

    async def talk() -> None:
        async with connection(paths.fast) as (reader, writer):
            writer.write(plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}"))

            async def send() -> None:
                for _ in range(count):
                    await asyncio.sleep(0)
                    writer.write(behind)
                    await writer.drain()

            sending = asyncio.create_task(send())
            assert paths.sample.content(paths.sample.layer) in await answer(reader, b"GET")
            for _ in range(count):
                assert (await answer(reader, b"GET")).endswith(paths.sample.content(paths.sample.image))
            await sending

    run(talk())


def test_a_head_may_come_in_any_two_pieces(kept: Kept) -> None:
    run, paths = kept
    whole = manifest("Accept: a/b", "Connection: close")

    async def split(position: int) -> bytes:
        async with connection(paths.fast) as (reader, writer):
            writer.write(whole[:position])
            await asyncio.sleep(0.001)  # so that mostly they arrive apart
            writer.write(whole[position:])
            return undated(await reader.read())

    async def every_split() -> set[bytes]:
        return {await split(position) for position in range(len(whole) + 1)}

    (found,) = run(every_split())
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")


def test_who_closes_its_side_after_asking_still_gets_the_answer(kept: Kept) -> None:
    run, paths = kept

    async def talk() -> bytes:
        async with connection(paths.fast) as (reader, writer):
            writer.write(manifest())
            writer.write_eof()
            return await reader.read()

    run(talk())
    found = run(talk())
    assert found.endswith(paths.sample.content(paths.sample.image))


async def test_metrics_and_log_lines_are_the_same_on_both_paths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with both_paths(tmp_path, access_log=True) as paths:
        asked = [plain(target, method) for target in targets(paths) for method in ("GET", "HEAD")]
        asked += [manifest(f'If-None-Match: "{paths.sample.image.digest}"')]
        await one_by_one(paths.ordinary, asked)
        await until(lambda: len(logged(caplog)) == len(asked) + 1)
        said, counted = [], []
        for listener in (paths.fast, paths.ordinary):
            caplog.clear()
            before = await counts(paths)
            await one_by_one(listener, asked)
            after = await counts(paths)
            counted.append({name: value - before.get(name, 0) for name, value in after.items()})
            # The last one is that of `LAST`.
            await until(lambda: len(logged(caplog)) == len(asked) + 1)
            said.append(logged(caplog))
    assert counted[0] == counted[1]
    assert sum(counted[0].values()) > len(asked)
    assert said[0] == said[1]
    assert len(said[0]) == len(asked) + 1


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Remote, method, target, status and bytes of every answer."""
    records = [record for record in caplog.records if record.message == "request"]
    return [(remote, *values) for record in records for _, remote, values in record.__dict__["rows"]]


async def counts(paths: Paths) -> dict[str, float]:
    text = (await paths.mirror.get("/metrics")).body.decode()
    pairs = [
        line.rpartition(" ") for line in text.splitlines() if line.startswith("mirror_") and "METRICS" not in line
    ]
    return {name: float(value) for name, _, value in pairs if "_total" in name and "metrics" not in name}


def test_a_connection_that_ended_with_an_answer_leaves_nothing_to_the_collector(kept: Kept) -> None:
    run, paths = kept
    request = plain(f"/v2/{NAME}/blobs/{paths.sample.layer.digest}", "GET", "Connection: close")
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            run(all_that_comes(paths.fast, request))
        left = [one for one in gc.get_objects() if isinstance(one, Delivery)]
    finally:
        gc.enable()
    assert left == []


async def test_without_the_fast_path_aiohttp_answers_everything(tmp_path: Path) -> None:
    async with both_paths(tmp_path) as paths:
        await one_by_one(paths.ordinary, [manifest(), manifest()])
        assert paths.ordinary._server.requests_count == 3
        assert paths.ordinary._server._fronts is None
