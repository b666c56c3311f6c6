"""Several processes of one mirror before an upstream: what one is told, all go by; what one knows, nobody is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.through import mirroring, upstream
from tests.hub import Basic, Bearer, Hub, Status, TokenIssuer
from tests.hub.auth import basic_value
from tests.hub.beside import Beside
from tests.running import Reply, get, wait_until
from tests.server_process import MirrorProcess

NAME = "/v2/library/hello"
# So many connections of their own that each of two workers has some (SO_REUSEPORT spreads them at random).
MANY = 40


@pytest.fixture
def beside() -> Iterator[Beside]:
    with Beside() as running:
        yield running


def each_tag(mirror: MirrorProcess, prefix: str) -> list[Reply]:
    """As many tags that nobody has asked for."""
    return [get(mirror.host, f"{NAME}/manifests/{prefix}{number}") for number in range(MANY)]


def test_what_an_upstream_asks_of_one_worker_all_keep_until_the_next_start(beside: Beside, tmp_path: Path) -> None:
    hub = beside.open(Hub())
    image = hub.image("library/hello", "latest")
    with mirroring(tmp_path, {"docker.io": upstream(hub.url, retries=0)}, workers=2) as mirror:
        assert get(mirror.host, f"{NAME}/manifests/latest").body == image.content
        rule = hub.fault(Status(429, {"Retry-After": "600"}), times=1)
        asked = len(hub.requests)
        for reply in each_tag(mirror, "absent"):
            assert reply.status == 503
            assert 500 < int(reply.headers["retry-after"]) <= 600
        warm = [get(mirror.host, f"{NAME}/manifests/latest") for _ in range(MANY)]
        assert {reply.body for reply in warm} == {image.content}
        assert (rule.hits, len(hub.requests)) == (1, asked + 1)
        (left_alone,) = mirror.events("upstream_left_alone")
        assert left_alone["reason"] == "too many requests (429)"
    with mirroring(tmp_path, {"docker.io": upstream(hub.url, retries=0)}, workers=2) as mirror:
        assert {reply.status for reply in each_tag(mirror, "absent")} == {404}


def test_a_failing_upstream_is_tried_by_one_request_at_a_time_whichever_worker_has_it(
    beside: Beside, tmp_path: Path
) -> None:
    hub = beside.open(Hub())
    with mirroring(tmp_path, {"docker.io": upstream(hub.url, retries=0)}, workers=2) as mirror:
        hub.fault(Status(500))
        statuses = [reply.status for reply in each_tag(mirror, "absent")]
        assert set(statuses) == {502, 503}
        # Five failures in a row, and now and then a request that finds out whether it is over.
        assert statuses.count(502) == len(hub.requests) < MANY // 2
        hub.heal()
        wait_until(lambda: {reply.status for reply in each_tag(mirror, "absent")} == {404}, "it is asked again")


def test_no_secret_is_in_arguments_logs_answers_or_files(beside: Beside, tmp_path: Path) -> None:
    user = Basic("someone", "secret-swordfish")
    hub = beside.open(Hub(auth=Bearer(TokenIssuer(user))))
    image = hub.image("library/hello", "latest")
    keys = {"username": user.username, "password": user.password, "insecure": True, "allow_anonymous": True}
    told: list[str] = []
    with mirroring(tmp_path, {"docker.io": upstream(hub.url, **keys)}, workers=2) as mirror:
        targets = (f"{NAME}/manifests/latest", f"{NAME}/blobs/{image.layers[0]}", f"{NAME}/tags/list", "/metrics")
        for fault in (None, Status(401), Status(403), Status(500)):
            if fault is not None:
                hub.fault(fault)
            for target in (*targets, f"{NAME}/manifests/absent"):
                reply = get(mirror.host, target)
                told += [str(reply.headers), reply.body.decode("latin-1")]
            hub.heal()
        told += [Path(f"/proc/{pid}/cmdline").read_text() for pid in mirror.pids()]
    told.append(mirror.log.read_text())
    told += [file.read_text("latin-1") for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert hub.count(kind="token") > 0
    for secret in (user.password, "secret-token-", basic_value(user.username, user.password).split()[1]):
        assert not [text for text in told if secret in text]
