"""What is asked in the bench."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.content import APP, MANY, MIB, ONE, Content
from tests.bench.servers import LOGGING, PROXIED, SENDER

CONTAINERD = {
    "User-Agent": "containerd/2.0.0",
    "Accept": "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.oci.image.index.v1+json, */*",
    "Accept-Encoding": "gzip",
}
# distribution hides OCI manifests from those who do not say that they know them.
PLAIN = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
REVALIDATES = "If-None-Match"


@dataclass(frozen=True)
class Case:
    """One question. An `If-None-Match` without a value gets each server's own ETag.

    `static` is the path for a file server, where the target's own would not do: it knows no query.
    """

    name: str
    target: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = 32
    # Of the client.
    threads: int = 2
    static: str | None = None
    only_mirror: bool = False
    # A server that is asked only such cases.
    also: str | None = None

    @property
    def static_path(self) -> str:
        return self.static or self.target.partition("?")[0]


def cases(content: Content) -> list[Case]:
    """Every case, in the order of the table."""
    tag = f"/v2/{APP}/manifests/1.0"
    digest = f"/v2/{APP}/manifests/{content.image.digest}"
    blob = f"/v2/{APP}/blobs"
    hub = "/v2/library/base/manifests/v00000?ns=docker.io"
    proxied = f"?ns={PROXIED}"
    return [
        Case("GET manifest by tag", tag, headers=PLAIN, also=LOGGING),
        Case("HEAD manifest by tag", tag, "HEAD", PLAIN, also=LOGGING),
        Case("GET manifest by digest", digest, headers=PLAIN),
        Case("HEAD manifest by digest", digest, "HEAD", PLAIN),
        Case("GET manifest, containerd", tag, headers=CONTAINERD),
        Case("HEAD manifest, containerd", tag, "HEAD", CONTAINERD),
        Case("HEAD manifest with ns", hub, "HEAD", CONTAINERD, only_mirror=True),
        Case("GET manifest with ns", hub, headers=CONTAINERD, only_mirror=True),
        Case("manifest, 304", tag, headers={**PLAIN, REVALIDATES: ""}),
        Case("blob of 4 KiB", f"{blob}/{content.small}"),
        Case("blob of 1 MiB", f"{blob}/{content.medium}"),
        Case("1 MiB of a big blob", f"{blob}/{content.big}", headers={"Range": f"bytes={7 * MIB}-{8 * MIB - 1}"}),
        Case("big blob", f"{blob}/{content.big}", connections=4, also=SENDER),
        Case("big blob, client on one core", f"{blob}/{content.big}", threads=1, also=SENDER),
        Case("/v2/", "/v2/", static="/v2/index"),
        Case("tags, 1 of 1", f"/v2/{ONE}/tags/list?n=1"),
        Case("tags, 1 of 20,000", f"/v2/{MANY}/tags/list?n=1"),
        Case("tags, 100 of 20,000", f"/v2/{MANY}/tags/list?n=100&last=v10000", static=f"/v2/{MANY}/tags/hundred"),
        Case("manifest of 20,000", f"/v2/{MANY}/manifests/v10000", headers=PLAIN),
        Case("referrers", f"/v2/{APP}/referrers/{content.image.digest}"),
        Case("warm proxied tag", tag + proxied, only_mirror=True),
        Case("warm proxied 4 KiB", f"{blob}/{content.small}{proxied}", only_mirror=True),
        Case("warm proxied 1 MiB", f"{blob}/{content.medium}{proxied}", only_mirror=True),
    ]
