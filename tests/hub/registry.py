"""The hub: a registry in memory, with what distribution-spec 1.1 says of pull, referrers, tags and push."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from mirror.oci import media_types
from mirror.oci.descriptor import Descriptor
from mirror.oci.digest import Digest
from mirror.oci.errors import OciError
from mirror.oci.manifest import ManifestLinks
from tests.content import encode
from tests.hub.auth import Basic, Bearer
from tests.hub.cdn import Cdn
from tests.hub.content import Image, build_image, build_index, build_reference
from tests.hub.delivery import Reply
from tests.hub.faults import EndlessPages, Fault
from tests.hub.push import Uploads
from tests.hub.ranges import ranged
from tests.hub.server import Server
from tests.hub.stored import Stored


def error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, body)


class Hub(Server):
    """A registry. Switches may be changed at any time.

    `current` is a registry that knows no references: no referrers API, artifact manifests refused.
    """

    def __init__(
        self,
        *,
        auth: Basic | Bearer | None = None,
        cdn: Cdn | None = None,
        current: bool = False,
        push: bool = True,
        page_size: int | None = None,
        prefix: str = "",
        ratelimit_remaining: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.repositories: dict[str, Stored] = {}
        self.auth = auth
        self.cdn = cdn
        self.referrers = not current
        self.artifact_manifests = not current
        self.page_size = page_size
        self.prefix = prefix
        self.ratelimit_remaining = ratelimit_remaining
        self.uploads = Uploads(self) if push else None
        if cdn is not None:
            cdn.blob_of = self.blob_of

    # Content ----------------------------------------------------------------------------------------------------

    def image(self, repository: str, tag: str | None = None, **options: Any) -> Image:
        """Build an image (`content.build_image`) and keep it."""
        files = options.pop("files", {"hello.txt": f"{repository}:{tag}\n".encode()})
        return self.keep(repository, build_image(files, **options), tag)

    def multi_platform(self, repository: str, tag: str, architectures: tuple[str, ...] = ("amd64", "arm64")) -> Image:
        """An index over one image per architecture."""
        images = {
            name: self.image(repository, files={"arch": f"{repository} {name}".encode()}, architecture=name)
            for name in architectures
        }
        return self.keep(repository, build_index(images), tag)

    def reference(self, repository: str, subject: Image, artifact_type: str, **options: Any) -> Image:
        """Something that refers to `subject`, pushed as a client would: with the fallback tag where needed."""
        content = options.pop("content", f"{artifact_type} of {subject.digest}".encode())
        image = self.keep(repository, build_reference(subject, artifact_type, content, **options))
        if not self.referrers:
            self._extend_fallback(repository, subject, image, artifact_type)
        return image

    def keep(self, repository: str, image: Image, tag: str | None = None) -> Image:
        """Keep a manifest and its blobs, at `tag` where one is given."""
        stored = self.repositories.setdefault(repository, Stored())
        stored.blobs.update(image.blobs)
        stored.manifests[image.digest] = (image.media_type, image.content)
        if tag is not None:
            stored.tags[tag] = image.digest
        return image

    def blob(self, repository: str, content: bytes) -> Digest:
        """Keep a blob by itself."""
        digest = Digest.of(content)
        self.repositories.setdefault(repository, Stored()).blobs[digest] = content
        return digest

    def blob_of(self, digest: Digest) -> bytes | None:
        return next((r.blobs[digest] for r in self.repositories.values() if digest in r.blobs), None)

    def _extend_fallback(self, repository: str, subject: Image, image: Image, artifact_type: str) -> None:
        stored = self.repositories[repository]
        tag, listed = subject.digest.fallback_tag, []
        if tag in stored.tags:
            listed = json.loads(stored.manifests[stored.tags[tag]][1])["manifests"]
        listed.append(image.descriptor(artifactType=artifact_type))
        document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
        self.keep(repository, Image(media_types.OCI_INDEX, encode(document), {}), tag)

    # Answers ----------------------------------------------------------------------------------------------------

    def kind_of(self, path: str) -> str:
        if path == "/token":
            return "token"
        kind = self._split(path)[1]
        return {"manifests": "manifest", "blobs": "blob", "": "ping"}.get(kind, kind)

    def _split(self, path: str) -> tuple[str, str, str]:
        """Repository, kind (manifests, blobs, uploads, tags, referrers, "" for the ping, other), rest."""
        if not path.startswith(f"{self.prefix}/v2/"):
            return "", "other", ""
        rest = path.removeprefix(f"{self.prefix}/v2/")
        if not rest:
            return "", "", ""
        repository, slash, upload = rest.partition("/blobs/uploads")
        if slash:
            return repository, "uploads", upload.strip("/")
        if rest.endswith("/tags/list"):
            return rest.removesuffix("/tags/list"), "tags", ""
        parts = rest.rsplit("/", 2)
        if len(parts) == 3 and parts[1] in ("manifests", "blobs", "referrers"):
            return parts[0], parts[1], parts[2]
        return "", "other", ""

    async def reply(self, request: web.BaseRequest, fault: Fault | None) -> Reply:
        path = request.raw_path.partition("?")[0]
        if path == "/token" and isinstance(self.auth, Bearer):
            return await self.auth.issuer.issue(request)
        repository, kind, rest = self._split(path)
        writes = request.method not in ("GET", "HEAD")
        refused = self._refused(request, repository, writes)
        if refused is not None:
            return refused
        if kind == "uploads" or writes:
            if self.uploads is None:
                return error(405, "UNSUPPORTED")
            return await self.uploads.reply(request, repository, kind, rest)
        if kind == "":
            return Reply(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}")
        stored = self.repositories.get(repository)
        if kind == "referrers" and not self.referrers:
            return Reply(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        if kind == "other":
            return Reply(404)
        if stored is None:
            return error(404, "NAME_UNKNOWN")
        match kind:
            case "manifests":
                return self._manifest(request, stored, rest)
            case "blobs":
                return self._blob(request, stored, rest)
            case "tags":
                return self._tags(request, repository, stored, fault)
            case _:
                return self._referrers(request, stored, rest, fault)

    def _refused(self, request: web.BaseRequest, repository: str, writes: bool) -> Reply | None:
        authorization = request.headers.get("Authorization", "")
        action = "push" if writes else "pull"
        match self.auth:
            case Basic() as basic if not basic.allows(authorization):
                return error(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="hub"'})
            case Bearer() as bearer if not bearer.issuer.allows(authorization, repository or None, action):
                actions = "pull,push" if writes else "pull"
                challenge = bearer.challenge(self.url, repository or None, actions)
                return error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return None

    def _manifest(self, request: web.BaseRequest, stored: Stored, reference: str) -> Reply:
        digest = stored.tags.get(reference) or Digest(reference)
        if digest not in stored.manifests:
            return error(404, "MANIFEST_UNKNOWN")
        media_type, content = stored.manifests[digest]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}
        if self.ratelimit_remaining is not None:
            headers |= {
                "RateLimit-Limit": "100;w=21600",
                "RateLimit-Remaining": f"{self.ratelimit_remaining};w=21600",
            }
        if request.method == "HEAD":
            return Reply(200, headers, length=len(content))
        return Reply(200, headers, content)

    def _blob(self, request: web.BaseRequest, stored: Stored, digest: str) -> Reply:
        content = stored.blobs.get(Digest(digest))
        if content is None:
            return error(404, "BLOB_UNKNOWN")
        if self.cdn is not None:
            return Reply(307, {"Location": self.cdn.sign(Digest(digest))})
        return ranged(request, content, {"ETag": f'"{digest}"', "Docker-Content-Digest": digest})

    def _tags(self, request: web.BaseRequest, repository: str, stored: Stored, fault: Fault | None) -> Reply:
        last = request.query.get("last", "")
        tags = sorted(tag for tag in stored.tags if tag > last)
        size = int(request.query.get("n", len(tags)))
        if self.page_size is not None:
            size = min(size, self.page_size)
        page, headers = tags[:size], {"Content-Type": "application/json"}
        if isinstance(fault, EndlessPages):
            page = [f"endless-{self.fresh_number()}"]
        if isinstance(fault, EndlessPages) and fault.elsewhere:
            headers["Link"] = f'<{fault.elsewhere}>; rel="next"'
        elif isinstance(fault, EndlessPages) or len(page) < len(tags):
            headers["Link"] = f'<{request.path}?n={size}&last={page[-1]}>; rel="next"'
        return Reply(200, headers, json.dumps({"name": repository, "tags": page}).encode())

    def _referrers(self, request: web.BaseRequest, stored: Stored, subject: str, fault: Fault | None) -> Reply:
        listed = [entry for entry in self._refer(stored) if entry[0] == subject]
        wanted, headers = request.query.get("artifactType"), {"Content-Type": media_types.OCI_INDEX}
        if wanted:
            listed = [entry for entry in listed if entry[1].artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        start = int(request.query.get("from", 0))
        size = self.page_size or max(len(listed), 1)
        if isinstance(fault, EndlessPages) or start + size < len(listed):
            headers["Link"] = f'<{request.path}?from={start + size}>; rel="next"'
        manifests = [descriptor.to_json() for _, descriptor in listed[start : start + size]]
        document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": manifests}
        return Reply(200, headers, encode(document))

    def _refer(self, stored: Stored) -> list[tuple[str, Descriptor]]:
        found = []
        for digest, (media_type, content) in stored.manifests.items():
            try:
                links = ManifestLinks.parse(content, media_type)
            except OciError:
                continue
            if links.subject is not None:
                descriptor = Descriptor(
                    media_type, digest, len(content), links.artifact_type, None, links.annotations or {}
                )
                found.append((str(links.subject), descriptor))
        return found
