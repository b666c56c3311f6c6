"""A token service whose tokens distribution believes: JSON Web Tokens, signed with a certificate it is told of."""

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.hub import Basic, TokenIssuer
from tests.hub.delivery import Reply

ISSUER, SERVICE = "tests", "registry of the tests"


def _unpadded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class SignedTokens(TokenIssuer):
    """Gives out what distribution's token specification describes (distribution/docs/spec/auth/jwt.md)."""

    def __init__(self, folder: Path, user: Basic | None) -> None:
        super().__init__(user)
        self._key, self.certificate = folder / "token.key", folder / "token.crt"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", "/CN=tokens"),
            *("-keyout", self._key, "-out", self.certificate),
        )
        pem = self.certificate.read_text().partition("-----BEGIN CERTIFICATE-----")[2]
        self._der = "".join(pem.partition("-----END")[0].split())

    def auth(self, realm: str) -> dict[str, Any]:
        """The `auth` of a registry that believes these tokens."""
        bundle = {"issuer": ISSUER, "service": SERVICE, "rootcertbundle": str(self.certificate)}
        return {"token": {"realm": realm, **bundle}}

    async def issue(self, request: web.BaseRequest) -> Reply:
        reply = await super().issue(request)
        if reply.status != 200:
            return reply
        document = json.loads(bytes(reply.body))
        document["token"] = self._sign(request.query.getall("scope", []))
        return Reply(200, reply.headers, json.dumps(document).encode())

    def _sign(self, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": "", "aud": SERVICE, "nbf": now - 5, "iat": now, "exp": now + 300}
        claims |= {"jti": str(time.time_ns()), "access": access}
        head = {"typ": "JWT", "alg": "RS256", "x5c": [self._der]}
        signed = ".".join(_unpadded(json.dumps(part).encode()) for part in (head, claims))
        signature = self._openssl("dgst", "-sha256", "-sign", self._key, text=signed.encode())
        return f"{signed}.{_unpadded(signature)}"

    @staticmethod
    def _openssl(*arguments: object, text: bytes = b"") -> bytes:
        return subprocess.run(
            ["openssl", *map(str, arguments)], input=text, check=True, capture_output=True, timeout=30
        ).stdout
