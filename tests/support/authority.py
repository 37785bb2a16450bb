"""A certification authority for tests, made by the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """Issues certificates of servers into its directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self.path = directory / f"{name}.pem"
        """What clients are to trust."""
        self._openssl("req", "-x509", *_CURVE, "-days", "2", *self._to(name, name))

    def issue(self, name: str, days: int = 2) -> ssl.SSLContext:
        """A server's context with a certificate for this name; with negative days it has expired already."""
        return self._context(self._certify(name, days))

    def pair(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate for this name, and of its key: for a client, say."""
        file = self._certify(name, 2)
        return self._directory / f"{file}.pem", self._directory / f"{file}.key"

    def _certify(self, name: str, days: int) -> str:
        file = f"{self._name}-{name}-{days}"
        (self._directory / f"{file}.ext").write_text(f"subjectAltName=DNS:{name}\nauthorityKeyIdentifier=keyid\n")
        self._openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", f"{file}.key", "-out", f"{file}.csr")
        by = ("-CA", self.path.name, "-CAkey", f"{self._name}.key", "-CAcreateserial", "-extfile", f"{file}.ext")
        self._openssl("x509", "-req", "-in", f"{file}.csr", *by, "-days", str(days), "-out", f"{file}.pem")
        return file

    def self_signed(self, name: str) -> ssl.SSLContext:
        """A context with a certificate that nobody has issued."""
        file = f"self-{name}"
        self._openssl("req", "-x509", *_CURVE, "-addext", f"subjectAltName=DNS:{name}", *self._to(file, name))
        return self._context(file)

    def _context(self, file: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / f"{file}.pem", self._directory / f"{file}.key")
        return context

    def _to(self, file: str, name: str) -> tuple[str, ...]:
        return ("-subj", f"/CN={name}", "-keyout", f"{file}.key", "-out", f"{file}.pem")

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self._directory, check=True, capture_output=True, timeout=60)
