"""The admin socket against clients of all kinds; a fake supervisor behind it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.admin import server_io
from edgeq.admin.control import Reloaded
from edgeq.admin.render import Record
from edgeq.admin.server_io import AdminServer, MetricsServer
from edgeq.config.schema import Server
from edgeq.errors import StartError
from tests.support.fake_control import FakeControl


class Serving(FakeControl):
    """One with a defect, and with an event that is empty."""

    def show(self, subject: str) -> list[Record]:
        if subject == "limits":
            raise RuntimeError("a defect")
        return [{"slot": 0}]

    def events(self, count: int) -> list[Record]:
        return [{"event": "x" * 100}] * count

    async def follow_events(self) -> AsyncIterator[Record]:
        yield {"event": "one"}
        yield {}
        yield {"event": "two"}

    def metrics(self, accept: str) -> tuple[str, bytes]:
        return "text/plain", accept.encode()

    async def reload(self) -> Reloaded:
        return Reloaded(True, 1, "")


def talk(path: Path, *messages: bytes) -> list[bytes]:
    """The answers to messages on connections of their own, all open at the same time."""

    async def ask(message: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(message)
        writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 60)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def all_of_them() -> list[bytes]:
        return list(await asyncio.gather(*map(ask, messages)))

    return serve(path, all_of_them)


class Followed(Serving):
    """An event, and another one when a test says so."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.ended = asyncio.Event()

    async def follow_events(self) -> AsyncIterator[Record]:
        try:
            yield {"event": "one"}
            await self.goes_on.wait()
            yield {"event": "two"}
        finally:
            self.ended.set()


def serve(
    path: Path, client: Callable[[], Coroutine[None, None, list[bytes]]], control: Serving | None = None
) -> list[bytes]:
    async def run() -> list[bytes]:
        server = AdminServer(Server(admin=str(path)), control or Serving())
        await server.start()
        try:
            return await client()
        finally:
            await server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the supervisor does
        return runner.run(run())


def test_who_sends_many_requests_in_one_piece_does_not_hold_up_others(tmp_path: Path) -> None:
    """Nor the supervisor, which has the same loop: one is answered in a turn."""
    order: list[str] = []

    class Ordered(Serving):
        def show(self, subject: str) -> list[Record]:
            order.append(subject)
            return []

    async def clients() -> list[bytes]:
        many, one = [await asyncio.open_unix_connection(str(tmp_path / "s")) for _ in range(2)]
        request = b"GET /v1/%s HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
        many[1].write(request % b"workers" * 50)
        one[1].write(request % b"queues")
        answer = await asyncio.wait_for(one[0].readline(), 60)
        for _, writer in (many, one):
            writer.close()
        return [answer]

    (answer,) = serve(tmp_path / "s", clients, Ordered())
    assert answer.startswith(b"HTTP/1.1 200")
    assert order.index("queues") < 25


def test_numbers_are_compressed_for_who_takes_that(tmp_path: Path) -> None:
    """Prometheus says gzip: of many models they are a megabyte, which is a thirtieth then. Others get them plain, and
    so do all what is short."""
    text = b"abc" * 1000

    def ask(accepted: bytes, body: bytes = text) -> bytes:
        return b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept-Encoding: %b\r\nAccept: %b\r\n\r\n" % (accepted, body)

    accepted = (b"gzip", b"deflate, GZIP;q=0.5", b"identity", b"gzip;q=0, br", b"gzip; q=0.0", b"")
    answers = talk(tmp_path / "s", *map(ask, accepted), ask(b"gzip", b"short"))
    for one, is_packed in zip(answers, (True, True, *[False] * 5), strict=True):
        head, _, body = one.partition(b"\r\n\r\n")
        assert (b"content-encoding: gzip" in head) == is_packed, one[:200]
        assert f"content-length: {len(body)}".encode() in head
        assert (gzip.decompress(body) if is_packed else body) in (text, b"short")
        assert not is_packed or len(body) < 100


def test_both_languages(tmp_path: Path) -> None:
    """Text, text as JSON, HTTP; mistakes in either get a text; a defect is no silence."""
    answers = talk(
        tmp_path / "s",
        b"show workers\n",
        b"show workers json\n",
        b"show wrkers\n",
        b"GET /v1/workers HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: me\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/workers HTTP/1.1\r\n\r\n",
        b"show limits\n",
        b"GET /v1/limits HTTP/1.0\r\n\r\n",
        b"\n",
    )
    assert answers[0].startswith(b"slot")
    assert answers[1] == b'[{"slot":0}]\n'
    assert answers[2].startswith(b"error: unknown command 'show wrkers'; did you mean 'show workers'")
    assert answers[3].endswith(b'\r\n\r\n[{"slot":0}]\n')
    assert answers[4].endswith(b"\r\n\r\nme")
    assert answers[5].startswith(b"HTTP/1.1 404 ")
    assert answers[6].startswith(b"HTTP/1.1 400 ")
    assert answers[7] == b"error: a defect of edgeq: see the event log\n"
    assert answers[8].startswith(b"HTTP/1.1 500 ")
    assert answers[9] == b""


def test_head(tmp_path: Path) -> None:
    """As GET, without the content: what asks for health asks so."""
    asked = [
        b"HEAD /readyz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /v1/reload HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /v1/events/follow HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    twice, nowhere, reload, follow = talk(tmp_path / "s", *asked)
    first, _, second = twice.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 12" in first
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert nowhere.startswith(b"HTTP/1.1 404 ")
    assert reload.startswith(b"HTTP/1.1 405 ")
    assert follow.startswith(b"HTTP/1.1 200 ")
    assert all(one.endswith(b"\r\n\r\n") for one in (nowhere, reload, follow))


def test_a_line_without_its_end(tmp_path: Path) -> None:
    """What a client that died has begun changes nothing: of an address, drain may be left, which ends all. Who only
    reads may leave it out."""
    control = Serving()

    async def clients() -> list[bytes]:
        answers = []
        for line in (b"drain", b"set upstream/api limit 6", b"show workers"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(line)
            writer.write_eof()
            answers.append(await asyncio.wait_for(reader.read(), 60))
            writer.close()
        return answers

    drain, change, show = serve(tmp_path / "s", clients, control)
    assert drain == change == b"error: the line has no end, so nothing was done: it may be a part of another one\n"
    assert show.startswith(b"slot")
    assert (control.drained, control.wish) == (False, None)


def test_a_line_that_is_too_long(tmp_path: Path) -> None:
    """Is told, in the language in which it begins."""
    text, http = talk(
        tmp_path / "s",
        b"show workers " + b"a" * 9000 + b"\n",
        b"GET /v1/workers?match=" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    )
    assert text == b"error: a line has 8192 bytes at most\n"
    assert http.startswith(b"HTTP/1.1 414 ")


@pytest.mark.parametrize("message", [b"GET /v1/workers?match=%b HTTP/1.1\r\nHost: a\r\n\r\n", b"show workers %b\n"])
@pytest.mark.parametrize("size", [9000, 30_000])
def test_who_sends_a_line_that_is_too_long_and_waits(tmp_path: Path, message: bytes, size: int) -> None:
    """Is told at once, and not let go when its time is over."""

    async def ask() -> list[bytes]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(message % (b"a" * size))
        answer = await reader.read()
        writer.close()
        return [answer]

    (answer,) = serve(tmp_path / "s", ask)
    assert b"a line has 8192 bytes at most" in answer


def test_streams(tmp_path: Path) -> None:
    """Records as they come, an empty one as an empty line."""
    text, http = talk(tmp_path / "s", b"follow events\n", b"GET /v1/events/follow HTTP/1.1\r\nHost: a\r\n\r\n")
    assert text == b'{"event":"one"}\n\n{"event":"two"}\n'
    assert b"transfer-encoding: chunked" in http.lower()
    assert b'{"event":"two"}\n' in http


@pytest.mark.parametrize("message", [b"follow events\n", b"GET /v1/events/follow HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_who_leaves_a_stream_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: bytes) -> None:
    """That is found out between two records, while nothing is written: the stream ends, and there is nothing to log."""
    control = Followed()
    gone = asyncio.Event()
    told: list[object] = []
    lost = asyncio.StreamReaderProtocol.connection_lost

    def connection_lost(self: asyncio.StreamReaderProtocol, exc: Exception | None) -> None:
        lost(self, exc)
        gone.set()

    def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        told.append(context["message"])
        control.ended.set()

    monkeypatch.setattr(asyncio.StreamReaderProtocol, "connection_lost", connection_lost)

    async def leave() -> list[bytes]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(tell)
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, str(tmp_path / "s"))
            await loop.sock_sendall(client, message)
            await loop.sock_recv(client, 1)  # and not the rest: its end is an error for who reads
        await asyncio.wait_for(gone.wait(), 60)
        control.goes_on.set()
        await asyncio.wait_for(control.ended.wait(), 60)
        return []

    serve(tmp_path / "s", leave, control)
    assert not told


def test_several_requests_on_one_connection(tmp_path: Path) -> None:
    """Also sent at once; the one that does not ask for more ends it."""
    keep = b"GET /v1/version HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    last = b"GET /v1/version HTTP/1.1\r\nHost: a\r\n\r\n"
    (answers,) = talk(tmp_path / "s", keep + keep + last + last)
    assert answers.count(b"HTTP/1.1 200 OK") == 3


def test_a_client_that_polls(tmp_path: Path) -> None:
    """The same bytes again and again, cut anywhere, mixed with others: each gets its own answer, in order."""
    keep = "Host: a\r\nConnection: keep-alive\r\n\r\n"
    ask = {name: f"GET /v1/{name} HTTP/1.1\r\n{keep}".encode() for name in ("workers", "version", "limits", "reasons")}
    ask["metrics"] = f"GET /metrics HTTP/1.1\r\nAccept: x\r\n{keep}".encode()
    wanted = {
        "workers": b'[{"slot":0}]\n',
        "version": b'{"version":"1"}\n',
        "reasons": b'[{"slot":0}]\n',
        "metrics": b"x",
    }
    order = ["workers"] * 3 + ["version"] * 2 + ["limits"] * 3 + ["metrics"] * 3 + ["workers", "reasons", "workers"]

    async def poll() -> list[bytes]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))

        async def one() -> bytes:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return await reader.readexactly(length)

        answers = []
        for name in order:
            writer.write(ask[name])
            answers.append(await one())
        for cut in range(1, len(ask["workers"])):
            writer.write(ask["workers"][:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(ask["workers"][cut:])
            answers.append(await one())
        writer.write(ask["workers"] * 3 + ask["version"] * 2)
        answers.extend([await one() for _ in range(5)])
        writer.write(ask["workers"] + ask["version"])
        answers.extend([await one() for _ in range(2)])
        writer.close()
        return answers

    answers = serve(tmp_path / "s", poll)
    expected = [wanted.get(name, b"") for name in order]
    expected += [wanted["workers"]] * (len(ask["workers"]) - 1)
    expected += [wanted[name] for name in ("workers",) * 3 + ("version",) * 2 + ("workers", "version")]
    assert [one if b"a defect of edgeq" not in one else b"" for one in answers] == expected


POLL = b"GET /v1/queues HTTP/1.1\r\nHost: edgeq\r\nConnection: keep-alive\r\n\r\n"


class Gauge(Serving):
    """Has the same records until the gauge moves, as the real one for a moment."""

    def __init__(self, padding: int = 0) -> None:
        self._padding = "x" * padding
        self.move(0)

    def move(self, value: int) -> None:
        self._records: list[Record] = [{"depth": value, "padding": self._padding}]

    def show(self, _subject: str) -> list[Record]:
        return self._records


class Slow(Serving):
    """Asks somebody else for its connections."""

    def __init__(self) -> None:
        self.asked = 0

    async def connections(self, count: int) -> list[Record]:
        self.asked += 1
        await asyncio.sleep(0)
        return [{"connection": count}]


async def read_one(reader: asyncio.StreamReader) -> bytes:
    """The content of one answer."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    return await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """The server waits for clients for so many seconds."""
    monkeypatch.setattr(server_io, "_TIMEOUT_S", 1.0)
    return 1.0


def test_who_polls_sees_what_changes(tmp_path: Path, impatient: float) -> None:
    """An answer is held for a moment only; and whoever goes on asking is not taken for one who is silent, who is let
    go."""
    control = Gauge()

    async def poll() -> list[bytes]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        seen = []
        until_s = time.monotonic() + 2 * impatient
        value = 0
        while time.monotonic() < until_s or value < 3:
            writer.write(POLL)
            found = await read_one(reader)
            if f'"depth":{value},'.encode() in found:
                seen.append(found)
                value += 1
                control.move(value)
        assert await asyncio.wait_for(reader.read(), 60) == b""  # silent from now on
        writer.close()
        return seen[:3]

    found = serve(tmp_path / "s", poll, control)
    assert found == [b'[{"depth":%d,"padding":""}]\n' % value for value in range(3)]


def test_who_polls_what_takes_a_wait(tmp_path: Path) -> None:
    """That is found out once; from then on each request asks once."""
    control = Slow()

    async def poll() -> list[bytes]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        found = []
        for _ in range(10):
            writer.write(POLL.replace(b"queues", b"connections"))
            found.append(await read_one(reader))
        writer.close()
        return found

    assert serve(tmp_path / "s", poll, control) == [b'[{"connection":50}]\n'] * 10
    assert control.asked == 11


@pytest.mark.usefixtures("impatient")
def test_who_polls_and_does_not_read(tmp_path: Path) -> None:
    """Is waited for, not written for: what it would take is bounded, and then it is let go."""

    async def poll() -> list[bytes]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"), limit=1024)
        writer.write(POLL)
        await read_one(reader)
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(POLL)
                await asyncio.wait_for(writer.drain(), 60)
        writer.close()
        return []

    serve(tmp_path / "s", poll, Gauge(padding=64 * 1024))


def test_metrics_address_in_use() -> None:
    """Its start fails, and says which address it was."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"cannot serve metrics on {address}: "):
            asyncio.run(MetricsServer(Serving()).start(address))


def test_bodies_and_endless_heads_are_refused(tmp_path: Path) -> None:
    """There is no command that needs one, and no client may fill the memory."""
    head = b"POST /v1/reload HTTP/1.1\r\nHost: a\r\n"
    large, long = talk(
        tmp_path / "s",
        head + b"Content-Length: 1000000\r\n\r\n" + bytes(100_000),
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    )
    assert large.startswith(b"HTTP/1.1 413 ") or large == b""
    assert long.startswith(b"HTTP/1.1 431 ") or long == b""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)), min_size=1, max_size=8))
def test_whatever_comes_the_next_client_is_served(tmp_path: Path, garbage: list[bytes]) -> None:
    """No bytes of one client stop the service for another."""
    assert talk(tmp_path / "s", *garbage, b"show version\n")[-1] == b"version: 1\n"


def test_mode_from_the_first_moment(tmp_path: Path) -> None:
    """Nobody connects before the group is right, and a group that is gone is an error with its name."""
    path = tmp_path / "s"
    server = AdminServer(Server(admin=str(path), admin_mode="0640"), Serving())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    asyncio.run(server.close())
    with pytest.raises(StartError, match="no group 'no such'"):
        AdminServer(Server(admin=str(path), admin_group="no such"), Serving())
    assert not path.exists()
