"""What every server serves in the bench: the same bytes, in the form that each wants on disk."""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from tests.content import LayoutWriter

APP, HUB = "team/app", "docker.io/library/base"
ONE, MANY = "team/one", "team/many"
MANY_TAGS = 20_000
MIB = 1 << 20


@dataclass(frozen=True)
class Content:
    """The image of `team/app` and its layers: 4 KiB, 1 MiB and the big one."""

    layouts: Path
    image: Descriptor
    small: Digest
    medium: Digest
    big: Digest


def write(folder: Path, big_mib: int) -> Content:
    """Write the layouts below `folder`."""
    noise = random.Random(1)
    layers = [noise.randbytes(4096), noise.randbytes(MIB), noise.randbytes(MIB) * big_mib]
    writer = LayoutWriter(folder / APP)
    image = writer.image(layers)
    writer.tag(image, "1.0")
    writer.add(writer.attachment(b"{}", "application/spdx+json", image)).save()
    small, medium, big = (Digest.of(layer) for layer in layers)
    for repository, count in ((ONE, 1), (HUB, 1), (MANY, MANY_TAGS)):
        listed = LayoutWriter(folder / repository)
        one = listed.image([b"x"])
        for number in range(count):
            listed.tag(one, f"v{number:05}")
        listed.save()
    return Content(folder, image, small, medium, big)


def write_distribution(layouts: Path, root: Path) -> None:
    """The same content as distribution keeps it (its filesystem driver), without pushing: 20,000 tags take long."""
    for layout in sorted(path.parent for path in layouts.rglob("oci-layout")):
        repository = root / "docker/registry/v2/repositories" / layout.relative_to(layouts)
        digests = [Digest(f"sha256:{path.name}") for path in sorted((layout / "blobs/sha256").iterdir())]
        for digest in digests:
            data = root / "docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"
            data.parent.mkdir(parents=True, exist_ok=True)
            if not data.exists():
                os.link(layout / "blobs/sha256" / digest.hex, data)
            for kind in ("_layers", "_manifests/revisions"):
                _link(repository / kind / "sha256" / digest.hex / "link", digest)
        for tag, digest in _tags(layout):
            _link(repository / "_manifests/tags" / tag / "current/link", digest)


def _tags(layout: Path) -> Sequence[tuple[str, Digest]]:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    named = [(entry.get("annotations", {}).get("org.opencontainers.image.ref.name"), entry) for entry in entries]
    return [(tag, Digest(entry["digest"])) for tag, entry in named if tag]


def _link(path: Path, digest: Digest) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest)
