"""What hangs on an image, as people's tools push it and as they look for it: cosign, oras, regctl, crane."""

import json
from dataclasses import dataclass

from mirror.oci.digest import Digest
from tests.clients import sample
from tests.clients.commands import Commands

TOOLS = ("cosign", "oras", "regctl", "crane")
SPDX = "application/spdx+json"
SCAN = "application/vnd.example.scan"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# cosign 2 keeps what hangs on an image below tags, cosign 3 and all others as its referrers.
BY_TAG, BY_SUBJECT = "team/by-tag", "team/by-subject"
ENDS = (".sig", ".att", ".sbom")
_INSECURE = ("--allow-http-registry", "--allow-insecure-registry")


@dataclass(frozen=True)
class Pushed:
    """Digests of what was pushed: `tagged` by the end of its tag; `listed` what refers to the image itself."""

    tagged: dict[str, str]
    listed: frozenset[str]
    sbom: str
    # Refers to the SBOM.
    scan: str


class Signer:
    """Makes keys once, then signs what is pushed and verifies what is found."""

    def __init__(self, run: Commands) -> None:
        self._run = Commands({**run.environment, "COSIGN_PASSWORD": "secret"})
        self._key = run.home / "key"
        self._run("cosign", "generate-key-pair", f"--output-key-prefix={self._key}")
        # What cosign would fetch from its makers: no transparency log, nobody else's roots.
        self._config, self._root = run.home / "signing.json", run.home / "root.json"
        self._config.write_text(self._run("cosign", "signing-config", "create"))
        self._root.write_text(self._run("cosign", "trusted-root", "create"))
        self._sbom = run.home / "sbom.json"
        self._sbom.write_text('{"spdxVersion": "SPDX-2.3"}')

    def push(self, host: str) -> Pushed:
        """Push the sample to both repositories of a registry, and what hangs on it."""
        run = self._run
        run("regctl", "registry", "set", "--tls=disabled", host)
        for repository in (BY_TAG, BY_SUBJECT):
            run("regctl", "image", "copy", f"ocidir://{sample.LAYOUT}:latest", f"{host}/{repository}:latest")
        self._push_by_tag(f"{host}/{BY_TAG}@{sample.INDEX}")
        self._push_by_subject(host)
        tag = f"{host}/{BY_TAG}:{sample.INDEX.fallback_tag}"
        tagged = {end: run("crane", "digest", f"{tag}{end}") for end in ENDS}
        listed = referrers(run, f"{host}/{BY_SUBJECT}:latest")
        (sbom,) = [digest for digest, artifact_type in listed.items() if artifact_type == SPDX]
        assert sorted(listed.values()) == sorted([SPDX, BUNDLE, BUNDLE])
        (scan,) = referrers(run, f"{host}/{BY_SUBJECT}@{sbom}")
        return Pushed(tagged, frozenset(listed), sbom, scan)

    def _push_by_tag(self, image: str) -> None:
        old = ("--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false")
        mine = ("--yes", "--key", f"{self._key}.key", *old, *_INSECURE)
        self._run("cosign", "sign", *mine, image)
        self._run("cosign", "attest", *mine, "--type", "spdxjson", "--predicate", self._sbom, image)
        self._run("cosign", "attach", "sbom", "--sbom", self._sbom, "--type", "spdx", *_INSECURE, image)

    def _push_by_subject(self, host: str) -> None:
        run, image = self._run, f"{host}/{BY_SUBJECT}@{sample.INDEX}"
        new = ("--signing-config", self._config, "--trusted-root", self._root)
        mine = ("--yes", "--key", f"{self._key}.key", *new, *_INSECURE)
        run("cosign", "sign", *mine, image)
        run("cosign", "attest", *mine, "--type", "spdxjson", "--predicate", self._sbom, image)
        attach = ("oras", "attach", "--plain-http", "--no-tty", "--disable-path-validation")
        said = run(
            *(*attach, "--format", "json", "--artifact-type", SPDX, image, f"{self._sbom}:{SPDX}"),
        )
        sbom = json.loads(said)["digest"]
        put = ("regctl", "artifact", "put", "--artifact-type", SCAN, "--file", self._sbom)
        run(*put, "--subject", f"{host}/{BY_SUBJECT}@{sbom}")

    def finds(self, prefix: str, pushed: Pushed) -> None:
        """Everybody's way to everything, in both repositories below `prefix` (`host:port` and what follows it)."""
        self._run("regctl", "registry", "set", "--tls=disabled", prefix.partition("/")[0])
        for repository in (BY_TAG, BY_SUBJECT):
            self.verify(f"{prefix}/{repository}:latest")
        self._finds_tags(f"{prefix}/{BY_TAG}", pushed)
        self._finds_referrers(f"{prefix}/{BY_SUBJECT}", pushed)
        self._gets_the_sbom(f"{prefix}/{BY_SUBJECT}")

    def verify(self, image: str) -> None:
        """The signature and the attestation."""
        known = ("--key", f"{self._key}.pub", "--insecure-ignore-tlog", *_INSECURE)
        claims = json.loads(self._run("cosign", "verify", "--output=json", *known, image))
        assert {claim["critical"]["image"]["docker-manifest-digest"] for claim in claims} == {sample.INDEX}
        self._run("cosign", "verify-attestation", "--type", "spdxjson", *known, image)

    def _finds_tags(self, repository: str, pushed: Pushed) -> None:
        run, image = self._run, f"{repository}:latest"
        tree = run("cosign", "tree", *_INSECURE, image)
        graph = run("regctl", "artifact", "tree", "--digest-tags", image)
        tags = run("crane", "ls", repository).splitlines()
        for end, digest in pushed.tagged.items():
            tag = f"{sample.INDEX.fallback_tag}{end}"
            assert tag in tags
            assert tag in tree
            assert digest in graph
            assert run("crane", "digest", f"{repository}:{tag}") == digest

    def _finds_referrers(self, repository: str, pushed: Pushed) -> None:
        run, image = self._run, f"{repository}:latest"
        tree = run("cosign", "tree", *_INSECURE, image)
        graph = run("regctl", "artifact", "tree", image)
        for digest in pushed.listed:
            assert digest in tree
        for digest in (*pushed.listed, pushed.scan):
            assert digest in graph
        assert referrers(run, image).keys() == pushed.listed
        assert referrers(run, image, "--filter-artifact-type", SPDX) == {pushed.sbom: SPDX}
        for spec in (
            (),
            ("--distribution-spec", "v1.1-referrers-api"),
            ("--distribution-spec", "v1.1-referrers-tag"),
        ):
            discover = ("oras", "discover", "--plain-http", "--format", "json", *spec)
            found = json.loads(run(*discover, image))["referrers"]
            assert {one["digest"] for one in found} == pushed.listed, spec
            (below,) = [one["referrers"] for one in found if one["digest"] == pushed.sbom]
            assert [one["digest"] for one in below] == [pushed.scan], spec
            only = json.loads(run(*discover, "--artifact-type", SPDX, image))["referrers"]
            assert [one["digest"] for one in only] == [pushed.sbom], spec
        # crane knows of no referrers: it has the index below their tag.
        index = json.loads(run("crane", "manifest", f"{repository}:{sample.INDEX.fallback_tag}"))
        assert {one["digest"] for one in index["manifests"]} == pushed.listed

    def _gets_the_sbom(self, repository: str) -> None:
        asked = ("--subject", f"{repository}:latest", "--filter-artifact-type", SPDX)
        assert self._run("regctl", "artifact", "get", *asked) == self._sbom.read_text()


def referrers(run: Commands, image: str, *options: str) -> dict[str, str]:
    """What refers to an image, as regctl lists it: digest and artifact type."""
    said = run("regctl", "artifact", "list", "--format", "{{json .Descriptors}}", *options, image)
    return {str(Digest.parse(one["digest"])): one["artifactType"] for one in json.loads(said) or ()}
