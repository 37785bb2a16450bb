"""Clients that ask a gateway without a pause. An answer comes whole and with status 200, or it is counted as lost."""

from __future__ import annotations

import socket
import threading


class Client(threading.Thread):
    """Asks, as often as it can, until it is told to stop. Failures are kept with what was being done."""

    def __init__(self, port: int, keeps: bool, stop: threading.Event) -> None:
        super().__init__()
        self._port = port
        self.keeps = keeps
        self._stop_event = stop
        self.answered = 0
        self.connections = 0
        self.lost: list[str] = []

    def run(self) -> None:
        while not self._stop_event.is_set():
            doing = "connecting"
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=30) as sock:
                    self.connections += 1
                    doing = "asking"
                    while self._ask(sock) and not self._stop_event.is_set():
                        pass
            except OSError as error:
                self.lost.append(f"{doing} {self.connections}: {error!r}")

    def _ask(self, sock: socket.socket) -> bool:
        """Returns whether the connection stays. Raises OSError if the answer is none."""
        fields = b"Host: a\r\n" if self.keeps else b"Host: a\r\nConnection: close\r\n"
        sock.sendall(b"GET /slow?ms=5 HTTP/1.1\r\n" + fields + b"\r\n")
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(sock, data)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.lower().split(b"\r\n")
        if not status.startswith(b"http/1.1 200"):
            raise OSError(f"answer {head!r}")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self._more(sock, body)
        self.answered += 1
        return self.keeps and b"connection: close" not in lines

    def _more(self, sock: socket.socket, so_far: bytes) -> bytes:
        more = sock.recv(65536)
        if not more:
            raise OSError(f"closed after {len(so_far)} bytes of an answer")
        return more
