"""A certificate authority of the tests' own, made with the openssl command."""

import ssl
import subprocess
from pathlib import Path


class Authority:
    """A CA in `folder`; `ca` is its certificate (PEM)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._key = folder / "ca.key"
        # Python 3.13 refuses an authority that does not say what its key is for (RFC 5280, 4.2.1.3).
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        self._openssl(
            *("req", "-x509", *self._new_key(self._key), "-subj", "/CN=test CA", "-addext", usage),
            *("-days", "2", "-out", self.ca),
        )

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """Certificate and key for `name`, and for these IP addresses."""
        key, request, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
        self._openssl("req", *self._new_key(key), "-subj", f"/CN={name}", "-out", request)
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "2", "-extfile", extensions, "-out", certificate),
        )
        return certificate, key

    def server_context(self, *, client_certificates: bool = False) -> ssl.SSLContext:
        """For a server on 127.0.0.1 or ::1; with `client_certificates` it asks for one of this CA."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.issue("localhost", "127.0.0.1", "::1"))
        if client_certificates:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @staticmethod
    def _new_key(key: Path) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key)]

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
