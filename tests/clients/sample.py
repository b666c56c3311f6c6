"""What the committed sample holds, read from its files: the truth that clients' answers are compared with."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestLinks
from tests.content import REF_NAME

LAYOUTS = Path(__file__).parents[2] / "layouts"
LAYOUT = LAYOUTS / "hello"

# What clients call this machine when they choose from an index.
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class Image:
    """One platform's image."""

    digest: Digest
    config: Digest
    layer: Digest


def read(digest: str) -> bytes:
    """A blob of the sample."""
    return (LAYOUT / "blobs" / digest.replace(":", "/")).read_bytes()


def _image(digest: Digest) -> Image:
    config, layer = ManifestLinks.parse(read(digest)).blobs
    return Image(digest, config.digest, layer.digest)


_ENTRIES = json.loads((LAYOUT / "index.json").read_bytes())["manifests"]
TAGS = {entry["annotations"][REF_NAME]: Digest.parse(entry["digest"]) for entry in _ENTRIES if "annotations" in entry}
INDEX = TAGS["latest"]
IMAGES = {
    str(child.platform["architecture"]): _image(child.digest)
    for child in ManifestLinks.parse(read(INDEX)).manifests
    if child.platform
}
(SBOM,) = [Digest.parse(entry["digest"]) for entry in _ENTRIES if "annotations" not in entry]
# The image that a client on this machine takes.
NATIVE = IMAGES[ARCHITECTURE]
