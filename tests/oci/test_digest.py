"""Digests (image-spec 1.1, descriptor.md, "Digests" and "Registered Algorithms")."""

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.oci.digest import Digest, is_digest
from mirror.oci.errors import DigestInvalid
from tests.oci.strategies import HEX, digests, tags

# "sha256: /[a-f0-9]{64}/", "sha512: /[a-f0-9]{128}/"
MODEL = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")

nearly = st.tuples(
    st.sampled_from(["sha256", "sha512", "SHA256", "sha384", "sha1", "md5", "blake3", "sha256+b64", ""]),
    st.sampled_from([":", "-", "::", "", ": "]),
    st.sampled_from([32, 40, 63, 64, 65, 96, 127, 128, 129]).flatmap(
        lambda size: (
            st.text(HEX, min_size=size, max_size=size) | st.text(HEX + "Ag/.\n", min_size=size, max_size=size)
        )
    ),
).map("".join)


@given(st.text() | nearly | digests)
@example("sha256:" + "a" * 63 + "٣")
@example("sha256:" + "a" * 64 + "\n")
@example("sha256:" + "A" * 64)
def test_what_the_registered_algorithms_write_is_a_digest_and_nothing_else(text: str) -> None:
    if MODEL.fullmatch(text):
        assert Digest.parse(text) == text
    else:
        with pytest.raises(DigestInvalid):
            Digest.parse(text)


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_names_its_bytes_and_no_others(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    assert Digest.parse(digest) == digest
    assert (digest.algorithm, digest.hex) == tuple(digest.split(":"))
    assert digest.matches(content)
    assert not digest.matches(content + b"\0")
    hasher = digest.hasher()
    hasher.update(content)
    assert hasher.hexdigest() == digest.hex


@given(digests)
def test_a_fallback_tag_names_the_subject_that_it_was_made_for(digest: Digest) -> None:
    assert digest.fallback_tag == digest.replace(":", "-")
    assert Digest.parse_tag(digest.fallback_tag) == digest


@given(st.text() | tags | nearly)
def test_other_tags_name_no_subject(tag: str) -> None:
    if not MODEL.fullmatch(tag.replace("-", ":", 1)) or ":" in tag:
        assert Digest.parse_tag(tag) is None


@given(digests, tags)
def test_a_tag_is_never_taken_for_a_digest(digest: Digest, tag: str) -> None:
    assert is_digest(digest)
    assert not is_digest(tag)
