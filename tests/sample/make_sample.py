"""Writes the sample that `make serve` shows: `python -m tests.sample.make_sample [FOLDER]` (default: layouts).

`hello:latest` is a multi-platform image of one static executable, with an SBOM attached to it, the fallback tag
under which registries without the referrers API list that SBOM, and a signature in cosign's way.
"""

import base64
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from tests.content import (
    LINUX_AMD64,
    LINUX_ARM64,
    LayoutWriter,
    Platform,
    Style,
    bare,
    encode,
    gzip_stored,
    image_config,
    tar,
)
from tests.sample import executable

REPOSITORY = "hello"
TAGS = ("latest", "1.0.0")
GREETING = "Hello from mirror! These bytes came straight out of an OCI layout.\n"
CREATED = "2026-11-21T00:00:00Z"

SPDX = "application/spdx+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"


def write_sample(folder: Path) -> Path:
    """Write the layout `hello` below `folder`, in place of one that is there; gives the layout's folder."""
    writer = LayoutWriter(folder / REPOSITORY)
    shutil.rmtree(writer.path, ignore_errors=True)
    image = writer.index(
        [
            _platform_image(writer, LINUX_AMD64, executable.amd64(GREETING.encode())),
            _platform_image(writer, LINUX_ARM64, executable.arm64(GREETING.encode())),
        ],
        annotations={
            "org.opencontainers.image.title": "hello",
            "org.opencontainers.image.description": "prints a greeting",
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    )
    sbom = writer.attachment(
        encode(_sbom(image), Style.INDENTED), SPDX, image, annotations={"org.opencontainers.image.created": CREATED}
    )
    for tag in TAGS:
        writer.tag(image, tag)
    writer.add(sbom)
    writer.tag(writer.index([sbom]), image.digest.fallback_tag)
    writer.tag(_signature(writer, image), f"{image.digest.fallback_tag}.sig")
    return writer.save(style=Style.INDENTED)


def _platform_image(writer: LayoutWriter, platform: Platform, program: bytes) -> Descriptor:
    layer = tar({"hello": program})
    config = {"created": CREATED, **image_config([layer], platform, Entrypoint=["/hello"], WorkingDir="/")}
    config["history"] = [{"created": CREATED, "created_by": "tests/sample/make_sample.py"}]
    return writer.image([gzip_stored(layer)], config=config, layer_type=media_types.OCI_LAYER_GZIP, platform=platform)


def _sbom(image: Descriptor) -> dict[str, Any]:
    """SPDX 2.3: one package, the image."""
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": REPOSITORY,
        "documentNamespace": f"https://spdx.org/spdxdocs/{REPOSITORY}-{image.digest.hex}",
        "creationInfo": {"created": CREATED, "creators": ["Tool: make_sample.py"]},
        "packages": [
            {
                "SPDXID": "SPDXRef-Package-hello",
                "name": REPOSITORY,
                "versionInfo": "1.0.0",
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": False,
                "licenseConcluded": "Apache-2.0",
                "licenseDeclared": "Apache-2.0",
                "copyrightText": "NOASSERTION",
                "primaryPackagePurpose": "CONTAINER",
                "checksums": [{"algorithm": "SHA256", "checksumValue": image.digest.hex}],
            }
        ],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": "SPDXRef-Package-hello",
            }
        ],
    }


def _signature(writer: LayoutWriter, image: Descriptor) -> Descriptor:
    """In cosign's shape, but nobody's: the value says so to whoever decodes it, and fits no key."""
    payload = encode(
        {
            "critical": {
                "identity": {"docker-reference": REPOSITORY},
                "image": {"docker-manifest-digest": image.digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )
    value = base64.b64encode(b"sample only: no key made this signature").decode()
    signed = {**bare(writer.blob(payload, SIMPLE_SIGNING)), "annotations": {SIGNATURE: value}}
    config = writer.blob(
        json.dumps(image_config([payload], {"architecture": "", "os": ""})).encode(), media_types.OCI_CONFIG
    )
    return writer.manifest(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": bare(config),
            "layers": [signed],
        }
    )


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parents[2] / "layouts"
    print(write_sample(folder))  # noqa: T201 a command says what it wrote
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
