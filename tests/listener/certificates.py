"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeq.config.schema import Certificate

EC = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("rsa:2048",)


@dataclass(frozen=True)
class Made:
    """A self-signed certificate, which is also its own CA."""

    path: Path
    key: Path

    @property
    def config(self) -> Certificate:
        """As the configuration names it."""
        return Certificate(certificate=str(self.path), key=str(self.key))


def make(
    directory: Path, file: str, *names: str, common_name: str = "", algorithm: tuple[str, ...] = EC, extra: str = ""
) -> Made:
    """A certificate for `names` (DNS), without subjectAltName if there are none."""
    made = Made(directory / f"{file}.pem", directory / f"{file}.key")
    alternative = ",".join(f"DNS:{name}" for name in names) + extra
    command = ["openssl", "req", "-x509", "-newkey", *algorithm, "-nodes", "-days", "2"]
    command += ["-keyout", str(made.key), "-out", str(made.path), "-subj", f"/O=Test/CN={common_name or file}"]
    if alternative:
        command += ["-addext", f"subjectAltName={alternative}"]
    subprocess.run(command, check=True, capture_output=True)
    return made
