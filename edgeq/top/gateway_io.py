"""What a gateway tells on its admin socket: the same JSON as `edgeq show`, and what `explain` says as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from edgeq.admin.render import Record
from edgeq.cli import admin_client_io
from edgeq.cli.arguments import NoAnswer
from edgeq.errors import EXIT_DENIED, EdgeqError
from edgeq.top.model import Snapshot

TIMEOUT_S: Final = 5.0
_UNKNOWN: Final = "error: unknown command"


class Unreachable(NoAnswer):
    """Nobody answers at `path`; it may come back."""

    def __init__(self, path: str, error: Exception) -> None:
        self.reason: str = getattr(error, "strerror", None) or str(error) or type(error).__name__
        super().__init__(path, error)


class Denied(EdgeqError):
    """The gateway does not let this user read."""

    exit_code = EXIT_DENIED


class Gateway:
    """One, by the path of its admin socket. The methods block."""

    def __init__(self, path: str) -> None:
        self.path = path

    def look(self) -> Snapshot:
        """How it is now. Raises Unreachable, Denied."""
        version = self._get("version")
        if not isinstance(version, dict) or "version" not in version:
            raise Unreachable(self.path, OSError("whoever answers there is not edgeq"))
        return Snapshot(str(version["version"]), *map(self._get, ("queues", "upstreams", "reasons", "workers")))

    def explain(self, resource: str) -> str:
        """What `explain` says of a resource; that it knows no such command, if so. Raises Unreachable."""
        try:
            text = admin_client_io.tell(self.path, f"explain {resource}", TIMEOUT_S)
        except OSError as error:
            raise Unreachable(self.path, error) from error
        return "This gateway has no command 'explain': it is of an older version." if _UNKNOWN in text else text

    def connections(self) -> Sequence[Record]:
        """Those of clients, a hundred at most. Raises Unreachable, Denied."""
        found: Sequence[Record] = self._get("connections?count=100")
        return found

    def _get(self, subject: str) -> Any:
        try:
            status, _media, text = admin_client_io.get(self.path, f"/v1/{subject}", TIMEOUT_S)
            body = json.loads(text)
        except (OSError, ValueError) as error:
            raise Unreachable(self.path, error) from error
        if status == 200:
            return body
        said = body.get("error") if isinstance(body, dict) else None
        if status == 403:
            raise Denied(said or "not allowed")
        raise Unreachable(self.path, OSError(said or f"it answered with status {status}"))
