"""Clients that keep a gateway busy while a test changes something: bounded, patient, and exact about what they saw.

Each client sends one request at a time and checks its answer. What it counts as a failure is only what a gateway must
never do: a connection that ends without a word, an answer that is wrong or cut. Ends that were announced
(`Connection: close`) and a FIN while the client was silent are counted on their own.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TIMEOUT_S = 30.0
"""For an answer on a machine of any speed."""
_PACE_MS = 5
_MOST = 5000
"""Requests of one client."""
Connect = Callable[[], socket.socket]


class Closed(Exception):
    """The connection ended within an exchange; the message says where."""


def to(host: str, port: int) -> Connect:
    """Connects to a TCP address."""
    return lambda: socket.create_connection((host, port), timeout=TIMEOUT_S)


def exchange(sock: socket.socket, path: str, close: bool = False) -> tuple[int, dict[str, str], bytes]:
    """One GET on an open connection: status, fields in lower case, body. Raises Closed."""
    begin(sock, path, close)
    return finish(sock)


def begin(sock: socket.socket, path: str, close: bool = False) -> None:
    """Send a GET. Raises Closed."""
    end = "Connection: close\r\n\r\n" if close else "\r\n"
    try:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: gateway.test\r\n{end}".encode())
    except OSError as error:
        raise Closed(f"while sending: {error!r}") from error


def finish(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read an answer with Content-Length. Raises Closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(sock, data)
    raw, _, body = data.partition(b"\r\n\r\n")
    lines = raw.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(fields["content-length"]):
        body += _more(sock, data)
    return int(lines[0].split()[1]), fields, body


def _is_ended(sock: socket.socket) -> bool:
    """Whether a readable connection has had its FIN (of TLS it may be a session ticket). Raises Closed for bytes."""
    sock.settimeout(0)
    try:
        if sock.recv(1):
            raise Closed("bytes that nobody asked for")
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    finally:
        sock.settimeout(TIMEOUT_S)
    return True


def _more(sock: socket.socket, before: bytes) -> bytes:
    try:
        data = sock.recv(65536)
    except OSError as error:
        raise Closed(f"after {before[:200]!r}: {error!r}") from error
    if not data:
        raise Closed(f"FIN after {before[:200]!r}")
    return data


class Client(threading.Thread):
    """Requests one after the other until told to stop, each for a path of its own, which the answer must repeat.

    `kept`: on one connection as long as the gateway keeps it; otherwise on a new connection each.
    """

    def __init__(self, connect: Connect, name: str, stop: threading.Event, kept: bool, prefix: str = "") -> None:
        super().__init__(name=name, daemon=True)
        self._connect = connect
        self._stop_event = stop
        self._kept = kept
        self._prefix = prefix
        self.connections = 0
        self.served = 0
        self.announced = 0
        """Ends of kept connections after `Connection: close`."""
        self.idle_ends = 0
        """FINs while nothing was asked."""
        self.turned_away = False
        """Connecting was refused: the gateway does not listen any more."""
        self.failures: list[str] = []
        self.failed_ports: list[int] = []
        """Own ports of the connections of failures."""
        self.longest_silence_s = 0.0
        """Between an answer and the next request: a client that the machine has held up may meet an idle time-out."""

    def run(self) -> None:
        while not self._stop_event.is_set() and self.served < _MOST and len(self.failures) < 100:
            try:
                sock = self._connect()
            except (ConnectionRefusedError, FileNotFoundError):  # the latter: a Unix socket that is gone
                self.turned_away = True
                return
            except OSError as error:
                self.failures.append(f"connect: {error!r}")
                continue
            self.connections += 1
            with sock:
                self._talk(sock)

    def _talk(self, sock: socket.socket) -> None:
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        quiet_since = time.monotonic()
        while not self._stop_event.is_set():
            path = f"{self._prefix}/{self.name}/{self.served + len(self.failures)}"
            try:
                if poller.poll(_PACE_MS if self._kept else 0) and _is_ended(sock):
                    self.idle_ends += 1
                    return
                self.longest_silence_s = max(self.longest_silence_s, time.monotonic() - quiet_since)
                status, fields, body = exchange(sock, path, not self._kept)
                if status != 200 or body != path.encode():
                    raise Closed(f"answer {status} {body[:200]!r}")
            except (Closed, OSError) as error:
                self.failures.append(f"{path}: {error!r}")
                with contextlib.suppress(OSError):
                    self.failed_ports.append(sock.getsockname()[1])
                return
            quiet_since = time.monotonic()
            self.served += 1
            if not self._kept:
                return
            if fields.get("connection", "").lower() == "close":
                self.announced += 1
                return


class Load:
    """Clients that run."""

    def __init__(self, connects: Sequence[Connect], kept: int, new: int, prefix: str = "") -> None:
        """`kept` and `new` clients for each way to connect."""
        self._stop_event = threading.Event()
        self.kept = [
            Client(connect, f"k{number}-{index}", self._stop_event, True, prefix)
            for number, connect in enumerate(connects)
            for index in range(kept)
        ]
        self.new = [
            Client(connect, f"n{number}-{index}", self._stop_event, False, prefix)
            for number, connect in enumerate(connects)
            for index in range(new)
        ]
        self.clients = [*self.kept, *self.new]

    @property
    def served(self) -> int:
        """Answers so far."""
        return sum(client.served for client in self.clients)

    @property
    def failures(self) -> list[str]:
        """Of all clients."""
        return [failure for client in self.clients for failure in client.failures]

    def wait_served(self, more: int, timeout_s: float = TIMEOUT_S) -> None:
        """Until each running client has had so many more answers."""
        goals = [(client, client.served + more) for client in self.clients]
        deadline = time.monotonic() + timeout_s
        for client, goal in goals:
            while client.is_alive() and client.served < min(goal, _MOST):
                assert time.monotonic() < deadline, f"{client.name} got {client.served} of {goal}: {self.failures}"
                client.join(0.002)

    def stop(self) -> None:
        """Let them finish what they do."""
        self._stop_event.set()
        self.join()

    def join(self) -> None:
        """Until all have ended."""
        for client in self.clients:
            client.join(2 * TIMEOUT_S)
            assert not client.is_alive(), client.name


@contextlib.contextmanager
def load(connects: Connect | Sequence[Connect], kept: int = 2, new: int = 2, prefix: str = "") -> Iterator[Load]:
    """Clients around a change; all have had an answer before it begins."""
    running = Load(connects if isinstance(connects, Sequence) else [connects], kept, new, prefix)
    for client in running.clients:
        client.start()
    try:
        running.wait_served(2)
        yield running
    finally:
        running.stop()


def server_pid(sock: socket.socket, pids: Sequence[int]) -> int:
    """Which of these processes holds the other end of a loopback TCP connection; 0 if none does."""
    near = sock.getsockname()[1]
    far = sock.getpeername()[1]
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].rpartition(":")[2], 16) == far and int(words[2].rpartition(":")[2], 16) == near:
            inode = words[9]
    for pid in pids:
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(fd.readlink()) == f"socket:[{inode}]":
                        return pid
    return 0
