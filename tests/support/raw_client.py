"""A client that says exactly what it is told to, and reads what comes back strictly.

It sends whole or in pieces (each piece is waited for until the peer has read it, so a cut is a real cut), and it tells
a clean FIN from a reset. Answers are parsed by h11, plus checks that h11 does not make.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import re
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence

import h11

from tests.support.kernel import UnreadProbe

Address = tuple[str, int]
_READ = 256 * 1024
_PIECE_TIMEOUT_S = 0.5


class Ending(enum.Enum):
    """How the peer's direction of the connection ended."""

    OPEN = "open"
    FIN = "fin"
    RESET = "reset"


@dataclasses.dataclass(slots=True)
class Answer:
    """One answer; `complete` is False when the connection ended within it. `interim` are the 1xx before it."""

    status: int
    reason: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = False
    trailers: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)
    interim: list[int] = dataclasses.field(default_factory=list)

    def get(self, name: bytes) -> bytes | None:
        """All values of a field joined by ", ", or None."""
        values = [value for key, value in self.headers if key == name.lower()]
        return b", ".join(values) if values else None


@dataclasses.dataclass(slots=True)
class Asked:
    """What the client asked for: the method decides how an answer is framed."""

    method: bytes = b"GET"
    upgrade: bool = False


class BadAnswer(Exception):
    """The peer's bytes are not valid HTTP/1.1."""


class RawClient:
    """One connection. Everything that was received stays in `received`."""

    def __init__(self, address: Address, timeout_s: float = 30.0, receive_buffer_bytes: int = 0) -> None:
        self.timeout_s = timeout_s
        self.received = bytearray()
        self.ending = Ending.OPEN
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> bool:
        """Send all; False when the peer no longer takes it."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def send_pieces(self, pieces: Iterable[bytes]) -> bool:
        """Send pieces, each only when the peer has read the one before. False when the peer has gone."""
        probe = UnreadProbe(self.socket)
        try:
            return all(self.send(piece) and probe.wait_read(_PIECE_TIMEOUT_S) for piece in pieces)
        finally:
            probe.close()

    def send_until_stuck(self, size_bytes: int, data: bytes = b"") -> int:
        """Send so many bytes, of `data` or of anything, or until nothing moves for half a second. Returns how many were
        sent."""
        self.socket.settimeout(0.5)
        sent = 0
        piece = memoryview(data or b"u" * size_bytes)
        try:
            while sent < size_bytes:
                sent += self.socket.send(piece[sent : sent + 65536])
        except TimeoutError:
            pass
        self.socket.settimeout(self.timeout_s)
        return sent

    def send_until_unread(self) -> None:
        """Send until the peer has stopped reading; its kernel has room for more, so a FIN that follows arrives."""
        probe = UnreadProbe(self.socket)
        try:
            while self.send(b"u" * 65536):
                probe.wait_read(_PIECE_TIMEOUT_S)
                if probe.unread():
                    return
        finally:
            probe.close()

    def half_close(self) -> None:
        """FIN: nothing more will be sent, answers are still read."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def read_some(self, timeout_s: float | None = None) -> bytes:
        """One read. b"" when the connection ended (see `ending`) or nothing came in time (`ending` stays OPEN)."""
        if self.ending is not Ending.OPEN:
            return b""
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        if not _readable(self.socket, wait_s):
            return b""
        try:
            data = self.socket.recv(_READ)
        except ConnectionError:
            self.ending = Ending.RESET
            return b""
        if not data:
            self.ending = Ending.FIN
        self.received += data
        return data

    def read_to_end(self, timeout_s: float | None = None) -> bytes:
        """Read until the peer closes, or time is up (`ending` is OPEN then). Returns all that was received."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while self.ending is Ending.OPEN and (left_s := deadline - time.monotonic()) > 0:
            self.read_some(left_s)
        return bytes(self.received)

    def read_answers(self, asked: Sequence[Asked], timeout_s: float | None = None) -> list[Answer]:
        """Read until each request has its complete answer, or the connection ends, or time is up."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            answers = parse_answers(bytes(self.received), asked, self.ending is not Ending.OPEN)
            done = len(answers) == len(asked) and all(answer.complete for answer in answers)
            if done or self.ending is not Ending.OPEN or (left_s := deadline - time.monotonic()) <= 0:
                return answers
            self.read_some(left_s)

    def read_large(self, size_bytes: int, asked: Asked | None = None) -> Answer:
        """One answer of at least `size_bytes`: parsed once at its end, as parsing at each read costs the square."""
        while len(self.received) < size_bytes and self.read_some():
            pass
        (answer,) = self.read_answers([asked or Asked()])
        return answer

    def ask(self, request: bytes, method: bytes = b"GET", timeout_s: float | None = None) -> Answer:
        """Send one request and return its answer. Raises BadAnswer when none comes."""
        before = len(self.received)
        self.send(request)
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            answers = parse_answers(bytes(self.received[before:]), [Asked(method)], self.ending is not Ending.OPEN)
            if answers and answers[0].complete:
                return answers[0]
            if self.ending is not Ending.OPEN or (left_s := deadline - time.monotonic()) <= 0:
                raise BadAnswer(f"no complete answer, {self.ending}: {bytes(self.received[before:])!r}")
            self.read_some(left_s)


def _readable(sock: socket.socket, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poller.poll(max(0, int(timeout_s * 1000) or 1)))


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9] [\t \x21-\x7e\x80-\xff]*\Z")
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t \x21-\x7e\x80-\xff]*\Z")


def _check_head(head: bytes) -> None:
    """What h11 lets pass: bare LF, folded lines, both kinds of length, two lengths."""
    lines = head.split(b"\r\n")
    if not _STATUS_LINE.match(lines[0]):
        raise BadAnswer(f"status line {lines[0]!r}")
    lengths = 0
    chunked = False
    for line in lines[1:]:
        if not _FIELD_LINE.match(line):
            raise BadAnswer(f"field line {line!r}")
        name = line.partition(b":")[0].lower()
        lengths += name == b"content-length"
        chunked = chunked or name == b"transfer-encoding"
    if lengths > 1 or (lengths and chunked):
        raise BadAnswer(f"ambiguous length in {head!r}")


def parse_answers(raw: bytes, asked: Sequence[Asked], ended: bool) -> list[Answer]:
    """All answers that `raw` holds. Raises BadAnswer for invalid bytes, and for bytes that answer no request."""
    answers: list[Answer] = []
    rest = raw
    for ask in asked:
        if not rest:
            break
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1024 * 1024)
        extra = [("Connection", "upgrade"), ("Upgrade", "websocket")] if ask.upgrade else []
        target = "a:1" if ask.method == b"CONNECT" else "/"
        connection.send(h11.Request(method=ask.method, target=target, headers=[("Host", "a"), *extra]))
        connection.send(h11.EndOfMessage())
        answer, rest = _parse_one(connection, rest, ended)
        if answer is None:
            return answers
        answers.append(answer)
        if not answer.complete:
            return answers
        if answer.status == 101 or (ask.method == b"CONNECT" and answer.status < 300):
            return answers
        if b"close" in (answer.get(b"connection") or b"").lower():
            break
    if rest and len(answers) == len(asked):
        raise BadAnswer(f"bytes that answer no request: {rest[:200]!r}")
    return answers


def _parse_one(connection: h11.Connection, raw: bytes, ended: bool) -> tuple[Answer | None, bytes]:
    answer: Answer | None = None
    interim: list[int] = []
    offset = 0
    try:
        connection.receive_data(raw)
        if ended:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, (h11.InformationalResponse, h11.Response)):
                end = raw.index(b"\r\n\r\n", offset)
                _check_head(raw[offset:end])
                offset = end + 4
                if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                    interim.append(event.status_code)
                    continue
                headers = [(bytes(name), bytes(value)) for name, value in event.headers]
                answer = Answer(event.status_code, bytes(event.reason), bytes(event.http_version), headers)
                answer.interim = interim
                if event.status_code == 101:
                    answer.complete = True
                    return answer, raw[offset:]
            elif isinstance(event, h11.Data):
                assert answer is not None
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                answer.complete = True
                answer.trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                return answer, connection.trailing_data[0]
            else:  # NEED_DATA, PAUSED, ConnectionClosed
                return answer, b""
    except h11.RemoteProtocolError as error:
        if (ended and "peer closed connection" in str(error)) or "peer unexpectedly closed" in str(error):
            return answer, b""
        raise BadAnswer(f"{error}: {raw[offset : offset + 300]!r}") from error
    except ValueError as error:
        raise BadAnswer(f"{error}: {raw[offset : offset + 300]!r}") from error
