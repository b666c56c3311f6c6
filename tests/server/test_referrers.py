"""distribution-spec 1.1, "Listing Referrers", over local content."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from tests.content import LayoutWriter, bare, describe
from tests.server.conftest import NAME, SBOM, SIGNATURE, Sample
from tests.serving import Mirror, serving

REFERRERS = f"/v2/{NAME}/referrers"
HOST = "quay.io"
EMPTY = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}
ABSENT = Digest.of(b"not there")


async def listed(mirror: Mirror, target: str) -> list[dict[str, Any]]:
    answer = await mirror.get(target)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == media_types.OCI_INDEX
    document = answer.json()
    assert document | {"manifests": []} == EMPTY
    manifests: list[dict[str, Any]] = document["manifests"]
    return manifests


def entry(descriptor: Descriptor, artifact_type: str | None, annotations: dict[str, str] | None = None) -> Any:
    """The descriptor that "Listing Referrers" asks for."""
    found: dict[str, Any] = bare(descriptor)
    if artifact_type:
        found["artifactType"] = artifact_type
    if annotations:
        found["annotations"] = annotations
    return found


async def test_referrers_of_every_kind_are_listed(tmp_path: Path) -> None:
    """Image manifests, indexes, artifact manifests and the prototypes' `refers`: with type and annotations."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    image = writer.image()
    config_type = "application/vnd.example.config+json"
    prototype: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": bare(writer.blob(b"{}", media_types.OCI_CONFIG)),
        "layers": [],
        "refers": bare(image),
        "annotations": {"org.opencontainers.artifact.type": "application/vnd.old"},
    }
    annotations = {"a": "b", "ü": "\u2028"}
    referrers = [
        entry(writer.attachment(b"1", SBOM, image, annotations=annotations), SBOM, annotations),
        entry(writer.image([b"2"], config={}, config_type=config_type, subject=image), config_type),
        entry(
            writer.index([], subject=image, artifact_type="a/index", annotations={"c": "d"}), "a/index", {"c": "d"}
        ),
        entry(writer.index([image], subject=image), None),
        entry(writer.artifact([b"3"], artifact_type=SIGNATURE, subject=image), SIGNATURE),
        entry(writer.manifest(prototype), "application/vnd.old", prototype["annotations"]),
        entry(writer.image([b"long"], subject=image, algorithm="sha512"), media_types.OCI_CONFIG),
    ]
    writer.tag(image, "1")
    for one in referrers:
        writer.add(Descriptor(one["mediaType"], Digest(one["digest"]), one["size"]))
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        found = await listed(mirror, f"{REFERRERS}/{image.digest}")
        assert sorted(found, key=lambda one: one["digest"]) == sorted(referrers, key=lambda one: one["digest"])
        for one in referrers:
            answer = await mirror.get(f"/v2/{NAME}/manifests/{one['digest']}")
            assert (answer.status, answer.headers["Content-Type"]) == (200, one["mediaType"])


async def test_referrers_of_a_sha512_subject(tmp_path: Path) -> None:
    """As above, with the other registered algorithm; the subject need not exist."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    absent = describe(b"absent", media_types.OCI_MANIFEST, "sha512")
    sbom = writer.attachment(b"1", SBOM, absent)
    writer.tag(writer.image(), "1").add(sbom).save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        assert [one["digest"] for one in await listed(mirror, f"{REFERRERS}/{absent.digest}")] == [sbom.digest]


@pytest.mark.parametrize("digest", [ABSENT, Digest.of(b"not there", "sha512")])
async def test_an_unknown_subject_has_an_empty_list(mirror: Mirror, sample: Sample, digest: Digest) -> None:
    """ "Listing Referrers": an empty index, never 404, for a repository that exists."""
    for subject in (digest, sample.docker.digest, sample.layer.digest):
        answer = await mirror.get(f"{REFERRERS}/{subject}")
        assert (answer.status, answer.json()) == (200, EMPTY)
        headed = await mirror.head(f"{REFERRERS}/{subject}")
        assert (headed.status, headed.headers["Content-Length"]) == (200, str(len(answer.body)))
        assert headed.headers["Content-Type"] == media_types.OCI_INDEX


async def test_a_filter_is_applied_and_said_to_be(mirror: Mirror, sample: Sample) -> None:
    """ "Listing Referrers": with `artifactType`, OCI-Filters-Applied: artifactType."""
    target = f"{REFERRERS}/{sample.image.digest}"
    answer = await mirror.get(target)
    assert "OCI-Filters-Applied" not in answer.headers
    assert len(answer.json()["manifests"]) == 2
    for wanted, expected in [(SBOM, [sample.sbom.digest]), (SIGNATURE, [sample.signature.digest]), ("no/such", [])]:
        # Clients that do not encode the `+` of a media type mean a `+` all the same.
        for written in {quote(wanted, safe=""), wanted}:
            answer = await mirror.get(f"{target}?artifactType={written}")
            assert answer.headers["OCI-Filters-Applied"] == "artifactType"
            assert [one["digest"] for one in answer.json()["manifests"]] == expected


async def test_long_lists_come_in_pages_of_at_most_4_mib(tmp_path: Path) -> None:
    """ "Listing Referrers": the response may be paginated with Link; 4 MiB is what clients read of a manifest."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    image = writer.image()
    writer.tag(image, "1")
    long = {"org.example.long": "x" * 300_000}
    expected = []
    for number in range(30):
        kind = "kind/even" if number % 2 == 0 else "kind/odd"
        sbom = writer.attachment(b"%d" % number, kind, image, annotations=long)
        expected.append((sbom.digest, kind))
        # The index itself must not carry the long annotations.
        writer.add(Descriptor(sbom.media_type, sbom.digest, sbom.size))
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        for query, wanted in [
            ("", {d for d, _ in expected}),
            ("?artifactType=kind/odd", {d for d, k in expected if k == "kind/odd"}),
        ]:
            target: str | None = f"{REFERRERS}/{image.digest}{query}"
            found, pages = [], 0
            while target is not None:
                answer = await mirror.get(target)
                assert (answer.status, len(answer.body) <= 4 * 1024 * 1024) == (200, True)
                assert ("OCI-Filters-Applied" in answer.headers) == bool(query)
                found += [one["digest"] for one in json.loads(answer.body)["manifests"]]
                link = answer.headers.get("Link")
                match = re.fullmatch(r'<(/[!-~]*)>; rel="next"', link) if link else None
                assert (match is None) == (link is None)
                target, pages = (match[1] if match else None), pages + 1
            assert set(found) == wanted
            assert len(found) == len(wanted)
            assert pages == (3 if not query else 2)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (f"/v2/{HOST}/{NAME}/referrers/{{}}", {}),
        (f"/{HOST}/v2/{NAME}/referrers/{{}}", {}),
        (f"/v2/{NAME}/referrers/{{}}?ns={HOST}", {}),
        (f"/v2/{NAME}/referrers/{{}}?artifactType=kind%2Fa%2Bb&oci-ref-name={HOST}/{NAME}", {}),
        (f"/v2/{NAME}/referrers/{{}}?artifactType=kind/a%2Bb", {"OCI-REF-NAME": f"{HOST}/{NAME}:1"}),
    ],
)
async def test_a_link_leads_on_in_the_way_that_was_asked(
    tmp_path: Path, target: str, headers: dict[str, str]
) -> None:
    writer = LayoutWriter(tmp_path / "layouts" / HOST / NAME)
    image = writer.image()
    writer.tag(image, "1")
    wanted = set()
    for number in range(3):
        sbom = writer.attachment(b"%d" % number, "kind/a+b", image, annotations={"long": "x" * 3_000_000})
        wanted.add(sbom.digest)
        writer.add(Descriptor(sbom.media_type, sbom.digest, sbom.size))
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        found: list[str] = []
        following = target.format(image.digest)
        while following:
            assert following.partition("?")[0] == target.format(image.digest).partition("?")[0]
            answer = await mirror.get(following, headers)
            assert (answer.status, "OCI-Filters-Applied" in answer.headers) == (200, "artifactType" in target)
            found += [one["digest"] for one in answer.json()["manifests"]]
            following = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert (len(found), set(found)) == (3, wanted)


async def test_no_page_is_above_4_mib_whatever_is_annotated(tmp_path: Path) -> None:
    """A manifest just within its limit, of characters that take six bytes where they are escaped."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    image = writer.image()
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [],
        "subject": bare(image),
        "annotations": {"long": "ü"},
    }
    spare = MAX_MANIFEST_BYTES - len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())
    document["annotations"] = {"long": "ü" * (spare // 2)}
    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    assert MAX_MANIFEST_BYTES - len(content) < 4
    writer.tag(image, "1").add(writer.blob(content, media_types.OCI_INDEX)).add(writer.attachment(b"1", SBOM, image))
    writer.save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        found, target = [], f"{REFERRERS}/{image.digest}"
        while target:
            answer = await mirror.get(target)
            assert (answer.status, len(answer.body) <= MAX_MANIFEST_BYTES) == (200, True)
            found += answer.json()["manifests"]
            target = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert [one.get("annotations") for one in found if one["digest"] == Digest.of(content)] == [
            document["annotations"]
        ]
        assert len(found) == 2


async def test_one_odd_referrer_does_not_hide_the_others(tmp_path: Path) -> None:
    """JSON may hold a lone surrogate, which no UTF-8 can: it is listed as it was written, escaped."""
    writer = LayoutWriter(tmp_path / "layouts" / NAME)
    image = writer.image()
    odd = writer.attachment(b"1", "a/\ud800", image, annotations={"\udfff": "\udfff"})
    plain = writer.attachment(b"2", SBOM, image)
    writer.tag(image, "1").add(Descriptor(odd.media_type, odd.digest, odd.size)).add(plain).save()
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as mirror:
        found = await listed(mirror, f"{REFERRERS}/{image.digest}")
        assert {one["digest"] for one in found} == {odd.digest, plain.digest}
