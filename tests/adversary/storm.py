"""A storm: hundreds of rude clients and moody upstreams around one gateway; every answer must be its request's own.

    python -m tests.adversary.storm --seconds 20 --clients 200 --seed 7 [--edgeq DIRECTORY] [--workers 2] [--chaos LIST]

Each request carries a marker as its request id, in its path and all over its body, and each answer repeats it all over
its own. What is looked for: an answer to another request, an answer that looks complete and is not, a request that is
sent twice and must not be, a request without an answer, a request without its line in the access log, counters and
descriptors that do not come back. Random, with a seed; bounded in time, in clients and to the loopback.

`--chaos` (comma separated): kill (SIGKILL of a worker), spawner (of their parent), stop (SIGSTOP, SIGCONT), reload
(listeners and upstreams come and go), flap (an endpoint's listening socket closes and opens again).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from tests.support import kernel

ROOT = Path(__file__).resolve().parents[2]
FIRST_BYTE_S = 0.6
GRACE_S = 15.0
"""A client waits so long for its answer before it calls it lost."""


LATE = "timed out without being meant to"


def say(text: str) -> None:
    """To whoever watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Wrong(Exception):
    """What a client got is not what it may get."""


class Cut(Exception):
    """The connection ended before the answer did."""


@dataclass(slots=True)
class Books:
    """What happened, by marker and in sum."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    """How often upstreams have seen a marker."""
    moods: dict[str, str] = field(default_factory=dict)
    """What the upstream did to a marker the last time."""
    sent: set[str] = field(default_factory=set)
    """Markers whose whole request went to the gateway and whose answer came."""
    posts: set[str] = field(default_factory=set)

    def blame(self, text: str) -> None:
        """Note a defect."""
        self.counts["WRONG"] += 1
        if len(self.wrong) < 40:
            self.wrong.append(text)


# -- upstreams

MOODS = (
    ("length", 30),
    ("chunked", 16),
    ("until_close", 6),
    ("slow", 8),
    ("dribble", 4),
    ("interim", 4),
    ("empty", 4),
    ("close_after", 6),
    ("announced_close", 4),
    ("excess", 3),
    ("reset_before", 4),
    ("close_before", 4),
    ("cut_length", 3),
    ("cut_chunked", 3),
    ("reset_within", 3),
    ("nonsense", 2),
    ("early", 4),
    ("never", 1),
)
_MOOD_NAMES = [name for name, _ in MOODS]
_MOOD_WEIGHTS = [weight for _, weight in MOODS]
GOOD = {
    "length",
    "chunked",
    "until_close",
    "slow",
    "dribble",
    "interim",
    "empty",
    "close_after",
    "announced_close",
    "excess",
}
"""After these the client must have its answer."""


class MoodyUpstream:
    """One endpoint."""

    def __init__(self, books: Books, rng: random.Random, gentle: bool) -> None:
        self.books = books
        self.rng = rng
        self.gentle = gentle
        self.port = 0
        self.server: asyncio.Server | None = None
        self.open = 0

    async def start(self) -> None:
        """Listen; always at the same port."""
        self.server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, backlog=1024, limit=1 << 20, reuse_address=True
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening; connections stay."""
        if self.server is not None:
            self.server.close()
            self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await self._one(reader, writer):
                if self.rng.random() < 0.02:
                    await asyncio.sleep(self.rng.random() * 0.02)
                    break  # closes while idle, unannounced
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, RuntimeError):
            pass  # RuntimeError: uvloop's, for a transport that is closed already
        except asyncio.LimitOverrunError as error:
            self.books.blame(f"upstream got a head without an end: {error}")
        finally:
            self.open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head[:-4].split(b"\r\n")
        method, target, _ = lines[0].split(b" ")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        marker = target.partition(b"?")[0].rpartition(b"/")[2].decode()
        books = self.books
        if headers.get(b"x-request-id") != marker.encode() or headers.get(b"x-marker") != marker.encode():
            books.blame(f"upstream got a mixed head: {head!r}")
        books.attempts[marker] += 1
        mood = "length" if self.gentle else self.rng.choices(_MOOD_NAMES, _MOOD_WEIGHTS)[0]
        books.moods[marker] = mood
        books.counts["mood " + mood] += 1
        if mood == "early":
            body = _fill(marker, 20)
            writer.write(
                b"HTTP/1.1 200 OK\r\nx-marker: %b\r\nx-lines: 20\r\ncontent-length: %d\r\n\r\n%b"
                % (marker.encode(), len(body), body)
            )
        await self._body(reader, headers, marker)
        if mood == "early":
            return True
        return await self._answer(writer, method, marker, mood)

    async def _body(self, reader: asyncio.StreamReader, headers: dict[bytes, bytes], marker: str) -> None:
        body = b""
        if b"transfer-encoding" in headers:
            while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif b"content-length" in headers:
            body = await reader.readexactly(int(headers[b"content-length"]))
        if body and body != _fill(marker, len(body) // (len(marker) + 1)):
            self.books.blame(f"upstream got a body that is not {marker}'s: {body[:200]!r}")

    async def _answer(self, writer: asyncio.StreamWriter, method: bytes, marker: str, mood: str) -> bool:
        rng = self.rng
        lines = rng.choice((1, 3, 30, 300, 3000, 12000)) if rng.random() < 0.5 else rng.randrange(1, 40)
        body = _fill(marker, lines)
        head = b"HTTP/1.1 200 OK\r\nx-marker: %b\r\nx-lines: %d\r\n" % (marker.encode(), lines)
        length = b"content-length: %d\r\n\r\n" % len(body)
        if method == b"HEAD":
            writer.write(head + length)
            return True
        if mood in ("reset_before", "close_before"):
            _end(writer, mood == "reset_before")
            return False
        if mood == "never":
            await asyncio.sleep(FIRST_BYTE_S * 3)
            return False
        if mood == "nonsense":
            writer.write(rng.choice((b"\0\1\2\3", b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 200 OK\nfoo: bar\n\n")))
            return False
        if mood == "empty":
            writer.write(head.replace(b"200 OK", rng.choice((b"204 No Content", b"304 Not Modified"))) + b"\r\n")
            return True
        if mood == "interim":
            for _ in range(rng.randrange(1, 4)):
                writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
        if mood == "slow":
            await asyncio.sleep(rng.random() * 0.05)
        if mood == "chunked":
            writer.write(head + b"transfer-encoding: chunked\r\n\r\n")
            at = 0
            while at < len(body):
                size = rng.choice((1, 2, 17, 1000, 70000))
                part = body[at : at + size]
                at += size
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                if rng.random() < 0.05:
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.write(b"0\r\nx-trailer: yes\r\n\r\n" if rng.random() < 0.3 else b"0\r\n\r\n")
            await writer.drain()
            return True
        if mood == "until_close":
            writer.write(head + b"\r\n" + body)
            await writer.drain()
            return False
        if mood == "dribble":
            whole = head + length + body[: min(len(body), 600)]
            whole = whole.replace(length, b"content-length: %d\r\n\r\n" % min(len(body), 600))
            for at in range(0, len(whole), 7):
                writer.write(whole[at : at + 7])
                await asyncio.sleep(0)
            return True
        if mood == "cut_length":
            writer.write(head + length + body[: len(body) // 2])
            return False
        if mood == "reset_within":
            writer.write(head + length + body[: len(body) // 2])
            await asyncio.sleep(0)
            _end(writer, True)
            return False
        if mood == "cut_chunked":
            writer.write(head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body))
            return False
        if mood == "excess":
            writer.write(
                head + length + body + b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nx-marker: POISON\r\n\r\nPOISON\n"
            )
            await writer.drain()
            return False
        if mood == "announced_close":
            writer.write(head + b"connection: close\r\n" + length + body)
            await writer.drain()
            return False
        writer.write(head + length + body)
        await writer.drain()
        return mood != "close_after"


def _fill(marker: str, lines: int) -> bytes:
    return (marker.encode() + b"\n") * lines


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:
    if reset:
        sock = writer.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):  # None: it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


# -- clients


@dataclass(slots=True)
class Ask:
    """One request."""

    marker: str
    method: bytes
    raw: bytes


class RudeClient:
    """One after another connection, until time is up."""

    def __init__(self, books: Books, rng: random.Random, ports: list[int], number: int, chaos: bool) -> None:
        self.books = books
        self.rng = rng
        self.ports = ports
        self.number = number
        self.chaos = chaos
        self.serial = 0

    def _ask(self, close: bool) -> Ask:
        rng = self.rng
        self.serial += 1
        marker = f"m{self.number:04d}.{self.serial:06d}"
        method = rng.choices((b"GET", b"POST", b"PUT", b"HEAD"), (60, 25, 10, 5))[0]
        path = rng.choice((b"/a", b"/b/c", b"/d%20e", b"/x/./y"))
        host = b"gateway.example"
        head = b"%b %b/%b HTTP/1.1\r\nHost: %b\r\nx-request-id: %b\r\nx-marker: %b\r\n" % (
            (method, path, marker.encode(), host, marker.encode(), marker.encode())
        )
        if rng.random() < 0.5:
            head += b"user-agent: storm\r\ncookie: a=%d\r\n" % rng.randrange(1000)
        if rng.random() < 0.02:
            head += b"x-latin: \xe9\r\n"
        if close:
            head += b"connection: close\r\n"
        body = b""
        if method in (b"POST", b"PUT"):
            self.books.posts.add(marker) if method == b"POST" else None
            body = _fill(marker, rng.choice((0, 1, 5, 50, 2000, 9000)))
            if body and rng.random() < 0.4:
                head += b"transfer-encoding: chunked\r\n"
                parts = []
                at = 0
                while at < len(body):
                    part = body[at : at + rng.choice((1, 10, 500, 40000))]
                    at += len(part)
                    parts.append(b"%x\r\n%b\r\n" % (len(part), part))
                body = b"".join(parts) + b"0\r\n\r\n"
            else:
                head += b"content-length: %d\r\n" % len(body)
        return Ask(marker, method, head + b"\r\n" + body)

    async def live(self, until: float) -> None:
        """Until then."""
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(GRACE_S):
                    await self._connection()
            except (ConnectionError, Cut, OSError):
                self.books.counts["client cut"] += 1
            except TimeoutError:
                self.books.blame(f"client {self.number}: no answer in {GRACE_S} s to {self.serial}")

    async def _connection(self) -> None:
        rng = self.rng
        port = rng.choice(self.ports)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        except ConnectionError:
            if not self.chaos:
                self.books.blame("the gateway refused a connection")
            await asyncio.sleep(0.05)
            return
        try:
            for _ in range(rng.randrange(1, 8)):
                if not await self._burst(reader, writer):
                    return
        finally:
            if rng.random() < 0.3:
                _end(writer, True)
            else:
                writer.close()

    async def _burst(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One or more requests at once. Returns: may the connection be used again?"""
        rng = self.rng
        count = rng.randrange(2, 9) if rng.random() < 0.3 else 1
        last = rng.random() < 0.1
        asks = [self._ask(last and index == count - 1) for index in range(count)]
        data = b"".join(ask.raw for ask in asks)
        if rng.random() < 0.08:  # leaves within the request
            writer.write(data[: rng.randrange(1, len(data))])
            await asyncio.sleep(rng.choice((0, 0, 0.005, 0.03)))
            self.books.counts["client left within its request"] += 1
            return False
        if rng.random() < 0.2:
            task = asyncio.ensure_future(self._dribble(writer, data))
        else:
            writer.write(data)
            task = None
        if rng.random() < 0.08:  # leaves before its answer
            await asyncio.sleep(rng.choice((0, 0.002, 0.02, 0.1)))
            if task is not None:
                task.cancel()
            self.books.counts["client left before its answer"] += 1
            return False
        half_closed = task is None and rng.random() < 0.05
        if half_closed:
            writer.write_eof()
        try:
            for index, ask in enumerate(asks):
                if rng.random() < 0.05:
                    await asyncio.sleep(rng.random() * 0.1)
                close = await self._read(reader, ask, half_closed)
                if close:
                    if index < count - 1:
                        self.books.counts["pipelined requests unanswered"] += count - 1 - index
                    return False
        except Cut as cut:
            mood = self.books.moods.get(ask.marker, "unseen")
            self.books.counts["cut " + mood] += 1
            if (
                not self.chaos
                and not half_closed
                and (mood in GOOD or mood == "unseen")
                and not str(cut).startswith("early")
            ):
                self.books.blame(f"cut without a reason ({mood}): {ask.marker} {ask.method!r} {index}/{count}: {cut}")
            return False
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return not last and not half_closed

    async def _dribble(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = self.rng.choice((1, 3, 50, 900, 20000))
            writer.write(data[at : at + size])
            at += size
            await writer.drain()
            await asyncio.sleep(0)

    async def _read(self, reader: asyncio.StreamReader, ask: Ask, half_closed: bool) -> bool:
        """Read one answer and judge it. Returns: does it close?"""
        books = self.books
        marker = ask.marker.encode()
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    books.blame(f"half a head for {ask.marker}: {error.partial[:200]!r}")
                raise Cut("no head") from None
            except ConnectionError as error:
                raise Cut(f"no head: {error}") from None
            lines = head[:-4].split(b"\r\n")
            status = int(lines[0].split(b" ")[1])
            if status >= 200:
                break
        headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, _, value = line.partition(b": ")
            headers[name.lower()] = value
        books.counts[f"status {status}"] += 1
        if headers.get(b"x-request-id") != marker:
            books.blame(f"{ask.marker} got the answer of {headers.get(b'x-request-id')!r}: {head!r}")
            raise Cut("wrong")
        body = await self._read_body(reader, ask, status, headers)
        mood = books.moods.get(ask.marker, "unseen")
        if status in (200, 204, 304):
            if headers.get(b"x-marker") != marker:
                books.blame(f"{ask.marker} got an upstream's answer to another: {head!r}")
            if body and body != _fill(ask.marker, int(headers[b"x-lines"])) and mood != "dribble":
                books.blame(f"{ask.marker} got a wrong body of {len(body)} bytes ({mood}): {body[:100]!r}")
            if mood == "dribble" and not _fill(ask.marker, 4000).startswith(body):
                books.blame(f"{ask.marker} got a wrong body of {len(body)} bytes ({mood}): {body[:100]!r}")
        else:
            _, _, named = headers.get(b"proxy-status", b"").partition(b"edgeq-reason=")  # HEAD has no body to read
            problem = json.loads(body) if body else {"reason": named.decode()}
            books.counts[f"reason {problem.get('reason')}"] += 1
            if body and problem["request_id"] != ask.marker:
                books.blame(f"{ask.marker} got the problem of another: {body!r}")
            if problem.get("reason") == "upstream_timeout" and mood not in ("never", "early"):
                books.counts[LATE] += 1  # this process has no time for its own upstreams: judged by number
                mood = "never"
            if not self.chaos and mood in GOOD:
                books.blame(f"{ask.marker} ({ask.method!r}, {mood}) got {status} {problem.get('reason')}")
            # What is not idempotent, or has sent its body, is not sent again (RFC 9110 9.2.2).
            lost = problem.get("reason") == "upstream_reset" and ask.method in (b"POST", b"PUT")
            if not self.chaos and mood == "unseen" and not half_closed and not lost:
                books.blame(f"{ask.marker} ({ask.method!r}) never reached an upstream: {problem}")
        books.sent.add(ask.marker)
        return headers.get(b"connection") == b"close"

    async def _read_body(
        self, reader: asyncio.StreamReader, ask: Ask, status: int, headers: dict[bytes, bytes]
    ) -> bytes:
        if ask.method == b"HEAD" or status in (204, 304):
            return b""
        try:
            if b"content-length" in headers:
                return await reader.readexactly(int(headers[b"content-length"]))
            if headers.get(b"transfer-encoding") != b"chunked":
                raise Wrong(f"no framing: {headers}")
            parts = []
            while size := int(await reader.readuntil(b"\r\n"), 16):
                parts.append((await reader.readexactly(size + 2))[:-2])
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return b"".join(parts)
        except (asyncio.IncompleteReadError, ConnectionError):
            # An early answer closes the connection; a client that is still sending may lose its end to a reset.
            early = "early " if headers.get(b"connection") == b"close" else ""
            raise Cut(f"{early}within the body") from None


# -- the gateway


def write_config(
    directory: Path, ports: list[int], upstreams: list[int], workers: int, variant: int, admin: str
) -> None:
    """A configuration; variants differ in listeners, endpoints, routes, limits."""
    endpoints = upstreams if variant % 2 == 0 else upstreams[:2]
    lines = [
        f'server = {{ workers = {workers}, admin = "{admin}", drain_timeout = "2s" }}',
        f'access_log = {{ target = "{directory}/access.log" }}',
    ]
    shown = ports if variant % 3 != 2 else ports[:1]
    for port in shown:
        lines += ["[[listener]]", f'address = "127.0.0.1:{port}"', "timeouts = { half_close = 2 }"]
        if variant % 2:
            lines += ["limits = { header_bytes = 20000 }"]
    for name in ("u", "v") if variant % 2 == 0 else ("u", "w"):
        lines += [
            f"[upstream.{name}]",
            f"endpoints = {json.dumps([f'http://127.0.0.1:{port}' for port in endpoints])}",
            f'timeouts = {{ first_byte = "{int(FIRST_BYTE_S * 1000)}ms", body = "2s", connect = "1s" }}',
            f"pool = {{ idle_timeout = 5, max_connections = {400 + variant}, queue_timeout = 5 }}",
        ]
        lines += [
            "[[route]]",
            f'name = "r{name}"',
            f'upstream = "{name}"',
            f'match = {{ path = "/{"b/" if name != "u" else ""}*" }}',
        ]
    fresh = directory / "edgeq.toml.new"
    fresh.write_text("\n".join(lines) + "\n")
    fresh.rename(directory / "edgeq.toml")  # who reloads reads the old one or the new one


def ask_admin(path: str, command: str) -> str:
    """One text command."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(path)
        sock.sendall(command.encode() + b"\n")
        data = b""
        while more := sock.recv(65536):
            data += more
    return data.decode()


def workers_of(path: str) -> list[dict[str, Any]]:
    """`show workers`, parsed."""
    rows: list[dict[str, Any]] = json.loads(ask_admin(path, "show workers json"))
    return rows


def describe_process(pid: int) -> str:
    """Descriptors, resident memory, CPU."""
    fds = len(os.listdir(f"/proc/{pid}/fd"))
    rss = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return f"{fds} fds, {int(rss.split()[1]) // 1024} MiB, {(int(stat[11]) + int(stat[12])) / 100:.1f} s CPU"


async def chaos(
    kinds: list[str],
    process: subprocess.Popen[bytes],
    again: Any,
    upstreams: list[MoodyUpstream],
    admin: str,
    until: float,
) -> None:
    """Disturb until then."""
    rng = random.Random(1)
    variant = 0
    while time.monotonic() < until:
        await asyncio.sleep(rng.random() * 0.5)
        kind = rng.choice(kinds)
        pids = [int(row["pid"]) for row in workers_of(admin) if int(row["pid"]) > 0]
        with contextlib.suppress(ProcessLookupError):
            if kind == "kill" and pids:
                os.kill(rng.choice(pids), signal.SIGKILL)
            elif kind == "stop" and pids:
                pid = rng.choice(pids)
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(rng.random() * 0.4)
                os.kill(pid, signal.SIGCONT)
            elif kind == "spawner":
                for child in kernel.children(process.pid):
                    if "spawner" in Path(f"/proc/{child}/comm").read_text():  # noqa: ASYNC240  not a file
                        os.kill(child, signal.SIGKILL)
            elif kind == "reload":
                variant += 1
                again(variant)
                process.send_signal(signal.SIGHUP)
            elif kind == "flap":
                one = rng.choice(upstreams)
                await one.stop()
                await asyncio.sleep(0.1)
                await one.start()
    again(0)
    process.send_signal(signal.SIGHUP)
    await asyncio.sleep(1.5)


async def storm(options: argparse.Namespace, directory: Path) -> int:
    """Run it. Returns the exit code."""
    books = Books()
    kinds = [kind for kind in options.chaos.split(",") if kind]
    upstreams = [MoodyUpstream(books, random.Random(options.seed * 1000 + n), options.gentle) for n in range(3)]
    for one in upstreams:
        await one.start()
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports.append(server.getsockname()[1])
    admin = str(directory / "admin.sock")

    def config(variant: int) -> None:
        write_config(directory, ports, [one.port for one in upstreams], options.workers, variant, admin)

    config(0)
    with (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(  # noqa: ASYNC220  before the storm
            [sys.executable, "-P", "-m", "edgeq", "serve", "--config", str(directory / "edgeq.toml")],
            cwd=options.edgeq,
            env={**os.environ, "PYTHONPATH": str(options.edgeq)},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    try:
        deadline = time.monotonic() + 20
        while '"event":"serving"' not in (directory / "stderr").read_text():
            await asyncio.sleep(0.05)
            if process.poll() is not None or time.monotonic() > deadline:
                say((directory / "stderr").read_text())
                return 1
        before = {row["pid"]: describe_process(int(row["pid"])) for row in workers_of(admin)}
        until = time.monotonic() + options.seconds
        clients = [
            RudeClient(
                books, random.Random(options.seed * 77777 + n), ports if not kinds else ports[:1], n, bool(kinds)
            )
            for n in range(options.clients)
        ]
        jobs = [client.live(until) for client in clients]
        if kinds:
            jobs.append(chaos(kinds, process, config, upstreams, admin, until))
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, BaseException):
                books.blame(f"driver: {type(result).__name__}: {result}")
        await settle(books, ports, admin)
        say(f"before {before}")
        say(f"after {[(row['pid'], describe_process(int(row['pid']))) for row in workers_of(admin)]}")
    finally:
        process.send_signal(signal.SIGTERM)
        family = kernel.children(process.pid)
        try:
            say(f"exit code {process.wait(10)}")
        except subprocess.TimeoutExpired:
            books.blame("does not stop")
            process.kill()
        for pid in family:
            if kernel.is_alive(pid):
                books.blame(f"left behind: {pid}")
                os.kill(pid, signal.SIGKILL)
    return judge(books, directory, bool(kinds))


async def settle(books: Books, ports: list[int], admin: str) -> None:
    """All counters must return to zero."""
    deadline = time.monotonic() + 12
    while True:
        rows = workers_of(admin)
        if all(row["in_flight"] == 0 and row["connections"] == 0 for row in rows):
            break
        if time.monotonic() > deadline:
            books.blame(f"counters do not return to zero: {rows}")
            command = ["ss", "-tnpo", "exclude", "time-wait"]
            held = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: ASYNC221  after it
            say("\n".join(line for line in held.stdout.splitlines() if any(f":{port} " in line for port in ports)))
            break
        await asyncio.sleep(0.1)


def judge(books: Books, directory: Path, chaotic: bool) -> int:
    """Print what happened. Returns the exit code."""
    seen: Counter[str] = Counter()
    for record in (directory / "access.log").read_bytes().splitlines():
        try:
            seen[json.loads(record).get("edgeq.request_id", "")] += 1
        except ValueError:
            books.blame(f"a broken line in the access log: {record[:300]!r}")
    twice = [marker for marker, count in seen.items() if count > 1]
    if twice:
        books.blame(f"two lines in the access log: {twice[:5]}")
    missing = [marker for marker in books.sent if marker not in seen]
    if missing and not chaotic:
        books.blame(f"{len(missing)} answers without a line in the access log: {missing[:5]}")
    for marker, count in books.attempts.items():
        if count > (1 if marker in books.posts else 2):
            books.blame(f"sent {count} times: {marker}")
    chaos_events = ("worker died", "spawner died", "does not become", "was not confirmed", "did not confirm")
    for line in (directory / "stderr").read_text().splitlines():
        if "Traceback" in line or '"level":"error"' in line or not line.startswith("{"):
            if chaotic and any(event in line for event in chaos_events):
                continue
            books.blame(f"stderr: {line[:1500]}")
    if books.counts[LATE] > 100 + 0.05 * len(books.sent):
        books.blame(f"{books.counts[LATE]} requests {LATE}")
    for name, number in sorted(books.counts.items()):
        say(f"{number:8d} {name}")
    say(f"{sum(seen.values()):8d} lines in the access log")
    for text in books.wrong:
        say(f"WRONG: {text}")
    return 1 if books.wrong else 0


def main() -> int:
    """Arguments, a directory, a loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=150)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--edgeq", type=Path, default=ROOT, help="directory that contains the package edgeq")
    parser.add_argument("--chaos", default="")
    parser.add_argument("--gentle", action="store_true", help="upstreams only answer well")
    parser.add_argument("--keep", default="", help="directory for the logs")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.keep:
            directory = Path(options.keep)
            directory.mkdir(parents=True, exist_ok=True)
            for name in ("access.log", "stderr"):
                (directory / name).unlink(missing_ok=True)
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-storm-")))
        return uvloop.run(storm(options, directory))


if __name__ == "__main__":
    raise SystemExit(main())
