"""One connection, many answers: nothing of one is ever taken for a part of the next (RFC 9112, 6 and 9.3)."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from tests.content import LayoutWriter, bare
from tests.server.conftest import NAME, Sample
from tests.serving import DEADLINE_SECONDS, Mirror, serving


async def exchange(mirror: Mirror, requests: list[tuple[str, str, str]], together: bool) -> list[tuple[int, bytes]]:
    """Status and body of each answer on one connection, the requests sent at once or one after the other."""
    address = urlsplit(mirror.url)
    heads = [
        f"{method} {target} HTTP/1.1\r\nHost: {mirror.host}\r\n{headers}\r\n".encode()
        for method, target, headers in requests
    ]
    found = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            if together:
                writer.write(b"".join(heads))
            for (method, _, _), head in zip(requests, heads, strict=True):
                if not together:
                    writer.write(head)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                status = int(lines[0].split()[1])
                lengths = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")]
                assert len(lengths) == (0 if status == 304 else 1), lines
                bodiless = method == "HEAD" or status == 304
                found.append((status, b"" if bodiless else await reader.readexactly(lengths[0])))
            writer.write_eof()
            assert await reader.read() == b"", "nothing is left over"
        finally:
            writer.close()
            await writer.wait_closed()
    return found


async def test_answers_of_every_kind_follow_each_other_on_one_connection(mirror: Mirror, sample: Sample) -> None:
    layer, content = f"/v2/{NAME}/blobs/{sample.layer.digest}", sample.content(sample.layer)
    manifest = sample.content(sample.image)
    requests = [
        ("HEAD", layer, ""),
        ("GET", layer, "Range: bytes=1-2\r\n"),
        ("GET", layer, "Range: bytes=999999999-\r\n"),
        ("GET", f"/v2/{NAME}/manifests/1.0", f'If-None-Match: "{sample.image.digest}"\r\n'),
        ("HEAD", f"/v2/{NAME}/manifests/1.0", f'If-None-Match: "{sample.image.digest}"\r\n'),
        ("HEAD", f"/v2/{NAME}/manifests/1.0", ""),
        ("GET", f"/v2/{NAME}/manifests/1.0", ""),
        ("HEAD", f"/v2/{NAME}/manifests/absent", ""),
        ("DELETE", f"/v2/{NAME}/manifests/1.0", ""),
        ("PUT", f"/v2/{NAME}/manifests/1.0", "Content-Length: 0\r\n"),
        ("HEAD", "/v2/", ""),
        ("GET", layer, ""),
        ("GET", "/healthz", ""),
    ]
    expected = [
        (200, b""),
        (206, content[1:3]),
        (416, None),
        (304, b""),
        (304, b""),
        (200, b""),
        (200, manifest),
        (404, b""),
        (405, None),
        (405, None),
        (200, b""),
        (200, content),
        (200, b"ok\n"),
    ]
    for together in (False, True):
        found = await exchange(mirror, requests, together)
        for (status, body), (wanted_status, wanted_body), asked in zip(found, expected, requests, strict=True):
            assert status == wanted_status, asked
            assert wanted_body is None or body == wanted_body, asked


async def test_targets_that_are_no_paths(mirror: Mirror) -> None:
    """RFC 9112, 3.2.3 and 3.2.4: authority form and asterisk form name no resource of this registry."""
    for head in ("OPTIONS * HTTP/1.1", "GET * HTTP/1.1", "GET v2/ HTTP/1.1", "GET ?x HTTP/1.1"):
        answer = await mirror.raw(f"{head}\r\nHost: {mirror.host}\r\n\r\n".encode())
        assert 400 <= answer.status < 500, head
        assert answer.code


async def test_a_blob_of_5_gib_is_ranged_without_being_read(tmp_path: Path) -> None:
    """The issue's "Large content": its Range too."""
    size = 5 * 1024**3
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    # A layout is taken at its word for blobs: hashing them all would take longer than serving them.
    huge = Descriptor("application/octet-stream", Digest("sha256:" + "5" * 64), size)
    image = writer.manifest({"schemaVersion": 2, "layers": [bare(huge)]})
    with writer.blob_path(huge).open("wb") as file:
        file.truncate(size)
        file.seek(size - 4)
        file.write(b"last")
    writer.tag(image, "1").save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        target = f"/v2/{NAME}/blobs/{huge.digest}"
        assert (await mirror.head(target)).headers["Content-Length"] == str(size)
        answer = await mirror.get(target, {"Range": "bytes=-6"})
        assert (answer.status, answer.body) == (206, b"\0\0last")
        assert answer.headers["Content-Range"] == f"bytes {size - 6}-{size - 1}/{size}"
        answer = await mirror.get(target, {"Range": f"bytes={4 * 1024**3}-{4 * 1024**3 + 9}"})
        assert (answer.status, answer.body) == (206, b"\0" * 10)
