"""What every test may use."""

import os
import shutil

import pytest

pytest_plugins = ["tests.hub.fixtures"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.client("skopeo")`: skipped by name where the command is missing, failed in CI."""
    missing = sorted(
        {name for mark in item.iter_markers("client") for name in mark.args if shutil.which(name) is None}
    )
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and in CI every client must be", pytrace=False)
    pytest.skip(reason)
