"""The real gateway's listeners: every family and TLS in one process, certificates that change, machine-wide limits."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.listener import certificates
from tests.support import gateway
from tests.support.clients import Connect, begin, exchange, finish, load, to
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection, answer, serve
from tests.support.supervised import wait_for

WORKERS = 2


@pytest.fixture
def backend() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(serve(lambda connection, request: connection.send(answer(request.target)))) as server:
        yield server


def settings(**listener: Value) -> Settings:
    extra: dict[str, Value] = {"server": {"workers": WORKERS}, "listener": {"timeouts": {"keepalive": 300}, **listener}}
    return Settings(workers=WORKERS, extra=extra)


def common_name(sock: ssl.SSLSocket) -> str:
    """Of the certificate that the server has shown."""
    certificate = sock.getpeercert()
    assert certificate
    names = dict(pair[0] for pair in certificate["subject"])  # type: ignore[misc]
    return str(names["commonName"])


def to_tls(port: int, *trusted: Path) -> Connect:
    """Connects by TLS and verifies the certificate."""

    def connect() -> socket.socket:
        context = ssl.create_default_context()
        for path in trusted:
            context.load_verify_locations(path)
        with contextlib.ExitStack() as closed:
            sock = closed.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            wrapped = context.wrap_socket(sock, server_hostname="gateway.test")
            closed.pop_all()
        return wrapped

    return connect


def to_unix(path: Path) -> Connect:
    """Connects to a Unix socket."""

    def connect() -> socket.socket:
        with contextlib.ExitStack() as closed:
            sock = closed.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(30)
            sock.connect(str(path))
            closed.pop_all()
        return sock

    return connect


def tls_connection(connect: Connect) -> ssl.SSLSocket:
    sock = connect()
    assert isinstance(sock, ssl.SSLSocket)
    return sock


def test_all_families_and_tls_in_one_process(backend: ScriptedUpstream, tmp_path: Path) -> None:
    """IPv4, IPv6, Unix and TLS listeners answer side by side; a new certificate reaches newcomers, the others stay."""
    old = certificates.make(tmp_path, "old", "gateway.test")
    new = certificates.make(tmp_path, "new", "gateway.test")
    served = tmp_path / "served.pem"
    served.write_text(old.path.read_text() + old.key.read_text())
    served.chmod(0o600)
    path = tmp_path / "http.sock"
    with gateway.running(backend.port, settings()) as first:
        port = first.address[1]
        ipv6, tls = free_port(), free_port()
        listeners: list[Value] = [
            {"address": f"127.0.0.1:{port}"},
            {"address": f"[::1]:{ipv6}"},
            {"address": f"unix:{path}"},
            {"address": f"127.0.0.1:{tls}", "tls": {"certificates": [{"certificate": str(served)}]}},
        ]
        connect_tls = to_tls(tls, old.path, new.path)
        first.wait_event("serving")
        with load(to("127.0.0.1", port), kept=2, new=1) as before:
            first.reload({"listener": listeners})
            connects = [to("127.0.0.1", port), to("::1", ipv6), to_unix(path), connect_tls]
            with load(connects, kept=1, new=1) as clients:
                kept = tls_connection(connect_tls)
                assert common_name(kept) == "old"
                assert exchange(kept, "/a")[2] == b"/a"
                served.write_text(new.path.read_text() + new.key.read_text())
                first.reload({"listener": listeners})
                for _ in range(8):  # both workers
                    with tls_connection(connect_tls) as fresh:
                        assert common_name(fresh) == "new"
                        assert exchange(fresh, "/b")[2] == b"/b"
                assert exchange(kept, "/c")[2] == b"/c"
                kept.close()
                clients.wait_served(5)
            assert clients.failures == []
            assert [(client.connections, client.announced) for client in clients.kept] == [(1, 0)] * 4
            # Back to one listener: the others go without a reset.
            with load(connects[1:], kept=1, new=1) as leaving:
                first.reload({"listener": listeners[:1]})
                wait_for("refusals", lambda: all(client.turned_away for client in leaving.new))
            assert leaving.failures == []
        assert before.failures == []
        assert [(client.connections, client.announced) for client in before.kept] == [(1, 0)] * 2


def test_connections_of_a_removed_listener_are_let_go(tmp_path: Path) -> None:
    """Idle ones are closed, who waits for an answer gets it announced as the last, and none outlasts drain_timeout;
    those of the other listener notice nothing."""
    gate = threading.Event()

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target == b"/stuck":
            connection.stall()
        if request.target == b"/waits":
            connection.wait(gate)
        connection.send(answer(request.target))

    certificate = certificates.make(tmp_path, "there", "gateway.test")
    tls: Value = {"certificates": [{"certificate": str(certificate.path), "key": str(certificate.key)}]}
    made = Settings(workers=WORKERS, extra={"server": {"drain_timeout": 3, "drain_idle": 0.3}})
    with ScriptedUpstream(serve(handler)) as server, gateway.running(server.port, made) as started:
        started.wait_event("serving")
        plain, secure = free_port(), free_port()
        here: Value = {"address": f"127.0.0.1:{started.address[1]}", "timeouts": {"keepalive": 300}}
        there: list[Value] = [
            {"address": f"127.0.0.1:{plain}", "timeouts": {"keepalive": 300}},
            {"address": f"127.0.0.1:{secure}", "timeouts": {"keepalive": 300}, "tls": tls},
        ]
        started.reload({"listener": [here, *there]})
        staying = open_kept(started, 4)
        ways = [to("127.0.0.1", plain), to_tls(secure, certificate.path)]
        idle = [connect() for connect in ways * 4]
        waiting = [connect() for connect in ways * 2]
        stuck = ways[0]()
        for sock in (*idle, *waiting, stuck):
            assert exchange(sock, "/first")[0] == 200
        for sock in waiting:
            begin(sock, "/waits")
        begin(stuck, "/stuck")
        server.wait_for(lambda: sum(seen.target in (b"/waits", b"/stuck") for seen in server.requests) == 5)
        started.reload({"listener": [here]})
        gate.set()
        for sock in waiting:
            status, fields, body = finish(sock)
            assert (status, fields.get("connection"), body) == (200, "close", b"/waits")
        for sock in (*waiting, *idle):
            assert sock.recv(1) == b""
        status, fields, body = finish(stuck)
        assert (status, fields.get("connection")) == (503, "close")
        assert b'"reason":"draining"' in body
        assert stuck.recv(1) == b""
        for sock in staying:
            status, fields, _ = exchange(sock, "/still-there")
            assert (status, fields.get("connection")) == (200, None)
        for sock in (*staying, *waiting, *idle, stuck):
            sock.close()


def test_unreadable_certificate_at_reload(backend: ScriptedUpstream, tmp_path: Path) -> None:
    """A certificate that cannot be used refuses the whole reload and says which file; the old one is shown further."""
    old = certificates.make(tmp_path, "old", "gateway.test")
    tls: Value = {"certificates": [{"certificate": str(old.path), "key": str(old.key)}]}
    made = settings(tls=tls)
    with gateway.running(backend.port, made) as started:
        started.wait_event("serving")
        connect = to_tls(started.address[1], old.path)
        kept = tls_connection(connect)
        assert exchange(kept, "/a")[0] == 200
        broken = tmp_path / "broken.pem"
        broken.write_text("nothing")
        started.reconfigure({"listener": {"tls": {"certificates": [{"certificate": str(broken)}]}}})
        started.process.send_signal(1)
        event = started.wait_event("configuration refused, the old one stays")
        assert str(broken) in event["problem"]
        with tls_connection(connect) as fresh:
            assert exchange(fresh, "/b")[0] == 200
        assert exchange(kept, "/c")[0] == 200
        kept.close()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Other users may enter it; pytest's own they may not."""
    with tempfile.TemporaryDirectory(prefix="edgeq-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_key_that_the_workers_user_cannot_read(backend: ScriptedUpstream, open_directory: Path) -> None:
    """The start ends with one line that says which file, why, and as whom; no traceback, no dump of the settings."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    made = certificates.make(open_directory, "shop", "shop.test")
    made.key.chmod(0o600)
    config = open_directory / "edgeq.toml"
    tls = gateway.toml({"certificates": [{"certificate": str(made.path), "key": str(made.key)}]})
    config.write_text(
        'server = { user = "nobody", workers = 1 }\n'
        f'listener = [{{ address = "127.0.0.1:{free_port()}", tls = {tls} }}]\n'
        f'upstream.u = {{ endpoints = ["{backend.url}"] }}\n'
    )
    command = [sys.executable, "-m", "edgeq", "serve", "--config", str(config)]
    ended = subprocess.run(command, cwd=gateway.ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"edgeq serve: worker 0 cannot start: {made.path}: cannot be used with key {made.key}: "
        "Permission denied (workers run as user nobody)"
    )
    assert "Traceback" not in ended.stderr
    assert "Spawn(" not in ended.stderr


def open_kept(started: Gateway, count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    """So many connections, one after the other, each of which has served a request."""
    found = []
    for number in range(count):
        sock = socket.create_connection(started.address, timeout=30, source_address=(source, 0))
        found.append(sock)
        assert exchange(sock, f"/{number}")[0] == 200
    return found


def answered(started: Gateway, source: str = "127.0.0.1") -> int:
    """The status that one more connection gets; 0 if it is closed without a word."""
    with socket.create_connection(started.address, timeout=30, source_address=(source, 0)) as sock:
        return exchange(sock, "/one-more", close=True)[0]


def test_limit_of_connections_is_machine_wide(backend: ScriptedUpstream) -> None:
    """max_connections counts those of both workers; one more waits for a place, and gets it from either of them."""
    with gateway.running(backend.port, settings(max_connections=8, queue={"max": 16, "timeout": 20})) as started:
        started.wait_event("serving")
        kept = open_kept(started, 8)
        waiting = [socket.create_connection(started.address, timeout=30) for _ in range(8)]
        for number, sock in enumerate(waiting):
            sock.sendall(f"GET /w{number} HTTP/1.1\r\nHost: gateway.test\r\n\r\n".encode())
        answers = [exchange(sock, "/still-there") for sock in kept]
        assert [status for status, _, _ in answers] == [200] * 8
        assert not any(seen.target.startswith(b"/w") for seen in backend.requests)
        for sock in kept:
            sock.close()
        backend.wait_for(
            lambda: len([seen for seen in backend.requests if seen.target.startswith(b"/w")]) == 8, 20, "their turn"
        )
        for sock in waiting:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            sock.close()


def test_full_listener_refuses_with_its_reason(backend: ScriptedUpstream) -> None:
    """Without room to wait, one connection too many is told so by 503 and the access log's reason."""
    with gateway.running(backend.port, settings(max_connections=4, queue={"max": 0, "timeout": 1})) as started:
        started.wait_event("serving")
        kept = open_kept(started, 4)
        with socket.create_connection(started.address, timeout=30) as sock:
            status, fields, body = exchange(sock, "/too-many")
        assert status == 503
        assert b"conn_limit_listener" in body or "conn_limit_listener" in str(fields)
        kept.pop().close()
        wait_for("the free place", lambda: answered(started) == 200)
        for sock in kept:
            assert exchange(sock, "/still-there")[0] == 200
            sock.close()


def test_an_ipv6_network_is_one_client(backend: ScriptedUpstream) -> None:
    """Through the PROXY header: each connection from another address of one /64, and together over the limit."""
    made = settings(
        max_connections_per_client=3, queue={"max": 0}, proxy_protocol=True, proxy_protocol_from=["127.0.0.1"]
    )
    with gateway.running(backend.port, made) as started:
        started.wait_event("serving")

        def connect(client: str) -> tuple[socket.socket, int]:
            sock = socket.create_connection(started.address, timeout=30)
            sock.sendall(f"PROXY TCP6 {client} 2001:db8:ffff::1 4711 80\r\n".encode())
            return sock, exchange(sock, "/a")[0]

        opened = [connect(f"2001:db8:1:2:{number:x}::{number:x}") for number in range(1, 4)]
        assert [status for _, status in opened] == [200] * 3
        refused = connect("2001:db8:1:2:ffff::")
        assert refused[1] == 429
        other = connect("2001:db8:1:3::1")
        assert other[1] == 200
        for sock, _ in (*opened, refused, other):
            sock.close()


def test_limit_per_client_is_machine_wide(backend: ScriptedUpstream) -> None:
    """max_connections_per_client counts those of both workers, for each client address alone."""
    with gateway.running(backend.port, settings(max_connections_per_client=4)) as started:
        started.wait_event("serving")
        wait_for("the starter's own connection to be gone", lambda: answered(started) == 200)
        kept = open_kept(started, 4)
        assert answered(started) in (429, 503)
        others = open_kept(started, 4, "127.0.0.2")
        assert answered(started, "127.0.0.2") in (429, 503)
        kept.pop().close()
        wait_for("the free place", lambda: answered(started) == 200)
        for sock in (*kept, *others):
            assert exchange(sock, "/still-there")[0] == 200
            sock.close()
