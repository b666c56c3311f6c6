"""What a hub keeps of one repository."""

from dataclasses import dataclass, field

from mirror.oci.digest import Digest


@dataclass
class Stored:
    """One repository."""

    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
