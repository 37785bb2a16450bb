"""A WebSocket server of the `websockets` library, in threads.

/ws/echo               every message comes back
/ws/frames             answers each message by the sizes of the frames that it came in, as JSON
/ws/fragments          answers each message by its characters, each in a frame of its own
/ws/close/CODE/REASON  closes first
/ws/cut                breaks the connection without a word
/ws/forbidden          refuses the handshake
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve


class Chat:
    """What the handlers have seen."""

    def __init__(self) -> None:
        self.port = 0
        self.ends: list[tuple[str, int, str]] = []
        """Path, code and reason of each end, as the server saw it; 1006 if there was no closing handshake."""
        self.changed = threading.Condition()

    def handle(self, connection: ServerConnection) -> None:
        """One connection."""
        assert connection.request is not None
        path = connection.request.path
        words = path.split("/")
        with contextlib.suppress(ConnectionClosed):
            if words[2] == "close":
                connection.close(int(words[3]), words[4])
            elif words[2] == "cut":
                connection.socket.shutdown(socket.SHUT_RDWR)
            elif words[2] == "frames":
                while True:
                    sizes = [len(frame) for frame in connection.recv_streaming()]
                    connection.send(json.dumps(sizes))
            elif words[2] == "fragments":
                while True:
                    connection.send(list(connection.recv(decode=True)))
            else:
                for message in connection:
                    connection.send(message)
        with contextlib.suppress(ConnectionClosed):
            connection.recv()  # until the closing handshake is done
        with self.changed:
            code = connection.protocol.close_code or 0
            self.ends.append((path, code, connection.protocol.close_reason or ""))
            self.changed.notify_all()

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """Some are not let in."""
        if request.path == "/ws/forbidden":
            return connection.respond(HTTPStatus.FORBIDDEN, "not you\n")
        return None

    def wait_end(self, path: str) -> tuple[int, str]:
        """Wait until a connection with this path has ended."""

        def found() -> list[tuple[str, int, str]]:
            return [end for end in self.ends if end[0] == path]

        with self.changed:
            assert self.changed.wait_for(lambda: bool(found()), 30), self.ends
            return found()[0][1:]


@contextlib.contextmanager
def chat() -> Iterator[Chat]:
    """A running server."""
    made = Chat()
    with serve(made.handle, "127.0.0.1", 0, process_request=made.refuse, max_size=2**25, close_timeout=5) as server:
        made.port = server.socket.getsockname()[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join(30)
