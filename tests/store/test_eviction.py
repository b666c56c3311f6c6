"""Keeping the cache below its size, in whole tags."""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.names import Name
from mirror.store.eviction import Evicted, Evictor
from mirror.store.graph import Graph
from mirror.store.index import CacheIndex, disk_bytes
from mirror.store.lists import TAGS
from mirror.store.lock import locked
from mirror.store.names import NameStore
from mirror.store.report import Usage, cached_images, usage
from mirror.store.repository import CachedRepository
from tests.store.blob_files import FolderOfBlobs, image_index, image_manifest, name_of

UBUNTU, NGINX = name_of("docker.io/library/ubuntu"), name_of("quay.io/team/nginx")
KIB = 1024


class Cache:
    """A cache folder with all its parts, filled as a pull would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = FolderOfBlobs(path / "blobs")
        self.open()

    def open(self) -> None:
        self.index = CacheIndex(self.path / "index.db")
        self.names = NameStore(self.path / "names", self.index)

    def close(self) -> None:
        self.index.close()

    def evictor(self, max_bytes: int | None, *pins: str) -> Evictor:
        return Evictor(self.blobs, self.names, self.index, max_bytes, pins)

    def layer(self, name: Name, seed: str, size: int = 8 * KIB) -> tuple[Digest, int]:
        digest = self._blob((seed * size).encode()[:size])
        self.names.repository(name).link(digest, size)
        return digest, size

    def image(
        self, name: Name, tag: str | None, layers: Sequence[str], at: float, subject: Digest | None = None
    ) -> Digest:
        self.layer(name, "{}", 2)
        media_type, content = image_manifest([self.layer(name, seed) for seed in layers], subject)
        return self.manifest(name, tag, media_type, content, at)

    def manifest(self, name: Name, tag: str | None, media_type: str, content: bytes, at: float) -> Digest:
        descriptor = Descriptor(media_type, self._blob(content), len(content))
        repository = self.names.repository(name)
        if tag is None:
            repository.put_manifest(descriptor, at)
        else:
            repository.put_tag(tag, descriptor, None, at)
        return descriptor.digest

    def _blob(self, content: bytes) -> Digest:
        digest = self.blobs.put(content)
        self.index.blob_added(digest, len(content))
        return digest

    def tags(self) -> set[str]:
        return {f"{name}:{tag}" for name in self.names.iterate() for tag in self.names.repository(name).tags()}

    def files(self) -> set[Digest]:
        return {digest for digest, _ in self.blobs.iterate()}

    def used(self) -> int:
        return sum(disk_bytes(size) for _, size in self.blobs.iterate())


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path)
    yield cache
    cache.close()


def a_digest(seed: str) -> Digest:
    return Digest.of((seed * 8 * KIB).encode()[: 8 * KIB])


def test_the_tag_longest_unused_leaves_whole(cache: Cache) -> None:
    child = cache.image(UBUNTU, None, ["a", "b"], 1000)
    cache.manifest(UBUNTU, "old", *image_index([(child, 1)]), 1000)
    kept = cache.image(NGINX, "new", ["c"], 2000)
    cache.names.repository(UBUNTU).put_list(TAGS, {"tags": ["old"]})
    before = cache.files()
    evictor = cache.evictor(cache.used() - 1)
    evicted = evictor.evict()
    assert cache.tags() == {f"{NGINX}:new"}
    assert cache.files() == {kept, a_digest("c"), Digest.of(b"{}")}
    assert evicted == Evicted(1, len(before) - 3, 2 * 8 * KIB + 2 * 4 * KIB)
    assert cache.index.usage_bytes() == cache.used()
    assert list(cache.names.iterate()) == [NGINX]
    assert not evictor.over()
    assert evictor.evict() == Evicted()


def test_what_was_asked_for_last_stays(cache: Cache) -> None:
    cache.image(UBUNTU, "a", ["a"], 1000)
    cache.image(UBUNTU, "b", ["b"], 1100)
    digest = cache.image(UBUNTU, "c", ["c"], 900)
    cache.index.touch(UBUNTU, "a", 2000)
    cache.index.touch(UBUNTU, digest, 2001)  # by its digest, as docker and the kubelet do
    cache.evictor(cache.used() - 1).evict()
    assert cache.tags() == {f"{UBUNTU}:a", f"{UBUNTU}:c"}


def test_a_blob_of_two_tags_stays_until_the_last_is_gone(cache: Cache) -> None:
    cache.image(UBUNTU, "old", ["a", "base"], 1000)
    cache.image(NGINX, "new", ["c", "base"], 2000)
    cache.evictor(cache.used() - 1).evict()
    assert cache.tags() == {f"{NGINX}:new"}
    assert {a_digest("c"), a_digest("base")} <= cache.files()
    assert not cache.names.repository(UBUNTU).has(a_digest("base"))
    cache.evictor(1).evict()
    assert cache.files() == set()
    assert not (cache.path / "names" / "quay.io").exists()


def test_two_names_of_one_image_leave_one_by_one(cache: Cache) -> None:
    cache.image(UBUNTU, "latest", ["a"], 2000)
    cache.image(UBUNTU, "24.04", ["a"], 1000)
    cache.evictor(cache.used() - 1).evict()
    assert cache.files() == set()
    assert cache.tags() == set()


def test_referrers_leave_with_their_subject(cache: Cache) -> None:
    image = cache.image(UBUNTU, "old", ["a"], 1000)
    cache.image(UBUNTU, None, ["sbom"], 1001, subject=image)
    signature = cache.image(UBUNTU, None, ["signature"], 1002, subject=image)
    cache.manifest(UBUNTU, image.fallback_tag, *image_index([(signature, 1)]), 1003)
    cache.image(UBUNTU, f"{image.fallback_tag}.sig", ["cosign"], 1004)
    cache.names.repository(UBUNTU).put_list(image, {"manifests": [1]})
    cache.image(NGINX, "new", ["c"], 1500)
    assert [image.tag for image in cached_images(cache.blobs, cache.names, cache.index)] == ["old", "new"]
    cache.evictor(cache.used() - 1).evict()
    assert cache.tags() == {f"{NGINX}:new"}
    assert len(cache.files()) == 3
    assert list(cache.names.iterate()) == [NGINX]


def test_referrers_are_kept_as_long_as_their_subject(cache: Cache) -> None:
    image = cache.image(UBUNTU, "used", ["a"], 1000)
    cache.image(UBUNTU, None, ["sbom"], 1001, subject=image)
    cache.image(UBUNTU, f"{image.fallback_tag}.sig", ["cosign"], 1002)
    cache.image(NGINX, "unused", ["c"], 1500)
    cache.index.touch(UBUNTU, "used", 2000)
    cache.evictor(cache.used() - 1).evict()
    assert cache.tags() == {f"{UBUNTU}:used", f"{UBUNTU}:{image.fallback_tag}.sig"}
    assert {a_digest("a"), a_digest("sbom"), a_digest("cosign")} <= cache.files()


def test_another_repository_cannot_hold_content_by_referring_to_it(cache: Cache) -> None:
    image = cache.image(UBUNTU, "used", ["a"], 2000)
    cache.image(NGINX, None, ["stranger"], 1000, subject=image)
    cache.evictor(cache.used() - 1).evict()
    assert a_digest("stranger") not in cache.files()
    assert a_digest("a") in cache.files()


def test_what_is_in_use_stays_and_so_does_its_tag(cache: Cache) -> None:
    cache.image(UBUNTU, "pulled", ["a", "b"], 1000)
    new = cache.image(NGINX, "new", ["c"], 2000)
    before = cache.files()
    cache.blobs.using.add(a_digest("b"))
    cache.evictor(1).evict()
    assert cache.tags() == {f"{UBUNTU}:pulled"}
    assert before - cache.files() == {a_digest("c"), new}


def test_pins_hold_what_they_name(cache: Cache) -> None:
    image = cache.image(UBUNTU, "lts", ["a"], 1000)
    cache.image(UBUNTU, f"{image.fallback_tag}.sig", ["cosign"], 1000)
    cache.image(UBUNTU, "edge", ["b"], 1000)
    cache.image(NGINX, "1", ["c"], 1000)
    cache.image(NGINX, None, ["d"], 1000)
    evictor = cache.evictor(1, "docker.io/*:lts", "quay.io/team/*")
    evictor.evict()
    assert cache.tags() == {f"{UBUNTU}:lts", f"{UBUNTU}:{image.fallback_tag}.sig", f"{NGINX}:1"}
    assert {a_digest("a"), a_digest("cosign"), a_digest("c"), a_digest("d")} <= cache.files()
    assert a_digest("b") not in cache.files()


def test_manifests_without_a_tag_and_blobs_on_their_own_leave_too(cache: Cache) -> None:
    cache.image(UBUNTU, "moved", ["a"], 1000)
    cache.image(UBUNTU, "moved", ["b"], 2000)
    cache.layer(UBUNTU, "lonely")
    cache.evictor(cache.used() - 1).evict()
    assert cache.tags() == {f"{UBUNTU}:moved"}
    assert a_digest("a") not in cache.files()
    assert {a_digest("b"), a_digest("lonely")} <= cache.files()
    cache.evictor(1).evict()
    assert cache.files() == set()
    assert cache.tags() == set()


def test_room_is_made_for_what_comes_but_not_for_what_never_fits(cache: Cache) -> None:
    for number in range(10):
        cache.image(UBUNTU, f"v{number}", [str(number)], 1000 + number)
    cache.index.flush()
    evictor = cache.evictor(cache.used())
    assert not evictor.over()
    assert evictor.over(1)
    assert evictor.evict(10**9) == Evicted()
    full = cache.used()
    evictor.evict(5 * 12 * KIB)
    assert cache.used() <= full - 5 * 12 * KIB
    assert cache.tags() == {f"{UBUNTU}:v{number}" for number in range(5, 10)}
    assert cache.evictor(None).evict() == Evicted()
    assert not cache.evictor(None).over(10**18)


def test_one_process_evicts_at_a_time(cache: Cache) -> None:
    cache.image(UBUNTU, "a", ["a"], 1000)
    with locked(cache.path / "eviction.lock"):
        assert cache.evictor(1).evict() == Evicted()
    assert cache.evictor(1).evict().tags == 1


def test_without_its_index_the_cache_loses_nothing(cache: Cache) -> None:
    cache.image(UBUNTU, "old", ["a"], 1000)
    cache.image(NGINX, "new", ["b"], 2000)
    before = usage(cache.names, cache.index)
    images = cached_images(cache.blobs, cache.names, cache.index)
    cache.close()
    for file in cache.path.glob("index.db*"):
        file.unlink()
    cache.open()
    cache.evictor(None).scan()
    assert usage(cache.names, cache.index) == before
    assert cached_images(cache.blobs, cache.names, cache.index) == images
    cache.evictor(cache.used() - 1).evict()
    assert cache.tags() == {f"{NGINX}:new"}


def test_a_scan_corrects_what_the_index_has_wrong(cache: Cache) -> None:
    cache.image(UBUNTU, "a", ["a"], 1000)
    cache.index.blob_added(Digest.of(b"not there"), 10**9)
    cache.index.blob_removed(a_digest("a"))
    cache.index.touch(NGINX, "gone", 1000)
    cache.index.flush()
    cache.evictor(None).scan()
    assert cache.index.usage_bytes() == cache.used()
    assert set(cache.index.blobs()) == cache.files()
    assert cache.index.uses() == {}


class WhileEvicting(FolderOfBlobs):
    """Something else happens when eviction comes to its last step, once."""

    def __init__(self, blobs: FolderOfBlobs, action: Callable[[], object]) -> None:
        super().__init__(blobs.path)
        self._action: Callable[[], object] | None = action

    def in_use(self, digest: Digest) -> bool:
        action, self._action = self._action, None
        if action is not None:
            action()
        return super().in_use(digest)


def test_what_is_asked_for_anew_while_evicting_stays(cache: Cache) -> None:
    image = cache.image(UBUNTU, "old", ["a"], 1000)
    descriptor = cache.names.repository(UBUNTU).manifest(image)
    assert descriptor is not None

    def another_pull() -> None:
        cache.names.repository(UBUNTU).put_tag("old", descriptor, None, 2000)
        cache.names.repository(NGINX).link(a_digest("z"), 8 * KIB)

    evictor = Evictor(WhileEvicting(cache.blobs, another_pull), cache.names, cache.index, 1)
    evictor.evict()
    assert f"{UBUNTU}:old" in cache.tags()
    assert {image, a_digest("a")} <= cache.files()
    assert cache.names.repository(UBUNTU).has(a_digest("a"))


def test_what_comes_into_use_while_evicting_stays_a_member(cache: Cache) -> None:
    cache.image(UBUNTU, "old", ["a"], 1000)

    class Stubborn(FolderOfBlobs):
        def remove(self, digest: Digest) -> bool:
            return digest != a_digest("a") and super().remove(digest)

    Evictor(Stubborn(cache.blobs.path), cache.names, cache.index, 1).evict()
    assert cache.files() == {a_digest("a")}
    assert cache.names.repository(UBUNTU).links() == {a_digest("a"): 8 * KIB}
    assert cache.index.usage_bytes() == 8 * KIB


def test_a_broken_manifest_holds_nothing_and_stops_nothing(cache: Cache) -> None:
    cache.manifest(UBUNTU, "broken", media_types.OCI_MANIFEST, b'{"layers": 5}', 1000)
    cache.manifest(UBUNTU, "absent", media_types.OCI_INDEX, b"{}", 1001)
    cache.blobs.remove(Digest.of(b"{}"))
    cache.evictor(1).evict()
    assert cache.tags() == set()
    assert cache.files() == set()


def test_usage_and_images_are_listed(cache: Cache) -> None:
    child = cache.image(UBUNTU, None, ["a"], 1000)
    cache.manifest(UBUNTU, "multi", *image_index([(child, 1), (Digest.of(b"other platform"), 1)]), 1001)
    cache.image(NGINX, "1", ["a", "b"], 1002)
    cache.index.touch(UBUNTU, "multi", 3000)
    cache.index.touch_checked(UBUNTU, "multi", 2500)
    assert usage(cache.names, cache.index) == Usage(cache.used(), 6, 3, 2, 2)
    multi, nginx = cached_images(cache.blobs, cache.names, cache.index)
    assert (multi.name, multi.tag, multi.missing) == (UBUNTU, "multi", 1)
    assert (multi.fetched_at, multi.checked_at, multi.used_at) == (1001, 2500, 3000)
    assert (nginx.name, nginx.tag, nginx.missing) == (NGINX, "1", 0)
    assert nginx.bytes == 2 * 8 * KIB + 2 + nginx.descriptor.size


layers = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True)
images = st.lists(
    st.tuples(st.sampled_from([UBUNTU, NGINX]), st.sampled_from(["1", "2", "3", None]), layers, st.booleans()),
    min_size=1,
    max_size=10,
)


@settings(max_examples=60, deadline=None)
@given(
    images=images,
    share=st.floats(0, 1.1),
    pins=st.sets(st.sampled_from(["docker.io/*:1", "quay.io/*", "*:3"]), max_size=2),
    using=st.sets(st.sampled_from("abcdefgh"), max_size=2),
)
def test_what_stays_is_whole_and_the_rest_fits(
    tmp_path_factory: pytest.TempPathFactory,
    images: list[tuple[Name, str | None, list[str], bool]],
    share: float,
    pins: set[str],
    using: set[str],
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    last: Digest | None = None
    for number, (name, tag, seeds, refers) in enumerate(images):
        last = cache.image(name, tag, seeds, 1000 + number, last if refers else None)
    cache.blobs.using = {a_digest(seed) for seed in using}
    cache.index.flush()
    graph = Graph(cache.blobs, cache.names, cache.index)
    units = [(unit, closure) for unit, closure in graph.units()]
    before, max_bytes = cache.files(), int(cache.used() * share)
    evictor = cache.evictor(max_bytes, *pins)
    evictor.evict()
    after = cache.files()
    cache.index.flush()
    assert cache.index.usage_bytes() == cache.used()
    left = {str(unit) for unit, _ in Graph(cache.blobs, cache.names, cache.index).units()}
    for unit, closure in units:
        if str(unit) in left:
            assert closure & before <= after, unit
    assert cache.blobs.using & before <= after
    if cache.used() > max_bytes:
        # Whatever could still go is held by a pin, or by what is in use.
        held: set[Digest] = set()
        for unit, closure in units:
            if closure & cache.blobs.using or any(fnmatchcase(str(unit), pin) for pin in pins):
                held |= closure
        assert all(unit.root in held for unit, _ in units if str(unit) in left)
    for name in cache.names.iterate():
        check_membership(cache.names.repository(name), after)
    cache.close()


def check_membership(repository: CachedRepository, files: set[Digest]) -> None:
    """Whatever a repository still has, it can serve."""
    records, manifests = repository.records()
    assert set(manifests) <= files
    assert set(repository.links()) <= files
    assert {record.descriptor.digest for record in records.values()} <= set(manifests)
