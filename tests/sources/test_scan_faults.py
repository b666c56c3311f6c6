"""What lies in a folder may be broken in every way: it costs itself, one line says why, all else is served."""

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.oci.descriptor import Descriptor
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from mirror.sources.scan import Scan, Scanner
from mirror.sources.scan_settings import Root
from mirror.sources.walk import MAX_DEPTH, MAX_PATHS_TO_A_FOLDER, Problem
from tests.content import LayoutWriter, encode, write_by_rename
from tests.running import Reply, eventually, get, running_mirror

INDEX = b'{"schemaVersion":2,"manifests":[]}'


def good(folder: Path, name: str = "good", layer: bytes = b"layer") -> tuple[LayoutWriter, Descriptor]:
    writer = LayoutWriter(folder / "layouts" / name)
    image = writer.image([layer])
    writer.tag(image, "1.0").save()
    return writer, image


def scan(folder: Path) -> Scan:
    return Scanner([Root(str(folder / "layouts"))]).scan()


def the_problem(folder: Path, part: str) -> Problem:
    """The only problem of a scan that still finds what is good; it names a path with `part`."""
    found = scan(folder)
    assert "good" in {str(place.name) for place in found.places}
    (problem,) = found.problems
    assert part in problem.path
    return problem


BROKEN_INDEXES = {
    "empty": b"",
    "half": INDEX[:20],
    "not JSON": b"\x00\xff",
    "a list": b"[]",
    "null": b"null",
    "manifests is an object": b'{"manifests":{}}',
    "no manifests": b"{}",
    "too deep": b"[" * 100_000,
    "a number that is too long": b'{"manifests":' + b"9" * 10_000 + b"}",
    "wrong encoding": '{"manifests":[]}'.encode("utf-32")[:-2],
}


@pytest.mark.parametrize("content", BROKEN_INDEXES.values(), ids=BROKEN_INDEXES.keys())
def test_a_broken_index_costs_itself(tmp_path: Path, content: bytes) -> None:
    good(tmp_path)
    writer, _ = good(tmp_path, "bad")
    (writer.path / "index.json").write_bytes(content)
    assert "index.json" in the_problem(tmp_path, "/bad").reason


@pytest.mark.parametrize("content", BROKEN_INDEXES.values(), ids=BROKEN_INDEXES.keys())
def test_a_broken_index_leaves_the_last_good_one_until_it_is_whole_again(tmp_path: Path, content: bytes) -> None:
    writer, _ = good(tmp_path)
    scanner = Scanner([Root(str(tmp_path / "layouts"))])
    before = scanner.scan()
    (writer.path / "index.json").write_bytes(content)
    broken = scanner.scan()
    assert broken.places == before.places
    assert "still served" in broken.problems[0].reason
    assert not scanner.scan().changed, "said once, not at every scan"
    writer.tag(writer.image([b"new"]), "2.0").save()
    whole = scanner.scan()
    assert not whole.problems
    assert len(whole.places[0].entries) == 2


def test_one_bad_entry_costs_itself_and_not_its_index(tmp_path: Path) -> None:
    writer, image = good(tmp_path)
    document = json.loads((writer.path / "index.json").read_bytes())
    bad = [None, 5, {}, {"digest": "sha256:00", "size": 1}, {**image.to_json(), "size": -1}, {"digest": 3}]
    document["manifests"] = [*bad, *document["manifests"]]
    write_by_rename(writer.path / "index.json", encode(document))
    found = scan(tmp_path)
    assert [len(place.entries) for place in found.places] == [1]
    assert all("index.json" in problem.reason for problem in found.problems)


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path has at most 107 bytes
    os.close(here)


def put_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: reading it never ends
    except PermissionError:
        pytest.skip("only root makes devices")


def put_folder(path: Path) -> None:
    path.mkdir()


def put_link_out(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def put_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def put_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


NO_FILES: list[Callable[[Path], None]] = [
    *(put_fifo, put_socket, put_device, put_folder, put_link_out, put_link_to_itself, put_dangling_link)
]


@pytest.mark.parametrize("put", NO_FILES)
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_what_is_no_file_is_a_logged_skip_and_no_hang(tmp_path: Path, name: str, put: Callable[[Path], None]) -> None:
    good(tmp_path)
    writer, _ = good(tmp_path, "bad")
    (writer.path / name).unlink()
    put(writer.path / name)
    the_problem(tmp_path, "/bad")


@pytest.mark.parametrize("put", NO_FILES)
async def test_a_blob_that_is_no_file_is_unknown_with_one_line_naming_its_path(
    tmp_path: Path, put: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    writer, _ = good(tmp_path)
    (layer,) = json.loads(writer.content(writer.entries[0]))["layers"]
    path = writer.path / "blobs" / layer["digest"].replace(":", "/")
    path.unlink()
    put(path)
    async with running_mirror(tmp_path) as mirror:
        host = mirror.listener.url.removeprefix("http://")
        for _ in range(2):
            for method in ("GET", "HEAD"):
                reply = await asyncio.to_thread(get, host, f"/v2/good/blobs/{layer['digest']}", method=method)
                assert reply.status == 404
        assert (await asyncio.to_thread(get, host, "/v2/good/manifests/1.0")).status == 200
    lines = [record for record in caplog.records if record.getMessage() == "blob_not_served"]
    # Nothing there is not worth a line: sparse layouts are normal.
    assert len(lines) == (0 if put is put_dangling_link else 1)
    assert all(str(path) == record.__dict__["fields"]["path"] for record in lines)


async def ask(folder: Path, *targets: str) -> list[Reply]:
    async with running_mirror(folder) as mirror:
        host = mirror.listener.url.removeprefix("http://")
        return [await asyncio.to_thread(get, host, target) for target in targets]


async def test_a_blob_of_another_size_is_unknown_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer, _ = good(tmp_path)
    (layer,) = json.loads(writer.content(writer.entries[0]))["layers"]
    path = writer.path / "blobs" / layer["digest"].replace(":", "/")
    path.write_bytes(b"laye")
    target = f"/v2/good/blobs/{layer['digest']}"
    first, again = await ask(tmp_path, target, target)
    assert (first.status, again.status) == (404, 404)
    assert json.loads(first.body)["errors"][0]["code"] == "BLOB_UNKNOWN"
    (line,) = [record for record in caplog.records if record.getMessage() == "blob_not_served"]
    assert line.__dict__["fields"]["path"] == str(path)
    assert "4 bytes, its descriptor says 5" in line.__dict__["fields"]["reason"]


async def test_a_manifest_with_wrong_bytes_is_never_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer, image = good(tmp_path)
    content = writer.content(image)
    writer.blob_path(image).write_bytes(content.replace(b'"schemaVersion":2', b'"schemaVersion":3'))
    by_tag, by_digest, _ = await ask(
        tmp_path, "/v2/good/manifests/1.0", f"/v2/good/manifests/{image.digest}", "/v2/good/tags/list"
    )
    assert (by_tag.status, by_digest.status) == (404, 404)
    assert [r.__dict__["fields"]["path"] for r in caplog.records if r.getMessage() == "blob_not_served"] == [
        str(writer.blob_path(image))
    ]


@pytest.mark.parametrize(("size", "status"), [(MAX_MANIFEST_BYTES, 200), (MAX_MANIFEST_BYTES + 1, 404)])
async def test_a_manifest_has_at_most_4_mib(
    tmp_path: Path, size: int, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    writer, _ = good(tmp_path)
    document = {"schemaVersion": 2, "manifests": [], "annotations": {"padding": ""}}
    document["annotations"] = {"padding": "x" * (size - len(encode(document)))}
    large = writer.manifest(document, "application/vnd.oci.image.index.v1+json")
    assert large.size == size
    writer.tag(large, "large").save()
    reply, other = await ask(tmp_path, "/v2/good/manifests/large", "/v2/good/manifests/1.0")
    assert (reply.status, other.status) == (status, 200)
    if status == 200:
        assert reply.body == writer.content(large)
    else:
        assert str(writer.blob_path(large)) in [r.__dict__.get("fields", {}).get("path") for r in caplog.records]


@pytest.mark.parametrize(
    "content", [b'{"imageLayoutVersion":"2.0.0"}', b'{"imageLayoutVersion":1}', b"{}", b"", b"[]", b"x" * 5000]
)
def test_another_layout_version_is_skipped(tmp_path: Path, content: bytes) -> None:
    good(tmp_path)
    writer, _ = good(tmp_path, "bad")
    (writer.path / "oci-layout").write_bytes(content)
    assert "oci-layout" in the_problem(tmp_path, "/bad").reason


def test_a_layout_without_oci_layout_is_skipped(tmp_path: Path) -> None:
    good(tmp_path)
    writer, _ = good(tmp_path, "bad")
    (writer.path / "oci-layout").unlink()
    assert "oci-layout" in the_problem(tmp_path, "/bad").reason


NOT_UTF_8 = b"\xff".decode(errors="surrogateescape")


@pytest.mark.parametrize("name", ["Upper", "-dash", "white space", "line\nbreak", "a__..b", NOT_UTF_8])
def test_a_folder_that_makes_no_repository_name_is_said(tmp_path: Path, name: str) -> None:
    good(tmp_path)
    good(tmp_path, f"team/{name}")
    assert "is no repository name" in the_problem(tmp_path, name).reason


def test_links_inside_the_root_are_followed_and_their_cycles_cut(tmp_path: Path) -> None:
    writer, _ = good(tmp_path, "team/app")
    root = tmp_path / "layouts"
    (root / "alias").symlink_to("team")
    (writer.path / "up").symlink_to("../..")
    (root / "self").symlink_to("self")
    (root / "to-root").symlink_to(root)
    found = scan(tmp_path)
    assert {str(place.name) for place in found.places} == {"team/app", "alias/app"}
    assert not found.problems


def test_folders_that_all_link_to_each_other_end_in_a_word_and_not_in_a_hang(tmp_path: Path) -> None:
    good(tmp_path)
    names = [f"d{number}" for number in range(12)]
    for name in names:
        folder = tmp_path / "layouts" / name
        folder.mkdir()
        for other in names:
            (folder / f"to-{other}").symlink_to(f"../{other}")
    found = scan(tmp_path)
    assert [str(place.name) for place in found.places] == ["good"]
    assert all(f"more than {MAX_PATHS_TO_A_FOLDER} paths" in problem.reason for problem in found.problems)
    assert found.problems


@pytest.mark.parametrize("what", ["folder", "index.json", "blob"])
async def test_links_out_of_the_root_are_not_followed(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    good(tmp_path)
    outside = tmp_path / "outside"
    writer = LayoutWriter(outside)
    image = writer.image([b"secret"])
    writer.tag(image, "1.0").save()
    link = tmp_path / "layouts" / "link"
    if what == "folder":
        link.symlink_to(outside)
    else:
        inside = LayoutWriter(link)
        inside.tag(inside.image([b"secret"]), "1.0").save()
        path = link / "index.json" if what == "index.json" else inside.blob_path(image)
        path.unlink()
        path.symlink_to(outside / path.relative_to(link))
    async with running_mirror(tmp_path) as mirror:
        host = mirror.listener.url.removeprefix("http://")
        assert (await asyncio.to_thread(get, host, "/v2/link/manifests/1.0")).status == 404
        assert (await asyncio.to_thread(get, host, "/v2/good/manifests/1.0")).status == 200
        said = [f"{record.__dict__.get('fields')}" for record in caplog.records]

        def is_said() -> bool:
            # What is found while scanning is said by the process that scans.
            said.extend(capfd.readouterr().err.splitlines())
            return any("leads out of" in line and str(link) in line for line in said)

        await eventually(is_said, "one line names the link")


def test_folders_beyond_the_depth_are_said_and_those_before_are_served(tmp_path: Path) -> None:
    good(tmp_path)
    good(tmp_path, "/".join(["d"] * 100))
    good(tmp_path, "/".join(["e"] * (MAX_DEPTH + 10)))
    found = scan(tmp_path)
    assert {str(place.name) for place in found.places} == {"good", "/".join(["d"] * 100)}
    (problem,) = found.problems
    assert f"more than {MAX_DEPTH} folders" in problem.reason


UNPRIVILEGED = """
import os, sys
from mirror.sources.scan import Scanner
from mirror.sources.scan_settings import Root
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for problem in (found := Scanner([Root(sys.argv[1])]).scan()).problems:
    print("problem", problem)
for place in found.places:
    print("place", place.name)
"""


def test_what_may_not_be_read_costs_itself(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    good(tmp_path)
    folder, _ = good(tmp_path, "no-folder")
    index, _ = good(tmp_path, "no-index")
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == 0 and path != Path("/") and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    folder.path.chmod(0)
    (index.path / "index.json").chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(tmp_path / "layouts")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert lines[0] == "place good"
    assert [line.split(": ")[0] for line in lines[1:]] == [f"problem {folder.path}", f"problem {index.path}"]
    assert all("ermission denied" in line for line in lines[1:])


async def test_a_mirror_without_any_folder_answers_and_finds_it_when_it_comes(tmp_path: Path) -> None:
    async with running_mirror(tmp_path) as mirror:
        host = mirror.listener.url.removeprefix("http://")
        assert (await asyncio.to_thread(get, host, "/readyz")).status == 200
        await asyncio.to_thread(good, tmp_path)
        await eventually(lambda: get(host, "/v2/good/manifests/1.0").status == 200, "the new folder is served")
