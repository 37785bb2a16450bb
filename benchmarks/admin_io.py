"""edgeq's admin socket, as a measurement reads and changes it, without edgeq's own packages."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

TIMEOUT_S = 30.0


class Admin(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("edgeq", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)

    def show(self, subject: str) -> list[dict[str, Any]]:
        """A table of `edgeq show`. Raises: RuntimeError if it was refused."""
        self.request("GET", f"/v1/{subject}", headers={"Connection": "keep-alive"})
        answer = self.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"show {subject}: {said[:300]!r}")
        found: list[dict[str, Any]] = json.loads(said)
        return found

    def set(self, resource: str, key: str, value: object) -> None:
        """Change something until the next reload. Raises: RuntimeError if it was refused, or not everywhere yet."""
        target = f"/v1/changes?resource={resource}&key={key}&value={value}"
        self.request("PUT", target, headers={"Connection": "keep-alive", "Content-Length": "0"})
        answer = self.getresponse()
        said = answer.read()
        if answer.status != 200 or "behind" in json.loads(said):
            raise RuntimeError(said.decode())
