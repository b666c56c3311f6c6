"""What an operator reads in the log of an upstream's troubles: once, with the reason, and with what to do."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub import Basic, Bearer, Hub, Status, TokenService
from tests.hub.fixtures import Hubs, Start
from tests.pull_through.asking import APP, HOST, path, pull, pulling, upstream


def told(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    """The fields of every line of this event."""
    return [vars(record).get("fields", {}) for record in caplog.records if record.getMessage() == name]


async def test_an_upstream_that_is_left_alone_is_told_once_and_so_is_its_return(
    tmp_path: Path, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    image = hub.image(APP, "1")
    where = {"upstream": HOST, "endpoint": hub.url}
    async with pulling(tmp_path, {HOST: upstream(hub, tag_ttl="0s")}) as mirror:
        await pull(mirror, image, "1")
        hub.fault(Status(500))
        for _ in range(20):
            assert (await mirror.get(path("manifests", "1"))).status == 200
        assert told(caplog, "upstream_left_alone") == [{**where, "reason": "status 500", "seconds": 1.0}]
        hub.heal()
        async with asyncio.timeout(10):
            while "Age" in (await mirror.get(path("manifests", "1"))).headers:
                pass
        assert told(caplog, "upstream_asked_again") == [where]
    assert len(told(caplog, "upstream_left_alone")) == 1


async def test_the_line_that_a_refused_realm_asks_for_is_in_the_log_and_does_it(
    tmp_path: Path, hubs: Hubs, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start(TokenService(address="127.0.0.2"))
    hub = await hubs(auth=Bearer(service.issuer, service.realm))
    image = hub.image(APP, "1")
    async with pulling(tmp_path, {HOST: upstream(hub)}) as mirror:
        for _ in range(5):
            answer = await mirror.get(path("manifests", "1"))
            assert (answer.status, answer.code) == (403, "DENIED")
    assert service.requests == []
    (line,) = told(caplog, "realm_refused")
    found = re.search("`(realms: .*)`", line["reason"])
    assert line["upstream"] == HOST
    assert found
    async with pulling(tmp_path, {HOST: upstream(hub, **yaml.safe_load(found[1]))}) as mirror:
        await pull(mirror, image, "1")


async def test_credentials_that_cannot_be_read_are_named_in_the_log_only(
    tmp_path: Path, hubs: Hubs, caplog: pytest.LogCaptureFixture
) -> None:
    hub = await hubs(auth=Basic("someone", "secret-swordfish"))
    image = hub.image(APP, "1")
    file = tmp_path / "password"
    file.write_text("secret-swordfish")
    keys = {"username": "someone", "password_file": str(file), "insecure": True, "allow_anonymous": True}
    async with pulling(tmp_path, {HOST: upstream(hub, **keys)}) as mirror:
        file.unlink()
        for _ in range(5):
            answer = await mirror.get(path("manifests", "1"))
            assert (answer.status, answer.code) == (403, "DENIED")
            assert str(tmp_path) not in answer.body.decode()
        (line,) = told(caplog, "credentials_unreadable")
        assert line == {"upstream": HOST, "reason": f"{file} cannot be read: No such file or directory"}
        file.write_text("secret-swordfish")
        await pull(mirror, image, "1")
