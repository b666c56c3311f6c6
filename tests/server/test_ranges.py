"""Ranges of blobs (distribution-spec 1.1, "Pulling blobs": Range as RFC 7233, now RFC 9110, section 14)."""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from tests.content import LayoutWriter
from tests.server.conftest import NAME, Sample
from tests.serving import Mirror, Reply, kept_serving, serving

SIZE = 307_200


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=0-", 0, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes=-{SIZE + 7}", 0, SIZE),
        (f"bytes={SIZE - 1}-{SIZE * 2}", SIZE - 1, SIZE),
        ("BYTES=5-9", 5, 10),
        ("bytes=5-" + "9" * 40, 5, SIZE),
        ("bytes=" + "0" * 40 + "5-9", 5, 10),
        ("bytes=-" + "9" * 5000, 0, SIZE),
        ("bytes= 5-9 ", 5, 10),
    ],
)
async def test_one_range_is_206(mirror: Mirror, sample: Sample, asked: str, start: int, stop: int) -> None:
    """RFC 9110, 15.3.7: 206 with Content-Range, and the representation's own ETag and digest."""
    answer = await mirror.get(f"/v2/{NAME}/blobs/{sample.layer.digest}", {"Range": asked})
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.body == sample.content(sample.layer)[start:stop]
    assert answer.headers["ETag"] == f'"{sample.layer.digest}"'
    assert answer.headers["Docker-Content-Digest"] == sample.layer.digest
    assert answer.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "asked",
    [
        f"bytes={SIZE}-",
        f"bytes={SIZE}-{SIZE + 5}",
        "bytes=500-0",
        "bytes=-0",
        "bytes=" + "9" * 40 + "-",
        "bytes=" + "9" * 5000 + "-",
    ],
)
async def test_a_range_of_nothing_is_416(mirror: Mirror, sample: Sample, asked: str) -> None:
    """RFC 9110, 15.5.17, with `Content-Range: bytes */<size>`; the design counts `bytes=500-0` among these."""
    answer = await mirror.get(f"/v2/{NAME}/blobs/{sample.layer.digest}", {"Range": asked})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Docker-Distribution-API-Version"] == "registry/2.0"
    assert answer.code == "UNSUPPORTED"
    assert answer.json()["errors"][0]["detail"]["size"] == SIZE
    assert "Cache-Control" not in answer.headers
    assert len(answer.body) == int(answer.headers["Content-Length"])
    assert (await mirror.get("/v2/")).status == 200


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=0-1, -5",
        "items=0-5",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=0-5x",
        "bytes=+1-5",
        "bytes=0x1-5",
        "bytes=1.5-7",
        "bytes=--5",
        "bytes:0-5",
        "bytes=0 - 5",
        "bytes=٠-٥",
        "",
    ],
)
async def test_several_ranges_other_units_and_nonsense_are_answered_with_all(
    mirror: Mirror, sample: Sample, asked: str
) -> None:
    """RFC 9110, 14.2: a server may ignore Range, and must ignore units it does not know and what is malformed."""
    answer = await mirror.get(f"/v2/{NAME}/blobs/{sample.layer.digest}", {"Range": asked})
    assert (answer.status, answer.body) == (200, sample.content(sample.layer))
    assert "Content-Range" not in answer.headers


async def test_range_given_twice_is_answered_with_all(mirror: Mirror, sample: Sample) -> None:
    """RFC 9110, 5.3: Range is no list header, so two of them are malformed."""
    lines = [("Range", "bytes=0-1"), ("Range", "bytes=4-5")]
    answer = await mirror.get(f"/v2/{NAME}/blobs/{sample.layer.digest}", lines)
    assert (answer.status, answer.body) == (200, sample.content(sample.layer))


@pytest.mark.parametrize(
    ("condition", "status"),
    [('"{}"', 206), ('W/"{}"', 200), ('"other"', 200), ("{}", 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)],
)
async def test_if_range_compares_strongly(mirror: Mirror, sample: Sample, condition: str, status: int) -> None:
    """RFC 9110, 13.1.5: where the validator is not the same, Range is ignored."""
    headers = {"Range": "bytes=3-4", "If-Range": condition.format(sample.layer.digest)}
    answer = await mirror.get(f"/v2/{NAME}/blobs/{sample.layer.digest}", headers)
    whole = sample.content(sample.layer)
    assert (answer.status, answer.body) == (status, whole[3:5] if status == 206 else whole)


async def test_if_none_match_comes_before_range(mirror: Mirror, sample: Sample) -> None:
    """RFC 9110, 13.2.2: Range is looked at last."""
    headers = {"Range": "bytes=3-4", "If-None-Match": f'"{sample.layer.digest}"'}
    assert (await mirror.get(f"/v2/{NAME}/blobs/{sample.layer.digest}", headers)).status == 304


async def test_range_means_nothing_to_head_and_to_manifests(mirror: Mirror, sample: Sample) -> None:
    """RFC 9110, 14.2: Range is defined for GET; a manifest does not say that it accepts ranges."""
    headed = await mirror.head(f"/v2/{NAME}/blobs/{sample.layer.digest}", {"Range": "bytes=3-4"})
    assert (headed.status, headed.headers["Content-Length"]) == (200, str(SIZE))
    answer = await mirror.get(f"/v2/{NAME}/manifests/1.0", {"Range": "bytes=3-4"})
    assert (answer.status, answer.body) == (200, sample.content(sample.image))
    assert "Accept-Ranges" not in answer.headers


Asked = Callable[[bytes, str], Reply]
CONTENTS = [bytes(range(200)), b"1", b""]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """One mirror for all examples, in a loop of its own."""
    folder = tmp_path_factory.mktemp("ranges")
    writer = LayoutWriter(folder / "layouts" / NAME)
    writer.tag(writer.image(CONTENTS), "1").save()
    with kept_serving(folder / "mirror", layouts=[folder / "layouts"]) as (run, mirror):
        yield lambda content, value: run(mirror.get(f"/v2/{NAME}/blobs/{Digest.of(content)}", {"Range": value}))


# RFC 9110, 14.1.1, for a single range; OWS around a list's element (5.6.1).
_SINGLE = re.compile(r"bytes=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.ASCII | re.IGNORECASE)


def model(value: str, content: bytes) -> tuple[int, bytes]:
    """Status and body, byte by byte."""
    match = _SINGLE.fullmatch(value.strip(" \t"))
    if match is None:
        return 200, content
    first, last, suffix = (Decimal(digits) if digits else None for digits in match.groups())
    if suffix is not None:
        chosen = [at for at in range(len(content)) if at >= len(content) - suffix]
    else:
        chosen = [at for at in range(len(content)) if at >= (first or 0) and (last is None or at <= last)]
    return (206, bytes(content[at] for at in chosen)) if chosen else (416, b"")


_number = st.integers(0, 260).map(str) | st.integers(0, 1 << 80).map(str)
_ranges = st.tuples(_number | st.just(""), st.sampled_from(["-", "-", "-", " - ", "--", ""]), _number | st.just(""))
_wellformed = st.lists(_ranges.map("".join), min_size=1, max_size=2).map(lambda drawn: "bytes=" + ",".join(drawn))
_near = st.text("bytes=0123456789-, \t", max_size=14)
# No header can carry line breaks or NUL.
_junk = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@given(st.sampled_from(CONTENTS), _wellformed | _near | _junk | _junk.map(lambda text: f"bytes={text}"))
@example(CONTENTS[0], "bytes=" + "1" * 4400 + "-")
@settings(deadline=None, max_examples=300)
def test_ranges_are_slices_and_no_range_is_a_server_error(asked: Asked, content: bytes, value: str) -> None:
    answer = asked(content, value)
    assert (answer.status, answer.body if answer.status != 416 else b"") == model(value, content)
    if answer.status == 416:
        assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


async def test_a_blob_cut_short_meanwhile_is_never_completed(tmp_path: Path) -> None:
    """The design: a file shorter than its descriptor says is not served."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    writer.tag(writer.image([b"0123456789"]), "1").save()
    layer = writer.blob(b"0123456789")
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        writer.blob_path(layer).write_bytes(b"01234")
        for answer in (
            await mirror.get(f"/v2/{NAME}/blobs/{layer.digest}"),
            await mirror.get(f"/v2/{NAME}/blobs/{layer.digest}", {"Range": "bytes=0-1"}),
        ):
            assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
