"""Numbers of several workers, told by whichever is asked."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from mirror.server.metrics import Metrics

HUB = ("docker.io",)


def numbers(metrics: Metrics) -> dict[str, float]:
    """By name: each has one row here."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_counts_add_up_and_what_all_share_does_not(tmp_path: Path) -> None:
    one, two = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    for worker, remaining in ((one, 80), (two, 5)):
        worker.add("mirror_upstream_tokens", ("docker.io", "ok"), 2)
        worker.set("mirror_fills_running", 1)
        worker.set("mirror_cache_size_bytes", 1000)
        # What a worker heard an hour ago must not hide what another hears now.
        worker.set("mirror_upstream_ratelimit_remaining", remaining, HUB)
        worker.write()
    for worker in (one, two):
        found = numbers(worker)
        assert found["mirror_upstream_tokens_total"] == 4
        assert found["mirror_fills_running"] == 2
        assert found["mirror_cache_size_bytes"] == 1000
        assert found["mirror_upstream_ratelimit_remaining"] == 5


def test_a_worker_that_was_started_again_goes_on_counting(tmp_path: Path) -> None:
    one, two = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    one.add("mirror_upstream_received_bytes", HUB, 7)
    one.set("mirror_fills_running", 3)
    one.write()
    successor = Metrics(tmp_path, 0)
    successor.add("mirror_upstream_received_bytes", HUB, 1)
    successor.write()
    found = numbers(two)
    assert found["mirror_upstream_received_bytes_total"] == 8
    assert "mirror_fills_running" not in found, "what ran there runs no more"


def test_a_file_that_cannot_be_read_costs_its_worker_only(tmp_path: Path) -> None:
    one = Metrics(tmp_path, 0)
    one.add("mirror_upstream_received_bytes", HUB, 7)
    for name, content in (("1.json", b""), ("2.json", b'{"mirror_upstream_received_bytes": [["docker.io", 1]]}')):
        (tmp_path / name).write_bytes(content)
    assert numbers(one)["mirror_upstream_received_bytes_total"] == 8
