"""Variants of manifests that registries were tested with: each pulls byte-exact, by tag and digest, HEAD and GET."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.manifest import MAX_MANIFEST_BYTES
from tests.content import LayoutWriter, bare
from tests.serving import Mirror, Run, kept_serving

EMPTY_BLOB = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SCRATCH = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

Document = dict[str, Any]
Make = Callable[[LayoutWriter], Document]


def image(writer: LayoutWriter, config_type: str = media_types.OCI_CONFIG, config: bytes = b"{}") -> Document:
    return {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": bare(writer.blob(config, config_type)),
        "layers": [bare(writer.blob(b"layer", media_types.OCI_LAYER_TAR))],
    }


def without(key: str) -> Make:
    return lambda writer: {name: value for name, value in image(writer).items() if name != key}


def layers(*contents: bytes) -> Make:
    return lambda writer: image(writer) | {"layers": [bare(writer.blob(one)) for one in contents]}


def with_subject(make: Make) -> Make:
    def made(writer: LayoutWriter) -> Document:
        return make(writer) | {"subject": bare(writer.manifest(image(writer)))}

    return made


def artifact(writer: LayoutWriter) -> Document:
    blobs = [bare(writer.blob(content)) for content in (b"", b"{}", b"sbom")]
    return {"mediaType": media_types.OCI_ARTIFACT, "artifactType": "application/vnd.example", "blobs": blobs}


VARIANTS: dict[str, Make] = {
    "image": image,
    "arbitrary-config": lambda writer: image(writer, "application/vnd.example.config.v1+json"),
    "config-without-type": lambda writer: image(writer, ""),
    "config-no-json": lambda writer: image(writer, "text/plain", b"\x00\xff"),
    "empty-config": lambda writer: image(writer, media_types.OCI_EMPTY),
    "empty-bytes-config": lambda writer: image(writer, config=b""),
    "no-config": without("config"),
    "layers-empty": lambda writer: image(writer) | {"layers": []},
    "no-layers": without("layers"),
    "no-media-type": without("mediaType"),
    "no-schema-version": without("schemaVersion"),
    "nothing-but-a-type": lambda _: {"mediaType": media_types.OCI_MANIFEST},
    "zero-byte-layer": layers(b""),
    "scratch-layer": layers(b"{}"),
    "many-layers": layers(b"", b"{}", b"", b"x"),
    "unknown-fields": lambda writer: image(writer) | {"x": [1.5e3, None, {"y": "z"}], "annotations": {"a": "b"}},
    "artifact": artifact,
    "artifact-no-blobs": lambda _: {"mediaType": media_types.OCI_ARTIFACT, "artifactType": "a/b"},
    "empty-index": lambda _: {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []},
    "index-of-another-algorithm": lambda writer: {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            bare(writer.manifest(image(writer))),
            {"mediaType": media_types.OCI_MANIFEST, "digest": f"blake3:{'0' * 64}", "size": 1},
        ],
    },
}
VARIANTS |= {f"{name}-subject": with_subject(make) for name, make in VARIANTS.items()}


def ascii_json(document: Document) -> bytes:
    """Every letter of every string as an escape."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("layers", "\\u006Cayers").replace("sha256", "\\u0073ha256").encode()


STYLES: dict[str, Callable[[Document], bytes]] = {
    "compact": lambda document: json.dumps(document, separators=(",", ":")).encode(),
    "indented": lambda document: json.dumps(document, indent=4).encode(),
    "crlf": lambda document: json.dumps(document, indent=2).replace("\n", "\r\n").encode() + b"\r\n",
    "reversed": lambda document: json.dumps(dict(reversed(document.items()))).encode(),
    "sorted": lambda document: json.dumps(document, sort_keys=True).encode(),
    "escapes": ascii_json,
    "surrounded": lambda document: b"\n\t " + json.dumps(document).encode() + b" \n\n",
    "byte-order-mark": lambda document: b"\xef\xbb\xbf" + json.dumps(document).encode(),
    "double-keys": lambda document: b'{"schemaVersion":1,' + json.dumps(document).encode()[1:],
}


Written = dict[str, tuple[Descriptor, bytes]]
Kept = tuple[Run[Any], Mirror, Written]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("variants")
    writer = LayoutWriter(folder / "layouts" / "seeds")
    written: Written = {}
    for name, make in VARIANTS.items():
        written[name] = add(writer, name, make(writer), STYLES["compact"])
    for name, style in STYLES.items():
        written[name] = add(writer, name, with_subject(image)(writer), style)
    for algorithm in ("sha256", "sha512"):
        long = image(writer) | {"annotations": {"long": ""}}
        long["annotations"]["long"] = "x" * (MAX_MANIFEST_BYTES - len(json.dumps(long)))
        written[f"4-mib-{algorithm}"] = add(
            writer, f"4-mib-{algorithm}", long, lambda one: json.dumps(one).encode(), algorithm
        )
    writer.save()
    with kept_serving(folder / "mirror", layouts=[folder / "layouts"]) as (run, mirror):
        yield run, mirror, written


def add(
    writer: LayoutWriter, tag: str, document: Document, style: Callable[[Document], bytes], algorithm: str = "sha256"
) -> tuple[Descriptor, bytes]:
    content = style(document)
    descriptor = writer.blob(content, document.get("mediaType", media_types.OCI_MANIFEST), algorithm)
    writer.tag(descriptor, tag)
    return descriptor, content


@pytest.mark.parametrize("name", [*VARIANTS, *STYLES, "4-mib-sha256", "4-mib-sha512"])
def test_it_pulls_byte_exact_by_tag_and_by_digest(kept: Kept, name: str) -> None:
    run, mirror, written = kept
    descriptor, content = written[name]
    for reference in (name, descriptor.digest):
        got = run(mirror.get(f"/v2/seeds/manifests/{reference}"))
        headed = run(mirror.head(f"/v2/seeds/manifests/{reference}"))
        assert (got.status, headed.status) == (200, 200)
        assert (got.body, headed.body) == (content, b"")
        for answer in (got, headed):
            assert answer.headers["Content-Type"] == descriptor.media_type
            assert answer.headers["Docker-Content-Digest"] == descriptor.digest
            assert answer.headers["Content-Length"] == str(len(content))
    assert run(mirror.get(f"/v2/seeds/blobs/{descriptor.digest}")).body == content


@pytest.mark.parametrize("name", VARIANTS)
def test_all_that_it_lists_pulls_too(kept: Kept, name: str) -> None:
    run, mirror, written = kept
    document = json.loads(written[name][1])
    listed = [*document.get("layers", []), *document.get("blobs", []), *filter(None, [document.get("config")])]
    for one in listed:
        got = run(mirror.get(f"/v2/seeds/blobs/{one['digest']}"))
        headed = run(mirror.head(f"/v2/seeds/blobs/{one['digest']}"))
        assert (got.status, len(got.body), Digest.of(got.body)) == (200, one["size"], one["digest"])
        assert (headed.status, headed.headers["Content-Length"]) == (200, str(one["size"]))
        assert headed.headers["Content-Type"] == "application/octet-stream"


def test_the_seeds_that_go_by_their_digest_are_the_right_ones(kept: Kept) -> None:
    run, mirror, _ = kept
    assert run(mirror.get(f"/v2/seeds/blobs/{EMPTY_BLOB}")).body == b""
    assert run(mirror.get(f"/v2/seeds/blobs/{SCRATCH}")).body == b"{}"


def test_each_with_a_subject_is_its_referrer(kept: Kept) -> None:
    run, mirror, written = kept
    subject = json.loads(written["image-subject"][1])["subject"]["digest"]
    found = run(mirror.get(f"/v2/seeds/referrers/{subject}")).json()["manifests"]
    expected = {written[name][0].digest for name in written if name.endswith("-subject") or name in STYLES}
    assert {one["digest"] for one in found} == expected
