"""What is answered of what is kept, where asking ends in a way that nobody foresaw."""

import time
from pathlib import Path

import pytest

from mirror.oci.errors import ManifestUnknown
from mirror.oci.names import Host, Name, Repository
from mirror.sources.policy import Policy
from mirror.sources.staleness import Freshness, Kept, Question
from mirror.store.index import CacheIndex


async def test_what_is_kept_is_given_stale_whatever_asking_ends_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> str:
        raise OverflowError("nobody foresaw this")

    name = Name(Host("registry.test"), Repository("team/app"))
    question = Question(name, "1", 60, ask, ManifestUnknown())
    with CacheIndex(tmp_path / "index.db") as index:
        freshness = Freshness(Host("registry.test"), Policy(), index)
        found = await freshness.answer(question, Kept("kept", time.time() - 100))
        assert (found.value, round(found.origin.age_seconds or 0)) == ("kept", 100)
        with pytest.raises(OverflowError):
            await freshness.answer(question, None)
        await freshness.stop()
    assert "nobody foresaw this" in caplog.text
