"""Names, digests and documents, as hypothesis draws them; made from the grammars' text, not from the parsers."""

import string
from typing import Any

from hypothesis import strategies as st

from mirror.oci import media_types
from mirror.oci.digest import Digest

LOWER_DIGITS = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"

# distribution-spec 1.1: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
_words = st.text(LOWER_DIGITS, min_size=1, max_size=6)
_separators = st.sampled_from([".", "_", "__", "-", "--", "---"])
components = st.tuples(_words, st.lists(st.tuples(_separators, _words), max_size=2)).map(
    lambda drawn: drawn[0] + "".join(separator + word for separator, word in drawn[1])
)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)

# distribution-spec 1.1: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
_tag_letters = string.ascii_letters + string.digits + "_"
tags = st.tuples(st.sampled_from(_tag_letters), st.text(_tag_letters + ".-", max_size=127)).map("".join)

_labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
_domains = st.lists(_labels, min_size=2, max_size=4).map(".".join)
_ports = st.integers(1, 65535).map(str)
hosts = st.one_of(
    _domains,
    st.tuples(st.one_of(_domains, _labels, st.just("localhost"), st.just("[::1]")), _ports).map(":".join),
    st.sampled_from(["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO", "a.b:443", "one:443"]),
)

digests = st.binary(max_size=8).flatmap(
    lambda content: st.sampled_from(["sha256", "sha512"]).map(lambda algorithm: Digest.of(content, algorithm))
)

# Any JSON, NaN and lone surrogates included: Python reads and writes them.
_text = st.text(max_size=12) | st.text(st.characters(categories=["Cs"]), max_size=2)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)

_type_texts = st.sampled_from([*sorted(media_types.MANIFESTS), media_types.OCI_CONFIG, "", "text/plain"]) | _text
descriptor_documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"digest": digests | _text | json_values, "size": st.integers(-2, 9) | json_values},
    optional={
        "mediaType": _type_texts | json_values,
        "artifactType": _text | json_values,
        "platform": json_values,
        "annotations": st.dictionaries(_text, _text | json_values, max_size=2) | json_values,
    },
)
_listed = st.lists(descriptor_documents | json_values, max_size=3) | json_values
# What looks like a manifest and has something wrong somewhere.
manifest_documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": json_values,
        "mediaType": _type_texts | json_values,
        "artifactType": _text | json_values,
        "config": descriptor_documents | json_values,
        "layers": _listed,
        "blobs": _listed,
        "manifests": _listed,
        "subject": descriptor_documents | json_values,
        "refers": descriptor_documents | json_values,
        "annotations": st.dictionaries(_text, _text | json_values, max_size=2) | json_values,
    },
)
