"""Descriptors: what a manifest or an index says of the content it lists (image-spec 1.1, descriptor.md)."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from mirror.oci import media_types
from mirror.oci.digest import Digest, is_of_other_algorithm
from mirror.oci.errors import DigestInvalid, ManifestInvalid, OtherAlgorithm

# One for all: there are tens of thousands of descriptors in memory.
NO_ANNOTATIONS: Mapping[str, str] = {}


class Descriptor(NamedTuple):
    """`size` in bytes. `platform` and `annotations` are as in the document, or None / empty."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    platform: Mapping[str, Any] | None = None
    annotations: Mapping[str, str] = NO_ANNOTATIONS

    @classmethod
    def from_json(cls, document: Any, *, with_annotations: bool = True) -> Self:
        """Raises ManifestInvalid, with what is wrong, unless `document` is a descriptor.

        OtherAlgorithm: it is one, by the grammar, and its content cannot be had here.
        """
        if not isinstance(document, dict):
            raise ManifestInvalid(f"a descriptor is an object, not {type(document).__name__}")
        digest, size, media_type = document.get("digest"), document.get("size"), document.get("mediaType", "")
        if not isinstance(digest, str):
            raise ManifestInvalid("a descriptor has a digest")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ManifestInvalid(f"the size of {digest[:200]} is {size!r}, not a number of bytes")
        if not isinstance(media_type, str):
            raise ManifestInvalid(f"the mediaType of {digest[:200]} is not a string")
        try:
            checked = Digest.parse(digest)
        except DigestInvalid as error:
            raise (OtherAlgorithm if is_of_other_algorithm(digest) else ManifestInvalid)(str(error)) from None
        artifact_type, platform = document.get("artifactType"), document.get("platform")
        return cls(
            media_types.SHARED.get(media_type, media_type),
            checked,
            size,
            artifact_type if isinstance(artifact_type, str) and artifact_type else None,
            platform if isinstance(platform, dict) and platform else None,
            string_map(document.get("annotations")) if with_annotations else NO_ANNOTATIONS,
        )

    def to_json(self) -> dict[str, Any]:
        """In the field order that the specification's examples use; empty fields are left out."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.platform:
            document["platform"] = dict(self.platform)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return document


def string_map(document: Any) -> Mapping[str, str]:
    """The string-to-string entries of an annotations object; whatever else stands there is passed over."""
    if not isinstance(document, dict):
        return {}
    return {key: value for key, value in document.items() if isinstance(value, str)}
