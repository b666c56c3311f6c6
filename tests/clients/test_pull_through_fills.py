"""Large blobs on their way through running mirrors: crowds, and mirrors that die meanwhile."""

from pathlib import Path

import pytest

from tests.bench.crowd import MIB, Crowd, Reader, blob
from tests.bench.fills import REPOSITORY, measure, part_bytes
from tests.clients.through import mirroring, upstream
from tests.hub import Hub, Truncate
from tests.hub.beside import Beside
from tests.running import Client, wait_until

WORKERS = pytest.mark.parametrize("workers", [1, 2])


@WORKERS
def test_fifty_clients_on_one_cold_blob_are_one_request_upstream(tmp_path: Path, workers: int) -> None:
    size = 16 * MIB
    found = measure(tmp_path, size, 50e6, workers, apart=False)
    assert found.all_right
    assert found.upstream_gets - found.ranges_asked == 1
    # In each process a sixty-fourth of it and four MiB, and what is on its way when one of four ranges ends.
    assert found.upstream_bytes < size + workers * (4 * MIB + size // 64 + 4 * 4 * MIB)
    assert found.grown_bytes < 64 * MIB


@WORKERS
def test_a_fill_goes_on_where_a_killed_mirror_left_it(tmp_path: Path, workers: int) -> None:
    size = 48 * MIB
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=40e6))
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        config = {"docker.io": upstream(hub.url)}
        with mirroring(tmp_path, config, workers=workers) as mirror, Client(mirror.host) as client:
            client.ask(path)
            assert client.head().status == 200
            wait_until(lambda: part_bytes(tmp_path) > size // 3, "a third of the blob is there")
            mirror.kill()
        held = part_bytes(tmp_path)
        assert size // 3 < held < size
        with mirroring(tmp_path, config, workers=workers) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
            assert met.whole
            assert met.right
        first, second = hub.select("GET", path)
        assert "Range" not in first.headers
        assert second.headers["Range"] == f"bytes={held}-", "nothing that is on disk is fetched again"


@WORKERS
def test_a_mirror_that_dies_between_the_last_byte_and_the_name_has_the_blob_without_another(
    tmp_path: Path, workers: int
) -> None:
    size = 4 * MIB
    with Beside() as beside:
        hub = beside.open(Hub())
        digest = hub.blob(REPOSITORY, blob(size))
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        part = tmp_path / "cache" / "parts" / digest.fallback_tag
        part.parent.mkdir(parents=True)
        part.write_bytes(blob(size))
        part.with_name(f"{part.name}.json").write_text(f'{{"size": {size}, "etag": null, "supplier": null}}')
        with mirroring(tmp_path, {"docker.io": upstream(hub.url)}, workers=workers) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
            assert met.right
            assert met.whole
        assert sum(one.bytes_sent for one in hub.select("GET", path)) == 0


def test_a_fill_that_is_cut_again_and_again_is_one_answer(tmp_path: Path) -> None:
    # What was in the sockets at a cut is lost: the same few hundred KiB for any size.
    size = 64 * MIB
    with Beside() as beside:
        hub = beside.open(Hub())
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        for after in (1, 3 * MIB + 17, 5 * MIB, 100_000, 11 * MIB):
            hub.fault(Truncate(after), kind="blob", times=1)
        with mirroring(tmp_path, {"docker.io": upstream(hub.url)}) as mirror:
            (met,) = Crowd(mirror.host, path, size, [Reader()]).run()
        assert met.whole
        assert met.right
        sent = sum(one.bytes_sent for one in hub.select("GET", path))
        assert len(hub.select("GET", path)) == 6
        assert sent <= size * 1.01


@WORKERS
def test_a_client_that_resumes_by_range_gets_the_rest(tmp_path: Path, workers: int) -> None:
    """docker asks again from where it was cut, while the fill runs and when it is over."""
    size = 24 * MIB
    with Beside() as beside:
        hub = beside.open(Hub(bytes_per_second=40e6))
        path = f"/v2/{REPOSITORY}/blobs/{hub.blob(REPOSITORY, blob(size))}"
        with mirroring(tmp_path, {"docker.io": upstream(hub.url)}, workers=workers) as mirror:
            with Client(mirror.host) as client:
                client.ask(path)
                assert client.head().status == 200
                begun = client.body(5 * MIB)
            for _ in range(2):
                with Client(mirror.host) as client:
                    client.ask(path, headers={"Range": f"bytes={len(begun)}-"})
                    head = client.head()
                    assert head.status == 206
                    assert head.headers["content-range"] == f"bytes {len(begun)}-{size - 1}/{size}"
                    assert begun + client.body(size - len(begun)) == blob(size)
        assert hub.count("GET", path) == 1
