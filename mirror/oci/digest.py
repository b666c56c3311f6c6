"""Digests: `algorithm:hex`, with the registered algorithms only (image-spec 1.1, descriptor.md, "Digests")."""

import hashlib
import re
from typing import Any, Self

from mirror.oci.errors import DigestInvalid

# Registered algorithms and the length of their lower-case hex.
HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")
_DIGEST = re.compile("|".join(f"{algorithm}:[0-9a-f]{{{length}}}" for algorithm, length in HEX_LENGTH.items()))
# Any algorithm's (descriptor.md, the grammar there).
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


class Digest(str):
    """A checked digest. A string all the same: it compares, hashes and prints as `sha256:ab…`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DigestInvalid unless `text` is `algorithm:hex` of a registered algorithm and right length."""
        if _DIGEST.fullmatch(text) is None:
            raise DigestInvalid({"digest": text[:200]})
        return cls(text)

    @classmethod
    def parse_tag(cls, tag: str) -> Self | None:
        """The subject that a fallback tag `sha256-<hex>` names (distribution-spec, "Referrers Tag Schema")."""
        algorithm, dash, value = tag.partition("-")
        if not dash or HEX_LENGTH.get(algorithm) != len(value) or not _HEX.issuperset(value):
            return None
        return cls(f"{algorithm}:{value}")

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """The digest of `content`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def fallback_tag(self) -> str:
        """The tag under which a registry without the referrers API keeps what refers to this digest."""
        return f"{self.algorithm}-{self.hex}"

    def hasher(self) -> Any:
        """A fresh hash object of this digest's algorithm (`hashlib`)."""
        return hashlib.new(self.algorithm)

    def matches(self, content: bytes) -> bool:
        """Whether `content` is what this digest names."""
        return hashlib.new(self.algorithm, content).hexdigest() == self.hex


def is_of_other_algorithm(text: str) -> bool:
    """Whether this is a digest by the grammar, of an algorithm that is not known here."""
    return text.partition(":")[0] not in HEX_LENGTH and _GRAMMAR.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether a reference is meant as a digest: tags have no colon."""
    return ":" in text
