"""Dialing real sockets on loopback: every reason, every phase, and no descriptor left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from edgeq.config.base import Duration, Size
from edgeq.config.schema import Upstream, UpstreamTimeouts, UpstreamTls
from edgeq.reasons import REASONS
from edgeq.upstream.connect_io import Dial, Dialer, connect_reason, met_itself
from edgeq.upstream.endpoint import Address, Family
from edgeq.upstream.tls_io import upstream_context
from tests.support.gateway import free_port

PATIENCE_S = 20


class Peer(asyncio.Protocol):
    """The upstream side's protocol as the dialer sees it: keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.told.append("made")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        if not self.lost.done():
            self.lost.set_result(exc)


class Bench:
    """A dialer, and everything that its dials told."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.problems: list[dict[str, Any]] = []
        self.protocols: list[Peer] = []
        self.ends: list[tuple[Any, str]] = []
        self.dialer = self.make()
        loop.set_exception_handler(lambda _, context: self.problems.append(context))

    def make(
        self, context: ssl.SSLContext | None = None, connect_s: float = PATIENCE_S, server_name: str = ""
    ) -> Dialer:
        upstream = Upstream(
            endpoints=(),
            receive_buffer=Size(64 * 1024),
            timeouts=UpstreamTimeouts(connect=Duration(connect_s)),
            tls=UpstreamTls(server_name=server_name),
        )
        self.dialer = Dialer(self.loop, upstream, context)
        return self.dialer

    def protocol(self) -> Peer:
        self.protocols.append(Peer())
        return self.protocols[-1]

    def begin(self, address: Address) -> tuple[Dial, asyncio.Future[tuple[Any, str]]]:
        end: asyncio.Future[tuple[Any, str]] = self.loop.create_future()

        def done(protocol: Any, reason: str) -> None:
            self.ends.append((protocol, reason))
            end.set_result((protocol, reason))

        dial = self.dialer.dial(address, self.protocol, done)
        assert not end.done(), "done was called within dial"
        return dial, end

    async def dial(self, address: Address) -> tuple[Dial, Any, str]:
        dial, end = self.begin(address)
        protocol, reason = await asyncio.wait_for(end, PATIENCE_S)
        assert dial.phase == "ended"
        assert dial.reason == reason
        assert (protocol is None) == bool(reason)
        assert reason == "" or reason in REASONS
        assert self.dialer.snapshot() == []
        return dial, protocol, reason


Scenario = Callable[[Bench], Awaitable[None]]
Play = Callable[[Scenario], Bench]


def descriptors() -> dict[str, str]:
    """What each open descriptor is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the directory's own, gone by now
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture
def play() -> Play:
    """Run a scenario on a uvloop; afterwards no descriptor is left and nothing complained."""

    def run(scenario: Scenario) -> Bench:
        async def main() -> Bench:
            bench = Bench(asyncio.get_running_loop())
            await scenario(bench)
            for protocol in bench.protocols:
                if protocol.told == ["made"] and protocol.transport is not None:
                    protocol.transport.abort()
                    await protocol.lost
            return bench

        uvloop.new_event_loop().close()  # libuv's first loop opens a pipe for the process
        before = descriptors()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            bench = runner.run(main())
        gc.collect()
        # What others left behind may go meanwhile; nothing may be there that was not there before.
        assert descriptors().items() <= before.items()
        assert bench.problems == []
        for protocol in bench.protocols:
            assert protocol.told in ([], ["made", "lost"])
        return bench

    return run


@contextlib.contextmanager
def listening(
    family: socket.AddressFamily = socket.AF_INET, backlog: int = 16
) -> Iterator[tuple[socket.socket, Address]]:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    name: Family = "inet" if family == socket.AF_INET else "inet6"
    with socket.create_server((host, 0), family=family, backlog=backlog) as server:
        yield server, Address(name, host, server.getsockname()[1], "api.test")


@contextlib.contextmanager
def unix_listening(path: Path, backlog: int = 16) -> Iterator[tuple[socket.socket, Address]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(backlog)
        yield server, Address("unix", str(path), 0, "localhost")


def closed_port() -> Address:
    """A port where nothing listens, and nothing will that asks for any port."""
    return Address("inet", "127.0.0.1", free_port(), "api.test")


# Plain connections.


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_tcp(play: Play, family: socket.AddressFamily) -> None:
    """A listening port answers; the socket has the options that bound what the kernel holds."""

    async def scenario(bench: Bench) -> None:
        with listening(family) as (_, address):
            dial, protocol, reason = await bench.dial(address)
            assert reason == ""
            assert protocol.told == ["made"]
            assert 0 < dial.connect_s < PATIENCE_S
            assert dial.tls_s == 0
            sock = protocol.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert sock.getsockopt(socket.IPPROTO_TCP, 25) == 128 * 1024
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 64 * 1024

    play(scenario)


def test_bytes_flow(play: Play, tmp_path: Path) -> None:
    """What is written to the transport arrives, over TCP and over a Unix socket."""

    async def scenario(bench: Bench) -> None:
        with listening() as one, unix_listening(tmp_path / "a.sock") as two:
            for server, address in (one, two):
                _, protocol, _ = await bench.dial(address)
                protocol.transport.write(b"hello")
                client, _ = await asyncio.to_thread(server.accept)
                with client:
                    assert await asyncio.to_thread(client.recv, 5) == b"hello"

    play(scenario)


def test_refused(play: Play) -> None:
    """Nothing listens: refused."""

    async def scenario(bench: Bench) -> None:
        dial, _, reason = await bench.dial(closed_port())
        assert reason == "upstream_connect_refused"
        assert "ECONNREFUSED" in dial.detail

    assert play(scenario).protocols == []


def test_unroutable(play: Play) -> None:
    """An address that the kernel has no way to: failed, at once and without a packet."""

    async def scenario(bench: Bench) -> None:
        _, _, reason = await bench.dial(Address("inet", "255.255.255.255", 80, "api.test"))
        assert reason == "upstream_connect_failed"

    play(scenario)


def test_timeout_while_the_backlog_is_full(play: Play) -> None:
    """A listener whose accept queue is full drops the SYN: the connect time-out ends it, and nothing else can."""

    async def scenario(bench: Bench) -> None:
        with listening(backlog=0) as (_, address), contextlib.ExitStack() as fillers:
            for _ in range(4):
                sock = fillers.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex((address.host, address.port))
            bench.make(connect_s=0.2)
            dial, _, reason = await bench.dial(address)
            assert reason == "upstream_connect_timeout"
            assert "not connected after 0.2 s" in dial.detail

    play(scenario)


def test_meeting_itself_is_seen() -> None:
    """A TCP socket whose source port is its target connects to itself; an ordinary connection does not."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert met_itself(sock)
    with listening() as (_, address), socket.create_connection((address.host, address.port)) as sock:
        assert not met_itself(sock)


def test_unix_refused_missing_and_full(play: Play, tmp_path: Path) -> None:
    """A dead socket file and a missing one are refused; a full backlog is told at once by its own reason."""

    async def scenario(bench: Bench) -> None:
        with unix_listening(tmp_path / "dead.sock") as (_, dead):
            pass
        assert (await bench.dial(dead))[2] == "upstream_connect_refused"
        assert (await bench.dial(Address("unix", str(tmp_path / "none.sock"), 0, "localhost")))[2] == (
            "upstream_connect_refused"
        )
        assert (await bench.dial(Address("unix", "/" + "x" * 200, 0, "localhost")))[2] == "upstream_connect_failed"
        with unix_listening(tmp_path / "full.sock", backlog=0) as (_, full):
            assert (await bench.dial(full))[2] == ""
            assert (await bench.dial(full))[2] == "upstream_backlog_full"

    play(scenario)


def test_out_of_descriptors(play: Play) -> None:
    """EMFILE is our own trouble and says so."""

    async def scenario(bench: Bench) -> None:
        address = closed_port()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            _, end = bench.begin(address)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await end)[1] == "fd_exhausted"

    play(scenario)


@pytest.mark.parametrize("secure", [False, True])
def test_out_of_descriptors_once_connected(play: Play, pki: Path, secure: bool) -> None:
    """The same when the last descriptor goes while the transport is made, with TLS and without."""

    async def scenario(bench: Bench) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        end: asyncio.Future[tuple[Any, str]] = bench.loop.create_future()
        bench.make(tls_of(pki) if secure else None)

        def protocol() -> Peer:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            return bench.protocol()

        def done(protocol: Any, reason: str) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            end.set_result((protocol, reason))

        with listening() as (_, address):
            bench.dialer.dial(address, protocol, done)
            assert await asyncio.wait_for(end, PATIENCE_S) == (None, "fd_exhausted")

    play(scenario)


@pytest.mark.parametrize(
    ("code", "family", "reason"),
    [
        (errno.ECONNREFUSED, "inet", "upstream_connect_refused"),
        (errno.ETIMEDOUT, "inet", "upstream_connect_timeout"),
        (errno.EHOSTUNREACH, "inet", "upstream_connect_failed"),
        (errno.ENETUNREACH, "inet6", "upstream_connect_failed"),
        (errno.EACCES, "unix", "upstream_connect_failed"),
        (errno.EADDRNOTAVAIL, "inet", "upstream_port_exhausted"),
        (errno.EAGAIN, "unix", "upstream_backlog_full"),
        (errno.EAGAIN, "inet", "upstream_connect_failed"),
        (errno.EMFILE, "inet", "fd_exhausted"),
        (errno.ENFILE, "inet", "fd_exhausted"),
    ],
)
def test_reasons(code: int, family: str, reason: str) -> None:
    """Each errno that connecting can end with has its token of the closed table."""
    assert connect_reason(code, family) == reason
    assert reason in REASONS


def test_protocol_that_cannot_be_made(play: Play) -> None:
    """A factory that raises costs its own connection only, and is reported."""

    async def scenario(bench: Bench) -> None:
        end: asyncio.Future[tuple[Any, str]] = bench.loop.create_future()

        def broken() -> asyncio.Protocol:
            raise RuntimeError("broken")

        with listening() as (_, address):
            bench.dialer.dial(address, broken, lambda protocol, reason: end.set_result((protocol, reason)))
            assert await end == (None, "internal_error")
        assert [str(context["exception"]) for context in bench.problems] == ["broken"]
        bench.problems.clear()

    play(scenario)


# TLS.


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca, other (a second CA), server (api.test and 127.0.0.1) and client certificates, made by openssl."""
    path = tmp_path_factory.mktemp("pki")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=path, check=True, capture_output=True, timeout=60)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    for ca in ("ca", "other"):
        openssl("req", "-x509", *curve, "-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
    for name, more in (
        ("server", "subjectAltName=DNS:api.test,IP:127.0.0.1"),
        ("client", "subjectAltName=DNS:client.test"),
    ):
        (path / f"{name}.ext").write_text(more + "\nauthorityKeyIdentifier=keyid\n")
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        ca_words = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
        openssl("x509", "-req", "-in", f"{name}.csr", *ca_words, "-out", f"{name}.pem")
    openssl("ec", "-in", "client.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key")
    (path / "both.pem").write_text((path / "client.pem").read_text() + (path / "client.key").read_text())
    return path


@contextlib.contextmanager
def tls_server(
    pki: Path, client_ca: str = "", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Iterator[tuple[Address, list[Any]]]:
    """A TLS server in a thread: handshake, one byte, then it waits for the client to leave. Keeps what it saw."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.maximum_version = newest
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    names: list[str | None] = []
    context.sni_callback = lambda _sock, name, _context: names.append(name)
    seen: list[Any] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.settimeout(PATIENCE_S)
            with client:
                try:
                    with context.wrap_socket(client, server_side=True) as tls:
                        seen.append((names[-1] if names else None, tls.selected_alpn_protocol(), tls.getpeercert()))
                        tls.recv(1)
                except OSError as error:
                    seen.append(error)

    with listening() as (server, address):
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        try:
            yield address, seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)


def tls_of(pki: Path, **keys: Any) -> ssl.SSLContext:
    return upstream_context(UpstreamTls(**({"ca": str(pki / "ca.pem")} | keys)))


def test_tls(play: Play, pki: Path) -> None:
    """A verified handshake: SNI is the configured name, ALPN http/1.1, and both phases are timed."""

    async def scenario(bench: Bench) -> None:
        with tls_server(pki) as (address, seen):
            bench.make(tls_of(pki))
            dial, protocol, reason = await bench.dial(address)
            assert reason == ""
            assert protocol.told == ["made"]
            assert dial.connect_s > 0
            assert dial.tls_s > 0
            assert protocol.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            protocol.transport.abort()
            await protocol.lost
        assert seen[0][:2] == ("api.test", "http/1.1")

    play(scenario)


def test_tls_by_address(play: Play, pki: Path) -> None:
    """An upstream known by its address is verified by the address in the certificate, without SNI."""

    async def scenario(bench: Bench) -> None:
        with tls_server(pki) as (address, seen):
            bench.make(tls_of(pki))
            _, protocol, reason = await bench.dial(Address("inet", address.host, address.port, address.host))
            assert reason == ""
            protocol.transport.abort()
            await protocol.lost
        assert seen[0][0] is None

    play(scenario)


@pytest.mark.parametrize(
    ("keys", "server_name", "detail"),
    [
        ({}, "wrong.test", "Hostname mismatch"),
        ({"ca": "other.pem"}, "", "unable to get local issuer certificate"),
    ],
)
def test_tls_not_trusted(play: Play, pki: Path, keys: dict[str, str], server_name: str, detail: str) -> None:
    """A wrong name and an unknown CA fail, say why, and the protocol hears of nothing."""

    async def scenario(bench: Bench) -> None:
        with tls_server(pki) as (address, _):
            bench.make(tls_of(pki, **{key: str(pki / value) for key, value in keys.items()}), server_name=server_name)
            dial, _, reason = await bench.dial(address)
            assert reason == "upstream_tls_failed"
            assert detail in dial.detail

    assert [protocol.told for protocol in play(scenario).protocols] == [[]]


def test_tls_without_verification(play: Play, pki: Path) -> None:
    """verify = false takes any certificate, and still names the server."""

    async def scenario(bench: Bench) -> None:
        with tls_server(pki) as (address, seen):
            bench.make(upstream_context(UpstreamTls(verify=False)), server_name="wrong.test")
            _, protocol, reason = await bench.dial(address)
            assert reason == ""
            protocol.transport.abort()
            await protocol.lost
        assert seen[0][0] == "wrong.test"

    play(scenario)


@pytest.mark.parametrize("files", [("client.pem", "client.key"), ("both.pem", "")])
def test_tls_client_certificate(play: Play, pki: Path, files: tuple[str, str]) -> None:
    """A server that wants a certificate gets ours, from two files or from one."""

    async def scenario(bench: Bench) -> None:
        with tls_server(pki, str(pki / "ca.pem")) as (address, seen):
            certificate, key = (str(pki / name) if name else "" for name in files)
            bench.make(tls_of(pki, certificate=certificate, key=key))
            _, protocol, reason = await bench.dial(address)
            assert reason == ""
            protocol.transport.abort()
            await protocol.lost
        assert seen[0][2]["subjectAltName"] == (("DNS", "client.test"),)

    play(scenario)


def test_tls_client_certificate_missing(play: Play, pki: Path) -> None:
    """Without the certificate that it wants a TLS 1.2 server fails the dial; a 1.3 one ends the connection after it."""

    async def scenario(bench: Bench) -> None:
        bench.make(tls_of(pki))
        with tls_server(pki, str(pki / "ca.pem"), ssl.TLSVersion.TLSv1_2) as (address, _):
            assert (await bench.dial(address))[2] == "upstream_tls_failed"
        with tls_server(pki, str(pki / "ca.pem")) as (address, _):
            _, protocol, reason = await bench.dial(address)
            assert reason == ""
            assert isinstance(await asyncio.wait_for(protocol.lost, PATIENCE_S), OSError)

    play(scenario)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_tls_with_a_plain_server(play: Play, pki: Path, answer: bytes) -> None:
    """A peer that speaks no TLS, or leaves within the handshake, fails as TLS."""

    async def scenario(bench: Bench) -> None:
        bench.make(tls_of(pki))
        with listening() as (server, address):
            _, end = bench.begin(address)
            client, _ = await asyncio.to_thread(server.accept)
            with client:
                await asyncio.to_thread(client.recv, 65536)
                client.sendall(answer)
            assert (await asyncio.wait_for(end, PATIENCE_S))[1] == "upstream_tls_failed"

    play(scenario)


def test_tls_silence_is_a_connect_timeout(play: Play, pki: Path) -> None:
    """A peer that accepts and never answers the handshake costs no more than timeouts.connect."""

    async def scenario(bench: Bench) -> None:
        bench.make(tls_of(pki), connect_s=0.1)
        with listening() as (_, address):
            dial, _, reason = await bench.dial(address)
            assert reason == "upstream_connect_timeout"
            assert "TLS" in dial.detail

    play(scenario)


# Cancelling.


def test_cancel_before_the_loop_turns(play: Play, pki: Path, tmp_path: Path) -> None:
    """A dial cancelled in the turn that began it leaves nothing, whatever its state was."""

    async def scenario(bench: Bench) -> None:
        with listening() as (_, tcp), unix_listening(tmp_path / "a.sock") as (_, unix):
            for context in (None, tls_of(pki)):
                bench.make(context)
                for address in (tcp, unix, closed_port(), Address("inet", "255.255.255.255", 80, "a")):
                    dial, _ = bench.begin(address)
                    dial.cancel()
                    dial.cancel()
                    assert bench.dialer.snapshot() == []
            for _ in range(5):
                await asyncio.sleep(0)

    assert play(scenario).ends == []


@pytest.mark.parametrize("secure", [False, True])
def test_cancel_after_every_turn(play: Play, pki: Path, secure: bool) -> None:
    """However many turns the loop has had, a cancelled dial closes its socket and `done` comes never or came before."""

    async def scenario(bench: Bench) -> None:
        context = tls_of(pki) if secure else None
        with tls_server(pki) as (address, _):
            for turns in range(30):
                bench.make(context, connect_s=PATIENCE_S if turns % 3 else 0.001)
                dial, end = bench.begin(address)
                for _ in range(turns):
                    await asyncio.sleep(0 if turns % 2 else 0.0002)
                before = len(bench.ends)
                dial.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
                assert len(bench.ends) == before
                if end.done() and end.result()[0] is not None:
                    end.result()[0].transport.abort()
                for one in bench.protocols:
                    if one.told:
                        await asyncio.wait_for(one.lost, PATIENCE_S)

    play(scenario)


def test_cancel_in_the_handshake(play: Play, pki: Path) -> None:
    """A handshake that waits for its peer ends at once, and the peer sees the connection closed."""

    async def scenario(bench: Bench) -> None:
        bench.make(tls_of(pki))
        with listening() as (server, address):
            dial, end = bench.begin(address)
            client, _ = await asyncio.to_thread(server.accept)
            with client:
                client.settimeout(PATIENCE_S)
                assert await asyncio.to_thread(client.recv, 65536) != b""
                assert bench.dialer.snapshot()[0]["phase"] == "wrapping"
                bench.dialer.close()
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(client.recv, 65536) == b""
            assert not end.done()
            assert dial.phase == "ended"

    play(scenario)


def test_cancel_by_done_of_another(play: Play) -> None:
    """Ending one dial may close the dialer, and with it the others."""

    async def scenario(bench: Bench) -> None:
        ended = bench.loop.create_future()

        def done(protocol: Any, reason: str) -> None:
            bench.dialer.close()
            ended.set_result(reason)

        with listening() as (_, address):
            bench.dialer.dial(closed_port(), bench.protocol, done)
            bench.begin(address)
            bench.begin(address)
            assert await ended == "upstream_connect_refused"
            for _ in range(5):
                await asyncio.sleep(0)

    play(scenario)


# Contexts.


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"ca": "none.pem"}, "tls.ca: {pki}/none.pem: No such file"),
        ({"ca": "server.key"}, "tls.ca: {pki}/server.key: holds no certificate"),
        ({"certificate": "none.pem", "key": "client.key"}, "tls.certificate: {pki}/none.pem: No such file"),
        ({"certificate": "client.pem", "key": "none.key"}, "tls.key: {pki}/none.key: No such file"),
        ({"certificate": "client.pem"}, "tls.certificate: {pki}/client.pem: holds no private key"),
        ({"certificate": "client.pem", "key": "client.pem"}, "tls.key: {pki}/client.pem: holds no private key"),
        ({"certificate": "client.pem", "key": "server.key"}, "tls.key: {pki}/server.key: the key is not that of"),
        ({"certificate": "client.pem", "key": "locked.key"}, "tls.key: {pki}/locked.key: the private key is encrypted"),
        ({"key": "client.key"}, "tls.key: {pki}/client.key: a key needs tls.certificate"),
        ({"ca": "broken.pem"}, "tls.ca: {pki}/broken.pem: no certificates can be read"),
    ],
)
def test_context_errors_name_key_and_file(pki: Path, keys: dict[str, str], text: str) -> None:
    """Every mistake in [upstream.NAME.tls] names its key and its file."""
    (pki / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=r"^tls\.") as caught:
        upstream_context(UpstreamTls(**dict[str, Any]({key: str(pki / value) for key, value in keys.items()})))
    assert str(caught.value).startswith(text.format(pki=pki))


def test_context_defaults() -> None:
    """Without keys the system's CAs are trusted, names are checked, and nothing below TLS 1.2 is spoken."""
    context = upstream_context(UpstreamTls())
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
