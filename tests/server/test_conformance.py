"""distribution-spec 1.1, workflow category "Pull": each test says which part of the text it checks."""

import asyncio

import pytest

from mirror.oci import media_types
from mirror.oci.digest import Digest
from tests.content import describe
from tests.server.conftest import NAME, Sample
from tests.serving import Mirror, Reply

ABSENT = Digest.of(b"not there")
LONG_ABSENT = Digest.of(b"not there", "sha512")
EVERY_ANSWER = {
    "Docker-Distribution-API-Version": "registry/2.0",
    "X-Content-Type-Options": "nosniff",
    "Vary": "OCI-REF-NAME",
}


def check_every_answer(answer: Reply) -> None:
    """What the design puts on every answer below /v2/."""
    assert {name: answer.headers.get(name) for name in EVERY_ANSWER} == EVERY_ANSWER
    assert "Content-Encoding" not in answer.headers
    if answer.status != 304:
        assert answer.headers["Content-Length"].isdigit()
    assert "Traceback" not in answer.body.decode(errors="replace")


async def check_head_is_get(mirror: Mirror, target: str, headers: dict[str, str] | None = None) -> Reply:
    """The GET's answer, whose HEAD has the same status and headers, and no body (RFC 9110, 9.3.2)."""
    got, headed = await mirror.get(target, headers or {}), await mirror.head(target, headers or {})
    assert headed.status == got.status
    assert headed.body == b""
    without_date = [{**answer.headers, "Date": None} for answer in (got, headed)]
    assert without_date[0] == without_date[1]
    if got.status not in (304,):
        assert int(got.headers["Content-Length"]) == len(got.body)
    check_every_answer(got)
    return got


@pytest.mark.parametrize("target", ["/v2/", "/v2", "/docker.io/v2/", "/docker.io/v2"])
async def test_the_api_answers_that_it_is_there(mirror: Mirror, target: str) -> None:
    """ "Determining Support": `/v2/` is 200; the design: a host's root as well."""
    answer = await check_head_is_get(mirror, target)
    assert answer.status == 200
    assert answer.json() == {}


@pytest.mark.parametrize("tag", ["1.0", "multi", "docker", "list", "artifact", "sha512", "1.1.0+oci"])
async def test_manifests_pull_byte_exact_by_tag_and_by_digest(mirror: Mirror, sample: Sample, tag: str) -> None:
    """ "Pulling manifests": 200, Content-Type of the manifest, Docker-Content-Digest; GET and HEAD."""
    expected = sample.tags[tag]
    for reference in (tag, expected.digest):
        answer = await check_head_is_get(mirror, f"/v2/{NAME}/manifests/{reference}")
        assert answer.status == 200
        assert answer.body == sample.content(expected)
        assert answer.headers["Content-Type"] == expected.media_type
        assert answer.headers["Docker-Content-Digest"] == expected.digest
        assert answer.headers["ETag"] == f'"{expected.digest}"'
        assert answer.headers["Cache-Status"] == "mirror; hit"
        assert ("immutable" in answer.headers.get("Cache-Control", "")) == (reference == expected.digest)


async def test_children_of_an_index_pull_by_digest(mirror: Mirror, sample: Sample) -> None:
    """ "Pulling manifests" by digest, for what only an index lists."""
    for child in sample.children:
        answer = await check_head_is_get(mirror, f"/v2/{NAME}/manifests/{child.digest}")
        assert (answer.status, answer.body) == (200, sample.content(child))


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", media_types.DOCKER_MANIFEST, "text/html;q=0.1", "nonsense", ""]
)
async def test_accept_does_not_hide_a_manifest(mirror: Mirror, sample: Sample, accept: str) -> None:
    """ "Pulling manifests": Accept lists what the client wants; the design: what exists is never hidden by it."""
    answer = await mirror.get(f"/v2/{NAME}/manifests/multi", {"Accept": accept})
    assert (answer.status, answer.headers["Content-Type"]) == (200, media_types.OCI_INDEX)


async def test_blobs_pull_byte_exact(mirror: Mirror, sample: Sample) -> None:
    """ "Pulling blobs": 200, the bytes, Docker-Content-Digest; HEAD with Content-Length."""
    config = describe(b"long", algorithm="sha512")
    for digest, content in [(sample.layer.digest, sample.content(sample.layer)), (config.digest, b"long")]:
        answer = await check_head_is_get(mirror, f"/v2/{NAME}/blobs/{digest}")
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["ETag"] == f'"{digest}"'
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Cache-Status"] == "mirror; hit"


async def test_a_manifest_is_a_blob_too_but_a_blob_is_no_manifest(mirror: Mirror, sample: Sample) -> None:
    """The design: `/blobs/<digest of a manifest>` serves its bytes, `/manifests/<digest of a blob>` is unknown."""
    answer = await check_head_is_get(mirror, f"/v2/{NAME}/blobs/{sample.image.digest}")
    assert (answer.status, answer.body) == (200, sample.content(sample.image))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    answer = await check_head_is_get(mirror, f"/v2/{NAME}/manifests/{sample.layer.digest}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{NAME}/manifests/absent", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/{LONG_ABSENT}", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        (f"{NAME}/blobs/{LONG_ABSENT}", 404, "BLOB_UNKNOWN"),
        ("no/such/name/manifests/1.0", 404, "NAME_UNKNOWN"),
        (f"no/such/name/manifests/{ABSENT}", 404, "NAME_UNKNOWN"),
        (f"no/such/name/blobs/{ABSENT}", 404, "NAME_UNKNOWN"),
        ("no/such/name/tags/list", 404, "NAME_UNKNOWN"),
        (f"no/such/name/referrers/{ABSENT}", 404, "NAME_UNKNOWN"),
        ("quay.io/team/app/manifests/1.0", 404, "NAME_UNKNOWN"),
        # Not in the grammar.
        ("Team/App/manifests/1.0", 404, "NAME_UNKNOWN"),
        ("team/app-/tags/list", 404, "NAME_UNKNOWN"),
        (f"{'a' * 256}/manifests/1.0", 404, "NAME_UNKNOWN"),
        (f"{NAME}/manifests/.hidden", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/-dash", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/{'t' * 300}", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/a%20b", 404, "MANIFEST_UNKNOWN"),
        (f"{NAME}/manifests/%C3%A4", 404, "MANIFEST_UNKNOWN"),
        # Digests that are none.
        (f"{NAME}/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        (f"{NAME}/manifests/sha256:{'A' * 64}", 400, "DIGEST_INVALID"),
        (f"{NAME}/manifests/md5:{'a' * 32}", 400, "DIGEST_INVALID"),
        (f"{NAME}/manifests/sha512:{'a' * 64}", 400, "DIGEST_INVALID"),
        (f"{NAME}/manifests/:", 400, "DIGEST_INVALID"),
        (f"{NAME}/blobs/latest", 400, "DIGEST_INVALID"),
        (f"{NAME}/blobs/sha256:{'a' * 63}", 400, "DIGEST_INVALID"),
        (f"{NAME}/blobs/sha256:{'a' * 63}g", 400, "DIGEST_INVALID"),
        (f"{NAME}/referrers/latest", 400, "DIGEST_INVALID"),
        (f"{NAME}/referrers/sha256:abc", 400, "DIGEST_INVALID"),
    ],
)
async def test_what_is_not_there_is_an_error_with_its_code(mirror: Mirror, path: str, status: int, code: str) -> None:
    """ "Error Codes" and the 404 of each endpoint: `{"errors":[{"code","message","detail"}]}`, HEAD as GET."""
    answer = await check_head_is_get(mirror, f"/v2/{path}")
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1/",
        "/v2/team",
        "/v2/team/app",
        "/v2/team/app/tags",
        "/v2/team/app/tags/other",
        "/v2/manifests/1.0",
        "/v2/tags/list",
        "/v2/team/app/blobs/uploads/1234",
        "/v2/_mirror/other",
        "/v3/team/app/manifests/1.0",
        "/robots.txt",
        "/healthz/x",
        "/docker.io",
        "/team/v2/app/manifests/1.0",
    ],
)
async def test_unknown_paths_are_not_found(mirror: Mirror, target: str) -> None:
    """The design: unknown paths 404; "Error Codes": errors are JSON of the known form."""
    answer = await check_head_is_get(mirror, target)
    assert answer.status == 404
    assert answer.code


WRITES = [
    ("POST", "blobs/uploads/"),
    ("POST", f"blobs/uploads/?digest={ABSENT}"),
    ("POST", f"blobs/uploads/?mount={ABSENT}&from=team/other"),
    ("PATCH", "blobs/uploads/1234"),
    ("PUT", f"blobs/uploads/1234?digest={ABSENT}"),
    ("DELETE", "blobs/uploads/1234"),
    ("PUT", "manifests/1.0"),
    ("PUT", f"manifests/{ABSENT}"),
    ("DELETE", "manifests/1.0"),
    ("DELETE", f"manifests/{ABSENT}"),
    ("DELETE", f"blobs/{ABSENT}"),
    ("POST", "tags/list"),
    ("PUT", "../../x"),
    ("DELETE", "%00"),
    *[(method, "manifests/1.0") for method in ("POST", "PATCH", "OPTIONS", "TRACE", "PROPFIND")],
]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_every_write_is_refused(mirror: Mirror, method: str, path: str) -> None:
    """Workflow categories "Push" and "Content Management" are not offered: the design's 405 UNSUPPORTED."""
    for target in (f"/v2/{NAME}/{path}", f"/docker.io/v2/{NAME}/{path}"):
        answer = await mirror.request(method, target, body=b"{}" if method in ("PUT", "POST", "PATCH") else b"")
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert answer.headers["Allow"] == "GET, HEAD"
        check_every_answer(answer)


async def test_a_push_of_a_large_body_is_refused_and_the_connection_can_be_used_again(mirror: Mirror) -> None:
    """As above; a client that sends its body all the same must not see its answer lost."""
    answer = await mirror.request("PUT", f"/v2/{NAME}/manifests/1.0", body=b"x" * 900_000)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert (await mirror.get("/v2/")).status == 200


async def test_an_announced_body_is_refused_before_it_is_sent(mirror: Mirror) -> None:
    """RFC 9110, 10.1.1: a final status may answer `Expect: 100-continue`."""
    head = f"PUT /v2/{NAME}/manifests/x HTTP/1.1\r\nHost: {mirror.host}\r\nExpect: 100-continue\r\n"
    answer = await mirror.raw(f"{head}Content-Length: 1000000\r\n\r\n".encode())
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_and_readiness(mirror: Mirror, path: str) -> None:
    """The design's `/healthz` and `/readyz`."""
    answer = await mirror.get(path)
    assert answer.status == 200
    headed = await mirror.head(path)
    assert (headed.status, headed.body) == (200, b"")
    assert headed.headers["Content-Length"] == answer.headers["Content-Length"]


ETAG_LISTS = [
    ('"{}"', 304),
    ('W/"{}"', 304),
    ('"other", "{}"', 304),
    ('"other",W/"{}" , "third"', 304),
    ("*", 304),
    ('"other"', 200),
    ("{}", 200),
    ('W/"other", "more"', 200),
    ('"prefix{}"', 200),
    ("", 200),
    (",,", 200),
    ('"', 200),
]


@pytest.mark.parametrize(("condition", "status"), ETAG_LISTS)
async def test_if_none_match(mirror: Mirror, sample: Sample, condition: str, status: int) -> None:
    """RFC 9110, 13.1.2: entity tags compare weakly; 304 has the headers of the 200 that matter (15.4.5)."""
    for path, digest in [
        ("manifests/1.0", sample.image.digest),
        (f"manifests/{sample.long.digest}", sample.long.digest),
        (f"blobs/{sample.layer.digest}", sample.layer.digest),
    ]:
        headers = {"If-None-Match": condition.format(digest)}
        answer = await check_head_is_get(mirror, f"/v2/{NAME}/{path}", headers)
        assert answer.status == status
        assert answer.headers["ETag"] == f'"{digest}"'
        assert answer.headers["Docker-Content-Digest"] == digest
        assert bool(answer.body) == (status == 200)


async def test_if_none_match_on_several_lines_is_one_list(mirror: Mirror, sample: Sample) -> None:
    """RFC 9110, 5.3: header lines of one name are one list."""
    lines = [("If-None-Match", '"other"'), ("If-None-Match", f'"{sample.image.digest}"')]
    assert (await mirror.get(f"/v2/{NAME}/manifests/1.0", lines)).status == 304


async def test_if_none_match_says_nothing_of_what_is_not_there(mirror: Mirror) -> None:
    """RFC 9110, 13.2.1: conditions apply to what would be a 2xx."""
    answer = await mirror.get(f"/v2/{NAME}/manifests/absent", {"If-None-Match": "*"})
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


async def test_an_answer_to_http_1_0_without_host_is_whole(mirror: Mirror, sample: Sample) -> None:
    """RFC 9112, 3.2: Host is needed since HTTP/1.1 only."""
    answer = await mirror.raw(f"GET /v2/{NAME}/manifests/1.0 HTTP/1.0\r\n\r\n".encode())
    assert (answer.status, answer.body) == (200, sample.content(sample.image))


async def test_a_target_in_absolute_form_is_understood(mirror: Mirror, sample: Sample) -> None:
    """RFC 9112, 3.2.2: a server must accept the absolute form."""
    answer = await mirror.raw_get(f"http://{mirror.host}/v2/{NAME}/manifests/1.0".encode())
    assert (answer.status, answer.body) == (200, sample.content(sample.image))


async def test_many_clients_at_once_get_the_same_bytes(mirror: Mirror, sample: Sample) -> None:
    """ "Pulling blobs", by many at once."""
    target = f"/v2/{NAME}/blobs/{sample.layer.digest}"
    answers = await asyncio.gather(*(mirror.get(target) for _ in range(20)))
    assert {answer.body for answer in answers} == {sample.content(sample.layer)}
