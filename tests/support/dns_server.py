"""A scripted DNS server on loopback, UDP and TCP on one port, in one thread.

The script is a table: (name, type) to records, or a name to a failure. It may change while the server runs, and every
question is kept in `queries`, so that a test can wait for the n-th one. Own bytes on purpose: it shares no code with
the resolver that it tests. Source: RFC 1035 4 (messages), RFC 2782 (SRV), RFC 3596 (AAAA).
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal

Failure = Literal["NXDOMAIN", "SERVFAIL", "REFUSED", "SILENCE"]

A: Final = 1
SOA: Final = 6
AAAA: Final = 28
SRV: Final = 33
_TYPES: Final = {"A": A, "AAAA": AAAA, "SRV": SRV}
_RCODES: Final = {"SERVFAIL": 2, "NXDOMAIN": 3, "REFUSED": 5}


@dataclass(frozen=True, slots=True)
class Query:
    """One question as it came in."""

    name: str
    qtype: str
    transport: Literal["udp", "tcp"]


def encode_name(name: str) -> bytes:
    labels = [label for label in name.encode().split(b".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decode_name(message: bytes, offset: int) -> tuple[str, int]:
    labels = []
    while length := message[offset]:
        labels.append(message[offset + 1 : offset + 1 + length].decode())
        offset += 1 + length
    return ".".join(labels).lower(), offset + 1


def _one_port() -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on the same free port; a port free for the one may be taken for the other."""
    for _ in range(100):
        tcp = socket.create_server(("127.0.0.1", 0), backlog=8)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return udp, tcp
    raise OSError("no port is free for both UDP and TCP")


class DnsServer:
    """Answers from its script; an unknown name is NXDOMAIN, a known one without the type asked an empty answer."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        self._failures: dict[tuple[str, int], Failure] = {}
        self._changed = threading.Condition()
        self.queries: list[Query] = []
        self.truncate_udp = False
        """Answer UDP with an empty, truncated message, so that the resolver must come by TCP."""
        self.negative_ttl = 0
        """With a value, negative answers carry an SOA that allows caching them that long (RFC 2308)."""
        self._udp, self._tcp = _one_port()
        self.port = int(self._udp.getsockname()[1])
        self._wake_r, self._wake_w = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="dns-server", daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> DnsServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake_w.send(b"x")
        self._thread.join(10)
        for sock in (self._udp, self._tcp, self._wake_r, self._wake_w):
            sock.close()

    # The script.

    def address_records(self, name: str, addresses: Iterable[str], ttl: int = 0) -> None:
        """From now on `name` has these A and AAAA records, and no failure."""
        four: list[tuple[int, bytes]] = []
        six: list[tuple[int, bytes]] = []
        for text in addresses:
            if ":" in text:
                six.append((ttl, socket.inet_pton(socket.AF_INET6, text)))
            else:
                four.append((ttl, socket.inet_pton(socket.AF_INET, text)))
        with self._changed:
            self._records[name, A] = four
            self._records[name, AAAA] = six
            self._forget_failures(name)

    def srv_records(self, name: str, rows: Iterable[tuple[int, int, int, str]], ttl: int = 0) -> None:
        """From now on `name` has SRV records of (priority, weight, port, target), and no failure."""
        encoded = [(ttl, struct.pack(">HHH", *row[:3]) + encode_name(row[3])) for row in rows]
        with self._changed:
            self._records[name, SRV] = encoded
            self._forget_failures(name)

    def fail(self, name: str, failure: Failure, qtype: str = "") -> None:
        """From now on questions for `name` (of one type, or all) fail like this."""
        with self._changed:
            for code in (_TYPES[qtype],) if qtype else _TYPES.values():
                self._failures[name, code] = failure

    def _forget_failures(self, name: str) -> None:
        for code in _TYPES.values():
            self._failures.pop((name, code), None)

    # What was asked.

    def count(self, name: str, qtype: str = "") -> int:
        with self._changed:
            return self._count(name, qtype)

    def _count(self, name: str, qtype: str) -> int:
        return sum(1 for query in self.queries if query.name == name and qtype in ("", query.qtype))

    def wait_for(self, name: str, count: int, qtype: str = "", timeout_s: float = 60) -> bool:
        """Block until `name` was asked for `count` times; for use off the event loop."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count(name, qtype) >= count, timeout_s)

    # The wire.

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._wake_r):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._wake_r in ready:
                    return
                if self._udp in ready:
                    message, peer = self._udp.recvfrom(4096)
                    answer = self.answer(message, "udp")
                    if answer is not None:
                        self._udp.sendto(answer, peer)
                if self._tcp in ready:
                    self._serve_tcp()

    def _serve_tcp(self) -> None:
        client, _ = self._tcp.accept()
        client.settimeout(5)
        with client, client.makefile("rb") as stream:
            while len(length := stream.read(2)) == 2:
                answer = self.answer(stream.read(int.from_bytes(length, "big")), "tcp")
                if answer is not None:
                    client.sendall(len(answer).to_bytes(2, "big") + answer)

    def answer(self, message: bytes, transport: Literal["udp", "tcp"]) -> bytes | None:
        """The answer to one message, by the script; None for silence."""
        name, offset = decode_name(message, 12)
        code = int.from_bytes(message[offset : offset + 2], "big")
        question = message[12 : offset + 4]
        text = next((key for key, value in _TYPES.items() if value == code), str(code))
        with self._changed:
            self.queries.append(Query(name, text, transport))
            failure = self._failures.get((name, code))
            records = self._records.get((name, code), [])
            known = any(key[0] == name for key in self._records)
            self._changed.notify_all()
        if failure == "SILENCE":
            return None
        truncated = self.truncate_udp and transport == "udp"
        rcode = _RCODES[failure] if failure else 0 if known else _RCODES["NXDOMAIN"]
        if rcode or truncated:
            records = []
        soa = self._soa() if not records and rcode in (0, 3) and self.negative_ttl and not truncated else b""
        flags = 0x8180 | (0x0200 if truncated else 0) | rcode
        header = message[:2] + struct.pack(">HHHHH", flags, 1, len(records), 1 if soa else 0, 0)
        body = b"".join(
            struct.pack(">HHHIH", 0xC00C, code, 1, ttl, len(data)) + data for ttl, data in records
        )  # 0xC00C: the name of the question
        return header + question + body + soa

    def _soa(self) -> bytes:
        data = encode_name("ns.test") + encode_name("admin.test") + struct.pack(">IIIII", 1, 2, 3, 4, self.negative_ttl)
        return encode_name("test") + struct.pack(">HHIH", SOA, 1, self.negative_ttl, len(data)) + data
