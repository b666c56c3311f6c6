"""Archives that somebody's disk, copy or tool spoiled: never a wrong answer, never an error of the program."""

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from tests.serving import Mirror, serving
from tests.sources import archives
from tests.sources.archives import layer, packed, tar_of
from tests.sources.local_folder import LocalFolder, root

BASE, TOP = layer("base"), layer("top")


def whole() -> dict[str, bytes]:
    descriptor, blobs = archives.image([BASE, TOP])
    compressed, more = archives.image([BASE], compressed=True, architecture="arm64")
    layout = archives.layout(
        [
            archives.named(descriptor, **{archives.REF_NAME: "1"}),
            archives.named(compressed, **{archives.REF_NAME: "2"}),
        ],
        blobs | more,
    )
    item = {"Config": "c", "RepoTags": ["a/b:1"], "Layers": [f"blobs/sha256/{Digest.of(TOP).hex}"]}
    both = layout | {"c": archives.config([TOP]), "manifest.json": archives.as_json([item])}
    return {
        "old.tar": tar_of(archives.old_docker({"a/b:1": [BASE, TOP], "localhost/c:1": [BASE]})),
        "podman.tar": tar_of(archives.podman(["a/b:1"], [BASE, TOP])),
        "crane.tar": tar_of(archives.crane(["a/b:2"], [BASE])),
        "layout.tar": tar_of(layout),
        "both.tar": tar_of(both),
        "packed.tar.gz": packed(tar_of(archives.podman(["a/b:3"], [BASE]))),
    }


WHOLE = whole()
GENERATED_FROM = ("old.tar", "podman.tar", "crane.tar", "packed.tar.gz")
MARKS = (b"", b'[{"Config"', b'"diff_ids"', b"schemaVersion", b'"manifests"', b"ustar")

# Where something is overwritten: that far behind one of the marks.
Change = tuple[int, int, bytes]
changes = st.lists(
    st.tuples(st.integers(0, len(MARKS) - 1), st.integers(0, 10**6), st.binary(min_size=1, max_size=6))
)


def spoiled(name: str, how: list[Change], cut: int | None) -> bytes:
    content = bytearray(WHOLE[name])
    for mark, number, new in how[:6]:
        start = content.find(MARKS[mark])
        start, span = (0, len(content)) if start <= 0 else (start, 300)
        at = (start + number % span) % len(content)
        content[at : at + len(new)] = new
    return bytes(content[:cut])


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), how=changes, cut=st.none() | st.integers(0, 60_000))
def test_what_is_served_of_a_spoiled_archive_is_right(
    tmp_path_factory: object, name: str, how: list[Change], cut: int | None
) -> None:
    folder = Path(tmp_path_factory.mktemp("spoiled"))  # type: ignore[attr-defined]
    content = spoiled(name, how, cut)
    with LocalFolder(folder / "cache", root(folder / "files")) as local:
        (folder / "files" / name).write_bytes(content)
        local.look()
        for canonical in local.names():
            repository = next(r for n, r in local.view.snapshot.repositories.items() if str(n) == canonical)
            for reference in [*repository.sorted_tags, *repository.roots]:
                found = local.meaning(canonical, reference)  # checks its digest
                for child in ManifestLinks.parse(found.manifest.content).children() if found else ():
                    body = local.blob(canonical, child.digest)
                    # A layout's blobs are named by their digest: the client sees what is wrong. What was generated
                    # here makes claims that are ours to check.
                    if body is not None and name in GENERATED_FROM:
                        assert child.digest.matches(body)
                        assert child.size == len(body)


async def ask_all(mirror: Mirror) -> int:
    """Ask for everything that is listed; how many manifests came."""
    came = 0
    for name in (await mirror.get("/v2/_catalog")).json()["repositories"]:
        tags = await mirror.get(f"/v2/{name}/tags/list")
        assert tags.status == 200
        for tag in tags.json()["tags"]:
            answer = await mirror.get(f"/v2/{name}/manifests/{tag}")
            assert answer.status in (200, 404), (name, tag, answer.body)
            if answer.status == 404:
                continue
            came += 1
            assert Digest.parse(answer.headers["Docker-Content-Digest"]).matches(answer.body)
            for child in ManifestLinks.parse(answer.body).children():
                for kind in ("blobs", "manifests", "referrers"):
                    part = await mirror.get(f"/v2/{name}/{kind}/{child.digest}")
                    assert part.status in (200, 404), (name, child, part.body)
                    if part.status == 200 and kind == "manifests":
                        assert child.digest.matches(part.body)
    return came


async def test_a_folder_full_of_spoiled_archives_is_served_without_an_error(tmp_path: Path) -> None:
    chance = random.Random(5)
    files = tmp_path / "files"
    files.mkdir()
    for number in range(120):
        name = chance.choice(sorted(WHOLE))
        how = [
            (chance.randrange(len(MARKS)), chance.randrange(10**6), chance.randbytes(chance.randint(1, 6)))
            for _ in range(chance.randint(0, 4))
        ]
        cut = chance.choice([None, None, None, chance.randrange(60_000)])
        (files / f"{number:03} {name}".replace(" ", "-")).write_bytes(spoiled(name, how, cut))
    async with serving(tmp_path / "mirror", layouts=[files]) as mirror:
        assert await ask_all(mirror) > 20
