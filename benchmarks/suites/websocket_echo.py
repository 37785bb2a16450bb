"""A WebSocket library through the tunnel: messages of many sizes, whole and fragmented, must come back unchanged.

Run: python3 -m benchmarks.suites.websocket_echo --gateway nginx
With --target the upstream has to be a WebSocket echo server.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
from collections.abc import Iterator

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from benchmarks.suites.common_io import Address, Verdict, arguments, report
from tests.support.gateway import Settings, running

SIZES = (0, 1, 2, 125, 126, 127, 128, 1000, 4095, 4096, 4097, 16384, 65535, 65536, 65537, 100_003, 1_000_000, 4_000_000)


def _echo(connection: ServerConnection) -> None:
    with contextlib.suppress(WebSocketException):
        for message in connection:
            connection.send(message)


@contextlib.contextmanager
def echo_server() -> Iterator[int]:
    """A WebSocket echo server on a free port."""
    with serve(_echo, "127.0.0.1", 0, max_size=2**24, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield int(server.socket.getsockname()[1])
        server.shutdown()
        thread.join(5)


def _pieces(message: bytes, count: int) -> Iterator[bytes]:
    step = max(1, -(-len(message) // count))
    for at in range(0, len(message), step):
        yield message[at : at + step]


def _try(connection: ClientConnection, size: int, fragments: int) -> Verdict:
    message = hashlib.shake_128(b"%d" % size).digest(size)
    connection.send(message if fragments == 1 else _pieces(message, fragments))
    name = f"{size} bytes in {fragments} fragments"
    try:
        got = connection.recv(timeout=10)
    except (TimeoutError, WebSocketException) as error:
        return Verdict(name, False, repr(error))
    return Verdict(name, got == message, f"{len(got)} bytes came back")


def run(address: Address) -> list[Verdict]:
    """All sizes, on one connection and on connections of their own; pings; a clean close."""
    url = f"ws://{address[0]}:{address[1]}/"
    verdicts: list[Verdict] = []
    with connect(url, compression=None, max_size=2**24) as connection:
        for size in SIZES:
            verdicts += [_try(connection, size, fragments) for fragments in (1, 2, 7, 50) if size >= fragments]
        verdicts.append(Verdict("ping", connection.ping().wait(5), ""))
    verdicts.append(Verdict("close", connection.close_code == 1000, f"code {connection.close_code}"))
    for size in SIZES:
        with connect(url, compression=None, max_size=2**24) as connection:
            verdicts.append(_try(connection, size, 1))
    return verdicts


def main() -> int:
    """Entry point."""
    options = arguments(__doc__ or "").parse_args()
    if options.target:
        host, _, port = options.target.rpartition(":")
        verdicts = run((host, int(port)))
    else:
        with echo_server() as port, running(port, Settings(access_log=False), options.gateway) as gateway:
            verdicts = run(gateway.address)
    return report(f"WebSocket echo, {options.gateway or options.target}", verdicts, options.verbose)


if __name__ == "__main__":
    sys.exit(main())
