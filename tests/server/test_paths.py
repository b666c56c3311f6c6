"""Targets of any bytes, sent as they are: each part of the path refuses what could lead elsewhere."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from tests.content import LayoutWriter
from tests.serving import Mirror, Reply, Run, kept_serving

SECRET = b"must never be served"
DIGEST = Digest.of(b"layer").encode()
Kept = tuple[Run[Any], Mirror]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("paths")
    for name in ("team/app", "docker.io/library/app"):
        writer = LayoutWriter(folder / "layouts" / name)
        writer.tag(writer.image(), "1").save()
    for outside in ("secret", "layouts/secret", "layouts/team/secret", "layouts/team/app/secret"):
        (folder / outside).write_bytes(SECRET)
    with kept_serving(folder / "mirror", layouts=[folder / "layouts"]) as found:
        yield found


def get(kept: Kept, target: bytes, *headers: bytes) -> Reply:
    run, mirror = kept
    answer: Reply = run(mirror.raw_get(target, *headers))
    assert SECRET not in answer.body
    assert b"Traceback" not in answer.body
    return answer


ODD = [
    b"..",
    b".",
    b"%2e%2e",
    b"%2E%2e",
    b".%2e",
    b"%2e",
    b"..%2f..",
    b"..%2Fsecret",
    b"a%2fb",
    b"%2f",
    b"..%5c..",
    b"a%5Cb",
    b"..\\..",
    b"%00",
    b"a%00b",
    b"secret%00",
    b"",
    b"%",
    b"%zz",
    b"%252e%252e",
    b"%c0%ae%c0%ae",
    b"%ff",
    b"\xff",
    b"\xc3\xa4",
    b"%0d%0aX:%20y",
    b"%0a",
    b"~root",
    b"a;b",
    b"a" * 256,
    b"A",
]
CODES = {"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "DIGEST_INVALID", "NAME_INVALID", "UNSUPPORTED"}
# Every part of every target, as `{}`; around it stands what exists.
TARGETS = [
    b"/{}/v2/team/app/manifests/1",
    b"/v2/{}/manifests/1",
    b"/v2/{}/app/manifests/1",
    b"/v2/team/{}/manifests/1",
    b"/v2/team/{}/app/manifests/1",
    b"/v2/team/app/{}/manifests/1",
    b"/v2/team/app/{}/1",
    b"/v2/team/app/manifests/{}",
    b"/v2/team/app/manifests/1/{}",
    b"/v2/team/app/blobs/{}",
    b"/v2/team/app/blobs/sha256:{}",
    b"/v2/team/app/blobs/{}/" + DIGEST,
    b"/v2/team/app/blobs/" + DIGEST + b"/{}",
    b"/v2/docker.io/{}/manifests/1",
    b"/docker.io/v2/{}/manifests/1",
    b"/docker.io/v2/library/{}/app/manifests/1",
    b"/v2/{}/tags/list",
    b"/v2/team/app/{}/list",
    b"/v2/team/app/tags/{}",
    b"/v2/team/app/tags/list/{}",
    b"/v2/team/app/referrers/{}",
    b"/v2/team/app/referrers/sha256:{}",
    b"/v2/_catalog/{}",
    b"/v2/{}/_catalog",
    b"/{}",
    b"/{}/healthz",
]


@pytest.mark.parametrize("target", TARGETS, ids=bytes.decode)
def test_nothing_leads_elsewhere_from_any_part_of_a_path(kept: Kept, target: bytes) -> None:
    for odd in ODD:
        asked = target.replace(b"{}", odd)
        answer = get(kept, asked)
        assert 400 <= answer.status < 500, asked
        if not asked.isascii() and answer.code == "UNSUPPORTED":
            continue  # no URL holds such bytes (RFC 3986): refused before it is read as one
        assert answer.code in CODES, asked
        if re.search(rb"\.\.|%2e%2e|%2f|%5c|\\|%00|//|/$", asked, re.IGNORECASE) and b":" not in asked:
            assert answer.status == 404, asked


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd], ids=repr)
def test_nothing_leads_elsewhere_from_queries_and_headers(kept: Kept, odd: bytes) -> None:
    for target in (b"/v2/team/app/manifests/1?ns=", b"/v2/team/app/manifests/1?oci-ref-name=", b"/v2/_catalog?ns="):
        for value in (odd, b"docker.io/" + odd, odd + b"/app"):
            assert get(kept, target + value).status in (200, 400, 404), value
    for parameter in (b"n", b"last", b"x", b"artifactType"):
        for path in (b"team/app/tags/list", b"_catalog", b"team/app/referrers/" + DIGEST):
            assert get(kept, b"/v2/" + path + b"?n=1&" + parameter + b"=" + odd).status in (200, 400), (
                path,
                parameter,
            )
    if b"%0" not in odd:
        for value in (odd, b"docker.io/" + odd, odd + b"/app"):
            answer = get(kept, b"/v2/team/app/manifests/1", b"OCI-REF-NAME: " + value)
            assert answer.status in (400, 404), value
            assert answer.code in {"NAME_INVALID", "NAME_UNKNOWN"}
    for name in (b"Range", b"If-None-Match", b"If-Range", b"Accept", b"User-Agent"):
        assert get(kept, b"/v2/team/app/blobs/" + DIGEST, name + b": " + odd).status == 200, name


def test_components_are_decoded_after_the_path_was_split(kept: Kept) -> None:
    for target in (
        b"/v2/team/%61pp/manifests/1",
        b"/v2/%74%65am/app/%6danifests/%31",
        b"/%64ocker.io/v2/app/manifests/1",
        b"/v2/docker%2Eio/app/manifests/1",
        b"/v2/team/app/blobs/" + DIGEST.replace(b":", b"%3A"),
    ):
        assert get(kept, target).status == 200, target


@pytest.mark.parametrize(
    "target",
    [
        b"//v2/team/app/manifests/1",
        b"/v2//team/app/manifests/1",
        b"/v2/team//app/manifests/1",
        b"/v2/team/app//manifests/1",
        b"/v2/team/app/manifests//1",
        b"/v2/team/app/manifests/1/",
        b"/v2/team/app/tags/list/",
        b"/v2//",
        b"/v2/team/app/manifests/",
        b"/v2/team/app/manifests/1#x/../",
        b"/../v2/team/app/manifests/1",
        b"/v2/../v2/team/app/manifests/1",
        b"/v2/team/x/../app/manifests/1",
        b"/v2/team/app/manifests/x/../1",
    ],
)
def test_slashes_and_dots_are_never_normalised(kept: Kept, target: bytes) -> None:
    answer = get(kept, target)
    assert (answer.status, bool(answer.code)) == (404, True)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2/" + b"a" * 100_000 + b"/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/" + b"a/" * 50_000 + b"manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/team/app/tags/list?last=" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nOCI-REF-NAME: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"X-Y: z\r\n" * 20_000 + b"\r\n",
        b"GET /v2/ a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"G\xc3\xa4T /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda head: repr(head[:40]),
)
def test_what_is_no_request_is_a_4xx_and_the_server_goes_on(kept: Kept, head: bytes) -> None:
    run, mirror = kept
    answer: Reply = run(mirror.raw(head))
    assert 400 <= answer.status < 500
    assert b"Traceback" not in answer.body
    assert get(kept, b"/v2/team/app/manifests/1").status == 200


_words = b"/ v2 team app manifests blobs tags list .. %2e %2f %00 ? & ns= n= last= docker.io 1 : sha256: % _catalog +"
_pieces = st.sampled_from([*_words.split(), DIGEST, b"referrers"]) | st.binary(max_size=3)


@given(st.lists(_pieces, max_size=12).map(b"".join))
@settings(deadline=None, max_examples=300)
def test_no_target_is_a_server_error(kept: Kept, target: bytes) -> None:
    target = re.sub(rb"[\x00-\x20\x7f]", b"", target)
    assert get(kept, b"/" + target).status < 500
    assert get(kept, b"/v2/team/app/" + target).status < 500
