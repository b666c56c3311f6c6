"""Push, so that real clients can fill a hub (distribution-spec 1.1, "Pushing")."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from aiohttp import web

from mirror.oci import media_types
from mirror.oci.digest import Digest
from mirror.oci.errors import OciError
from mirror.oci.manifest import ManifestLinks
from tests.hub.content import Image
from tests.hub.delivery import Reply
from tests.hub.stored import Stored

if TYPE_CHECKING:
    from tests.hub.registry import Hub


async def read(request: web.BaseRequest) -> bytes:
    return b"".join([chunk async for chunk in request.content.iter_any()])


class Uploads:
    """Uploads in progress, by session."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._parts: dict[str, bytearray] = {}

    async def reply(self, request: web.BaseRequest, repository: str, kind: str, rest: str) -> Reply:
        if kind == "manifests" and request.method == "PUT":
            return await self._put_manifest(request, repository, rest)
        if kind != "uploads":
            return Reply(405, {"Allow": "GET, HEAD, PUT"})
        if request.method == "POST":
            return await self._start(request, repository)
        part = self._parts.get(rest)
        if part is None:
            return Reply(404)
        part += await read(request)
        if request.method == "PUT":
            del self._parts[rest]
            return self._finish(repository, bytes(part), request.query.get("digest", ""))
        return self._accepted(repository, rest)

    async def _start(self, request: web.BaseRequest, repository: str) -> Reply:
        mounted = request.query.get("mount")
        content = self._hub.blob_of(Digest(mounted)) if mounted else None
        if content is not None:
            return self._finish(repository, content, mounted or "")
        body = await read(request)
        if "digest" in request.query:
            return self._finish(repository, body, request.query["digest"])
        session = uuid4().hex
        self._parts[session] = bytearray(body)
        return self._accepted(repository, session)

    def _accepted(self, repository: str, session: str) -> Reply:
        location = f"{self._hub.prefix}/v2/{repository}/blobs/uploads/{session}"
        end = max(len(self._parts[session]) - 1, 0)
        return Reply(202, {"Location": location, "Range": f"0-{end}", "Docker-Upload-UUID": session})

    def _finish(self, repository: str, content: bytes, claimed: str) -> Reply:
        if not Digest.parse(claimed).matches(content):
            return Reply(400, body=b'{"errors": [{"code": "DIGEST_INVALID"}]}')
        self._hub.repositories.setdefault(repository, Stored()).blobs[Digest(claimed)] = content
        location = f"{self._hub.prefix}/v2/{repository}/blobs/{claimed}"
        return Reply(201, {"Location": location, "Docker-Content-Digest": claimed})

    async def _put_manifest(self, request: web.BaseRequest, repository: str, reference: str) -> Reply:
        content = await read(request)
        media_type = request.headers.get("Content-Type", media_types.OCI_MANIFEST)
        try:
            links = ManifestLinks.parse(content, media_type)
        except OciError:
            return _invalid()
        if links.media_type == media_types.OCI_ARTIFACT and not self._hub.artifact_manifests:
            return _invalid()
        image = Image(media_type, content, {})
        self._hub.keep(repository, image, None if ":" in reference else reference)
        headers = {"Docker-Content-Digest": str(image.digest)}
        headers["Location"] = f"{self._hub.prefix}/v2/{repository}/manifests/{image.digest}"
        if links.subject is not None and self._hub.referrers:
            headers["OCI-Subject"] = str(links.subject)
        return Reply(201, headers)


def _invalid() -> Reply:
    return Reply(400, {"Content-Type": "application/json"}, b'{"errors": [{"code": "MANIFEST_INVALID"}]}')
