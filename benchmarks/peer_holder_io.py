"""Connections that each made one request and then stay open, until this process is told to end.

    python -m benchmarks.peer_holder_io PORT COUNT ANSWER_BYTES

Prints one line of JSON when all are open, and a second one when its standard input ends: how many the proxy closed
meanwhile. A process of its own, because a process may not open as many files as all proxies' connections together.
"""

from __future__ import annotations

import json
import socket
import sys

from benchmarks.rows import REQUEST_HEADERS

IP_BIND_ADDRESS_NO_PORT = 24
"""Without it bind() takes a port for itself, whatever the destination (ip(7)); Python 3.11 has no name for it."""
CONNECTIONS_PER_ADDRESS = 5000


class WrongAnswer(Exception):
    """The proxy did not answer a request as it should."""


def open_one(port: int, source: str, request: bytes, answer_bytes: int) -> socket.socket:
    """Connect, make one request, read its answer; the connection stays open."""
    connection = socket.socket()
    connection.settimeout(10)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((source, 0))
    connection.connect(("127.0.0.1", port))
    connection.sendall(request)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + answer_bytes:
        data = connection.recv(65536)
        if not data:
            raise WrongAnswer("closed before the answer was complete")
        received += data
    if not received.startswith(b"HTTP/1.1 200"):
        raise WrongAnswer(repr(received[:60]))
    connection.setblocking(False)
    return connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def hold(port: int, count: int, answer_bytes: int) -> None:
    """Open all, say so, wait for the end of standard input, say how many are closed."""
    head = "".join(f"{name}: {value}\r\n" for name, value in REQUEST_HEADERS)
    request = f"GET / HTTP/1.1\r\n{head}\r\n".encode()
    connections: list[socket.socket] = []
    try:
        for index in range(count):
            source = f"127.0.0.{2 + index // CONNECTIONS_PER_ADDRESS}"
            connections.append(open_one(port, source, request, answer_bytes))
    except (OSError, WrongAnswer) as error:
        print(json.dumps({"error": f"connection {len(connections) + 1}: {error}"}), flush=True)
        return
    print(json.dumps({"open": count}), flush=True)
    sys.stdin.read()
    print(json.dumps({"closed": sum(map(is_closed, connections))}), flush=True)


if __name__ == "__main__":
    hold(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
