from pathlib import Path

import pytest

from tests.bench.cold import DIRECT, measure


@pytest.mark.client("docker-registry")
def test_every_server_gives_each_cold_blob_whole(tmp_path: Path) -> None:
    found = measure(tmp_path, 2, 2)
    assert {DIRECT, "distribution 2.8 proxy", "mirror 1w", "mirror 2w"} <= set(found.seconds)
    assert {len(seconds) for seconds in found.seconds.values()} == {2}
    assert found.speed_against(DIRECT, DIRECT) == 1
