"""HTTP over the admin socket, for commands."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("edgeq", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def post(path: str, target: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """POST to the admin socket at `path`; see `ask`."""
    return ask(path, "POST", target, timeout_s)


def ask(path: str, method: str, target: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Send a request to the admin socket at `path`. Returns status and the JSON object of the answer.

    Raises OSError if nobody listens there, the answer takes too long, or it is no HTTP with a JSON object.
    """
    status, _media, text = _ask(path, method, target, timeout_s)
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise OSError("no admin socket of edgeq: the answer is no JSON") from error
    if not isinstance(answer, dict):
        raise OSError("no admin socket of edgeq: the answer is no JSON object")
    return status, answer


def get(path: str, target: str, timeout_s: float) -> tuple[int, str, bytes]:
    """GET from the admin socket at `path`. Returns status, media type and content.

    Raises OSError if nobody listens there, the answer takes too long, or it is no HTTP.
    """
    return _ask(path, "GET", target, timeout_s)


def send(path: str, method: str, target: str, timeout_s: float) -> tuple[int, str, bytes]:
    """The same with any method."""
    return _ask(path, method, target, timeout_s)


@contextmanager
def follow(path: str, target: str, silence_s: float) -> Iterator[tuple[int, str, Iterable[bytes]]]:
    """GET what has no end from the admin socket at `path`: status, media type and lines as they come.

    Raises OSError if nobody listens there, it is silent for too long, or it is no HTTP.
    """
    connection = _UnixConnection(path, silence_s)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        yield response.status, response.headers.get("Content-Type", ""), response
    except http.client.IncompleteRead:
        pass  # the gateway has gone, without the last chunk
    except http.client.HTTPException as error:
        raise OSError(f"no admin socket of edgeq: {type(error).__name__}") from error
    finally:
        connection.close()


def tell(path: str, line: str, timeout_s: float) -> str:
    """The answer to a line of text: what people read. Raises OSError if nobody answers in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(path)
        sock.sendall(f"{line}\n".encode())
        parts = []
        while data := sock.recv(65536):
            parts.append(data)
    return b"".join(parts).decode(errors="replace")


def _ask(path: str, method: str, target: str, timeout_s: float) -> tuple[int, str, bytes]:
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request(method, target, headers={} if method == "GET" else {"Content-Length": "0"})
        response = connection.getresponse()
        return response.status, response.headers.get("Content-Type", ""), response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no admin socket of edgeq: {type(error).__name__}") from error
    finally:
        connection.close()
