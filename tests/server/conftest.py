"""A mirror with one of each kind of content."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.oci.descriptor import Descriptor
from tests.content import LINUX_AMD64, LINUX_ARM64, LayoutWriter, Style
from tests.serving import Mirror, serving

NAME = "team/app"
SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.example.signature"


@dataclass(frozen=True)
class Sample:
    """What the repository `team/app` holds."""

    writer: LayoutWriter
    layer: Descriptor
    image: Descriptor
    children: tuple[Descriptor, Descriptor]
    index: Descriptor
    docker: Descriptor
    docker_list: Descriptor
    artifact: Descriptor
    long: Descriptor
    sbom: Descriptor
    signature: Descriptor

    @property
    def tags(self) -> dict[str, Descriptor]:
        return {
            "1.0": self.image,
            "multi": self.index,
            "docker": self.docker,
            "list": self.docker_list,
            "artifact": self.artifact,
            "sha512": self.long,
            "1.1.0+oci": self.image,
        }

    def content(self, descriptor: Descriptor) -> bytes:
        return self.writer.content(descriptor)


def write_sample(root: Path) -> Sample:
    """Write the sample as the layout `team/app` below `root`."""
    writer = LayoutWriter(root / NAME)
    layer = bytes(range(256)) * 1200  # more than one piece of a streamed answer
    image = writer.image([layer], annotations={"org.example": "ä"}, style=Style.INDENTED)
    children = (writer.image([b"amd"], platform=LINUX_AMD64), writer.image([b"arm"], platform=LINUX_ARM64))
    docker = writer.image([b"docker"], docker=True)
    sample = Sample(
        writer,
        writer.blob(layer),
        image,
        children,
        writer.index(children, style=Style.TRAILING_NEWLINE),
        docker,
        writer.index([docker], docker=True),
        writer.artifact([b"standalone"]),
        writer.image([b"long"], algorithm="sha512"),
        writer.attachment(b"{}", SBOM, image, annotations={"org.example.created": "2026"}),
        writer.artifact([b"signed"], artifact_type=SIGNATURE, subject=image),
    )
    for tag, descriptor in sample.tags.items():
        writer.tag(descriptor, tag)
    writer.add(sample.sbom).add(sample.signature).save()
    return sample


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return write_sample(tmp_path / "layouts")


@pytest.fixture
async def mirror(sample: Sample, tmp_path: Path) -> AsyncIterator[Mirror]:
    """Serves the sample."""
    async with serving(tmp_path / "mirror", layouts=[tmp_path / "layouts"]) as running:
        yield running
