"""Which repository a request means: the design's "Names", sentence by sentence."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from tests.content import LayoutWriter
from tests.serving import Mirror, Reply, kept_serving, serving

OWN = "mirror.corp.example"
# Canonical names, and the folders that hold them; each has an image of its own at tag 1.
FOLDERS = {
    "docker.io/library/ubuntu": "docker.io/library/ubuntu",
    "docker.io/team/app": "docker.io/team/app",
    "quay.io/team/app": "quay.io/team/app",
    "quay.io/app": "quay.io/app",
    "harbor.corp/quay.io/x": "harbor.corp/quay.io/x",
    "host:5000/team/app": "host_5000/team/app",
    "localhost:5000/app": "localhost_5000/app",
    **{
        name: name
        for name in (
            "team/app",
            "app",
            "localhost/app",
            "v2",
            "v2/v2",
            "blobs",
            "manifests",
            "a/manifests/b",
            "a/blobs/b",
            "tags/list",
            "x/tags/list",
            "referrers/x",
        )
    },
}

Headers = Sequence[tuple[str, str]]
Ask = Callable[[str, Headers], Reply]


def write(root: Path, folders: Sequence[str]) -> dict[Digest, str]:
    """One layout in each folder; which digest is which folder's."""
    written = {}
    for folder in folders:
        writer = LayoutWriter(root / folder)
        image = writer.image([folder.encode()])
        writer.tag(image, "1").save()
        written[image.digest] = folder
    return written


class Table:
    """A mirror and what it answered: the canonical name, or status and code."""

    def __init__(self, mirror: Mirror, run: Callable[..., Reply], names: dict[Digest, str]) -> None:
        self._mirror, self._run, self._names = mirror, run, names

    def ask(self, target: str, headers: Headers = ()) -> tuple[str, str | None]:
        answer = self._run(self._mirror.get(target.replace("{own}", self._mirror.host), headers))
        assert answer.headers["Vary"] == "OCI-REF-NAME"
        namespace = answer.headers.get("OCI-Namespace")
        if answer.status != 200:
            return f"{answer.status} {answer.code}", namespace
        return self._names[Digest.parse(answer.headers["Docker-Content-Digest"])], namespace


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    folder = tmp_path_factory.mktemp("names")
    digests = write(folder / "layouts", list(FOLDERS.values()))
    canonical = {path: name for name, path in FOLDERS.items()}
    config = {"names": [OWN, f"{OWN}:5000"]}
    with kept_serving(folder / "mirror", config, layouts=[folder / "layouts"]) as (run, mirror):
        yield Table(mirror, run, {digest: canonical[path] for digest, path in digests.items()})


def header(*values: str) -> Headers:
    return [("OCI-REF-NAME", value) for value in values]


UNKNOWN = "404 NAME_UNKNOWN"
INVALID = "400 NAME_INVALID"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # A first component with a dot or a port, and something behind it, is a host.
        ("quay.io/team/app", "quay.io/team/app"),
        ("quay.io/app", "quay.io/app"),
        ("QUAY.IO/app", "quay.io/app"),
        ("quay.io:443/app", "quay.io/app"),
        ("quay.io", UNKNOWN),
        ("team/app", "team/app"),
        # `localhost` without port is none.
        ("localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("localhost_5000/app", "localhost:5000/app"),
        # `host_5000` is read as `host:5000`.
        ("host:5000/team/app", "host:5000/team/app"),
        ("host_5000/team/app", "host:5000/team/app"),
        ("host%3A5000/team/app", "host:5000/team/app"),
        ("host:5001/team/app", UNKNOWN),
        # All before the endpoint is the name.
        ("v2", "v2"),
        ("v2/v2", "v2/v2"),
        ("blobs", "blobs"),
        ("manifests", "manifests"),
        ("a/manifests/b", "a/manifests/b"),
        ("a/blobs/b", "a/blobs/b"),
        ("tags/list", "tags/list"),
        ("x/tags/list", "x/tags/list"),
        ("referrers/x", "referrers/x"),
        # Aliases of docker.io, and `library/` however the host was found.
        ("docker.io/library/ubuntu", "docker.io/library/ubuntu"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu"),
        ("index.docker.io/ubuntu", "docker.io/library/ubuntu"),
        ("registry-1.docker.io/library/ubuntu", "docker.io/library/ubuntu"),
        # A repository whose own name begins with a host is reached by path.
        ("harbor.corp/quay.io/x", "harbor.corp/quay.io/x"),
        # No host: local content of exactly that plain name, else the default host.
        ("app", "app"),
        ("ubuntu", "docker.io/library/ubuntu"),
        ("library/ubuntu", "docker.io/library/ubuntu"),
        ("other/app", UNKNOWN),
        # Hosts neither configured nor present.
        ("ghcr.io/team/app", UNKNOWN),
        # The mirror's own names are dropped.
        ("{own}/team/app", "team/app"),
        ("{own}/quay.io/team/app", "quay.io/team/app"),
        (f"{OWN}/team/app", "team/app"),
        (f"{OWN}:5000/app", "app"),
        (f"{OWN}_5000/app", "app"),
        (f"{OWN.upper()}/app", "app"),
        (f"{OWN}/docker.io/ubuntu", "docker.io/library/ubuntu"),
        (f"{OWN}/ubuntu", "docker.io/library/ubuntu"),
        (f"{OWN}:5001/app", UNKNOWN),
        # Not in the grammar, or too long together with its host.
        ("quay.io/Team/app", UNKNOWN),
        (f"quay.io/{'a' * 248}", UNKNOWN),
    ],
)
def test_names_by_path(table: Table, path: str, expected: str) -> None:
    assert table.ask(f"/v2/{path}/manifests/1") == (expected, None)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/quay.io/v2/team/app", "quay.io/team/app"),
        ("/Quay.io/v2/app", "quay.io/app"),
        ("/docker.io/v2/ubuntu", "docker.io/library/ubuntu"),
        ("/index.docker.io/v2/library/ubuntu", "docker.io/library/ubuntu"),
        ("/host:5000/v2/team/app", "host:5000/team/app"),
        ("/host_5000/v2/team/app", "host:5000/team/app"),
        # A path host equal to it is stripped, another is a contradiction.
        ("/quay.io/v2/quay.io/app", "quay.io/app"),
        ("/quay.io/v2/docker.io/app", INVALID),
        ("/quay.io/v2/no/such", UNKNOWN),
        ("/quay.io/v2/v2", UNKNOWN),
        ("/{own}/v2/team/app", "team/app"),
        ("/{own}/v2/quay.io/app", "quay.io/app"),
        (f"/{OWN}/v2/ubuntu", "docker.io/library/ubuntu"),
        (f"/docker.io/v2/{OWN}/ubuntu", "docker.io/library/ubuntu"),
    ],
)
def test_names_by_the_paths_of_dockerd(table: Table, target: str, expected: str) -> None:
    assert table.ask(f"{target}/manifests/1") == (expected, None)


@pytest.mark.parametrize(
    ("target", "headers", "expected", "namespace"),
    [
        # Header, else oci-ref-name, else ns.
        ("team/app", header("quay.io/team/app"), "quay.io/team/app", "quay.io"),
        ("team/app?oci-ref-name=quay.io/team/app", (), "quay.io/team/app", "quay.io"),
        ("team/app?oci-ref-name=quay.io%2Fteam%2Fapp", (), "quay.io/team/app", "quay.io"),
        ("team/app?ns=quay.io", (), "quay.io/team/app", "quay.io"),
        ("team/app?ns=quay.io", header("quay.io/team/app"), "quay.io/team/app", "quay.io"),
        ("team/app?ns=QUAY.io:443", (), "quay.io/team/app", "quay.io"),
        ("team/app?ns=host:5000", (), "host:5000/team/app", "host:5000"),
        ("team/app?ns=host_5000", (), "host:5000/team/app", "host:5000"),
        # A tag or digest at its end is ignored.
        ("app", header("quay.io/team/app:2.0"), "quay.io/team/app", "quay.io"),
        ("app", header(f"host:5000/team/app:2@sha256:{'a' * 64}"), "host:5000/team/app", "host:5000"),
        # The path's repository is it, or its whole trailing components.
        ("ubuntu", header("docker.io/library/ubuntu"), "docker.io/library/ubuntu", "docker.io"),
        ("library/ubuntu", header("docker.io/library/ubuntu"), "docker.io/library/ubuntu", "docker.io"),
        ("library/ubuntu", header("docker.io/ubuntu"), "docker.io/library/ubuntu", "docker.io"),
        ("ubuntu", header("index.docker.io/ubuntu"), "docker.io/library/ubuntu", "docker.io"),
        ("buntu", header("docker.io/library/ubuntu"), INVALID, None),
        ("rary/ubuntu", header("docker.io/library/ubuntu"), INVALID, None),
        ("x/library/ubuntu", header("docker.io/library/ubuntu"), INVALID, None),
        ("library", header("docker.io/library/ubuntu"), INVALID, None),
        ("app", header("quay.io/team/other"), INVALID, None),
        # A path host equal to the source host is stripped, another contradicts it.
        ("quay.io/team/app", header("quay.io/team/app"), "quay.io/team/app", "quay.io"),
        ("quay.io/app", header("quay.io/team/app"), "quay.io/team/app", "quay.io"),
        ("docker.io/ubuntu?ns=registry-1.docker.io", (), "docker.io/library/ubuntu", "docker.io"),
        ("docker.io/team/app", header("quay.io/team/app"), INVALID, None),
        ("docker.io/team/app?ns=quay.io", (), INVALID, None),
        ("quay.io/x?ns=harbor.corp", (), INVALID, None),
        ("harbor.corp/quay.io/x?ns=harbor.corp", (), "harbor.corp/quay.io/x", "harbor.corp"),
        # Contradicting values; a header given twice with two values.
        ("team/app?ns=docker.io", header("quay.io/team/app"), INVALID, None),
        ("team/app?oci-ref-name=docker.io/team/app", header("quay.io/team/app"), INVALID, None),
        ("team/app?oci-ref-name=quay.io/team/app&ns=docker.io", (), INVALID, None),
        ("team/app?ns=docker.io&ns=quay.io", (), INVALID, None),
        ("app", header("quay.io/team/app", "quay.io/app"), INVALID, None),
        ("app", header("quay.io/team/app", "docker.io/team/app"), INVALID, None),
        ("app", header("quay.io/team/app", "quay.io/team/app"), "quay.io/team/app", "quay.io"),
        # A ref-name without a host names the repository only.
        ("app", header("team/app"), "team/app", None),
        ("app?ns=quay.io", header("team/app"), "quay.io/team/app", "quay.io"),
        ("quay.io/app", header("team/app"), "quay.io/team/app", None),
        ("ubuntu", header("ubuntu"), "docker.io/library/ubuntu", None),
        ("library/ubuntu", header("ubuntu"), "docker.io/library/ubuntu", None),
        ("app", header("localhost/app"), "localhost/app", None),
        # The mirror's own names are dropped wherever they stand.
        (f"team/app?ns={OWN}", (), "team/app", None),
        ("team/app?ns={own}", (), "team/app", None),
        (f"team/app?ns={OWN}", header("quay.io/team/app"), "quay.io/team/app", "quay.io"),
        ("app", header(f"{OWN}/team/app"), "team/app", None),
        ("app", header(f"{OWN}/quay.io/team/app"), "quay.io/team/app", "quay.io"),
        (f"{OWN}/app?ns=quay.io", (), "quay.io/app", "quay.io"),
        ("{own}/quay.io/app?ns=quay.io", (), "quay.io/app", "quay.io"),
        # On docker.io a single component gets `library/`.
        ("ubuntu?ns=docker.io", (), "docker.io/library/ubuntu", "docker.io"),
        ("ubuntu?ns=index.docker.io", (), "docker.io/library/ubuntu", "docker.io"),
        ("app?ns=quay.io", (), "quay.io/app", "quay.io"),
        # A host that is not known, and what is no name.
        ("team/app?ns=ghcr.io", (), UNKNOWN, "ghcr.io"),
        ("team/app", header("ghcr.io/team/app"), UNKNOWN, "ghcr.io"),
        ("Team/app?ns=quay.io", (), UNKNOWN, "quay.io"),
        ("team/app?ns=not%20a%20host", (), INVALID, None),
        ("team/app?ns=../..", (), INVALID, None),
        ("team/app", header("quay.io/../team/app"), INVALID, None),
        ("team/app", header("quay.io/"), INVALID, None),
        ("team/app", header("https://quay.io/team/app"), INVALID, None),
        # Nothing said is nothing chosen.
        ("team/app?ns=", header(""), "team/app", None),
    ],
)
def test_names_by_header_and_query(
    table: Table, target: str, headers: Headers, expected: str, *, namespace: str | None
) -> None:
    path, mark, query = target.partition("?")
    assert table.ask(f"/v2/{path}/manifests/1{mark}{query}", headers) == (expected, namespace)


def test_dockerds_path_and_header_may_agree_and_may_not_contradict(table: Table) -> None:
    assert table.ask("/quay.io/v2/app/manifests/1", header("quay.io/team/app")) == ("quay.io/team/app", "quay.io")
    assert table.ask("/quay.io/v2/app/manifests/1?ns=docker.io") == (INVALID, None)
    assert table.ask("/docker.io/v2/app/manifests/1", header("quay.io/team/app")) == (INVALID, None)


@pytest.mark.parametrize("upstream", [False, True])
async def test_the_requests_own_host_is_dropped_unless_it_is_an_upstream(tmp_path: Path, upstream: bool) -> None:
    names = write(tmp_path / "layouts", ["quay.io/team/app", "team/app"])
    config = {"upstreams": {"quay.io": {"offline": True}}} if upstream else {}
    async with serving(tmp_path / "mirror", config, layouts=[tmp_path / "layouts"]) as mirror:
        for written in ("quay.io", "QUAY.io:443"):
            answer = await mirror.get("/v2/quay.io/team/app/manifests/1", {"Host": written})
            expected = "quay.io/team/app" if upstream else "team/app"
            assert names[Digest(answer.headers["Docker-Content-Digest"])] == expected


@pytest.mark.parametrize(
    ("default_host", "target", "status"),
    [
        (None, "ubuntu", 404),
        (None, "library/ubuntu", 404),
        (None, "docker.io/ubuntu", 200),
        (None, "team/app", 200),
        ("quay.io", "ubuntu", 404),
        ("quay.io", "web", 200),
        ("docker.io", "ubuntu", 200),
        ("docker.io", "web", 404),
    ],
)
async def test_the_default_host_is_what_the_configuration_says(
    tmp_path: Path, default_host: str | None, target: str, status: int
) -> None:
    write(tmp_path / "layouts", ["docker.io/library/ubuntu", "quay.io/web", "team/app"])
    config = {"default_host": default_host}
    async with serving(tmp_path / "mirror", config, layouts=[tmp_path / "layouts"]) as mirror:
        answer = await mirror.get(f"/v2/{target}/manifests/1")
        assert answer.status == status
        assert "OCI-Namespace" not in answer.headers


@pytest.mark.parametrize("default_host", [None, "quay.io", "docker.io"])
async def test_a_full_name_without_a_host_answers_plain_requests_whatever_the_default_host(
    tmp_path: Path, default_host: str | None
) -> None:
    """`docker save` writes `team/app:1`: its canonical name is docker.io's, and nobody said docker.io."""
    layout = LayoutWriter(tmp_path / "layouts" / "saved")
    image = layout.image([b"mine"])
    layout.tag(image, "team/web:1").tag(image, "legacy:1").save()
    others = write(tmp_path / "layouts", ["quay.io/team/web", "quay.io/legacy"])
    config = {"default_host": default_host, "upstreams": {"quay.io": {"offline": True}}}
    async with serving(tmp_path / "mirror", config, layouts=[tmp_path / "layouts"]) as mirror:
        for target in ("team/web", "legacy", "docker.io/team/web", "docker.io/library/legacy"):
            answer = await mirror.get(f"/v2/{target}/manifests/1")
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, image.digest)
            # Nothing but local content is asked.
            other = await mirror.get(f"/v2/{target}/manifests/2")
            assert other.status == 404
        found = await mirror.get("/v2/quay.io/team/web/manifests/1")
        assert Digest(found.headers["Docker-Content-Digest"]) in others
        shutil.rmtree(layout.path)
        await mirror.refresh()
        for target in ("team/web", "legacy"):
            assert (await mirror.get(f"/v2/{target}/manifests/1")).status == 404, "never the default host's"


async def test_vary_is_on_every_answer_of_the_api(tmp_path: Path) -> None:
    write(tmp_path / "layouts", ["team/app"])
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        for target in (
            "/v2/",
            "/v2/_catalog",
            "/v2/team/app/tags/list",
            "/v2/no",
            "/v2/team/app/blobs/x",
            "/v2/%00/",
        ):
            for method in ("GET", "HEAD", "PUT"):
                assert (await mirror.request(method, target)).headers["Vary"] == "OCI-REF-NAME", (method, target)
