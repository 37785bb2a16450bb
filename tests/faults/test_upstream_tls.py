"""An upstream whose certificate cannot be trusted, beside one that is well."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from tests.support import gateway, kernel
from tests.support.authority import Authority
from tests.support.clients import exchange, load, to
from tests.support.gateway import Settings, Value
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer, serve, upstream
from tests.support.supervised import wait_for

NAME = "up.test"


class TlsServer:
    """Answers each request with its own context's choice of certificate; knows how many connections are open."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.accepted = 0
        self.opened = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._count(1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _count(self, change: int) -> None:
        with self._lock:
            self.accepted += max(0, change)
            self.opened += change

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with contextlib.suppress(OSError), wrapped as tls:
            try:
                tls.do_handshake()
            except ssl.SSLError:  # the alert is sent; a close would reset it away, as the request is not read
                tls.shutdown(socket.SHUT_WR)
                while socket.socket.recv(tls, 65536):
                    pass
            while data := tls.recv(65536):
                tls.sendall(answer(data.split(b" ")[1]))
        self._count(-1)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[TlsServer]:
    server = TlsServer(context)
    try:
        yield server
    finally:
        server.close()


def repeat_path(connection: UpstreamConnection, request: SeenRequest) -> None:
    connection.send(answer(request.target))


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """The one that is trusted, and another."""
    directory = tmp_path_factory.mktemp("pki")
    return Authority(directory, "trusted"), Authority(directory, "other")


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("expired", "certificate has expired"),
        ("wrong name", "Hostname mismatch"),
        ("unknown CA", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_certificate_that_cannot_be_trusted(authorities: tuple[Authority, Authority], fault: str, detail: str) -> None:
    """Each request is told at once, the log says why, nothing stays open, and the other upstream is untouched."""
    trusted, other = authorities
    faults = {
        "expired": lambda: trusted.issue(NAME, days=-1),
        "wrong name": lambda: trusted.issue("another.test"),
        "unknown CA": lambda: other.issue(NAME),
        "self-signed": lambda: trusted.self_signed(NAME),
    }
    with tls_server(faults[fault]()) as bad, upstream(serve(repeat_path)) as good:
        extra: dict[str, Value] = {
            "upstream": {
                "bad": {
                    "endpoints": [f"https://127.0.0.1:{bad.port}"],
                    "tls": {"ca": str(trusted.path), "server_name": NAME},
                    "pool": {"max_connections": 2, "max_connecting": 2},
                }
            },
            "route": [
                {"name": "bad", "upstream": "bad", "match": {"path": "/bad/*"}},
                {"name": "rest", "upstream": "u"},
            ],
        }
        with gateway.running(good.port, Settings(extra=extra)) as started:
            connect = to(*started.address)
            with load(connect, kept=2, new=1) as clients:
                with connect() as sock:
                    for number in range(30):
                        status, fields, body = exchange(sock, f"/bad/{number}")
                        told = json.loads(body)
                        assert (status, told["reason"]) == (502, "upstream_tls_failed")
                        assert told["resource"] == f"upstream/bad#127.0.0.1:{bad.port}"
                        assert "error=tls_certificate_error" in fields["proxy-status"]
                kernel.wait_until(lambda: bad.opened == 0, 10, "no connection to it is left")
                assert bad.accepted == 30
                clients.wait_served(5)
                event = started.wait_event("upstream_connect_failed")
                assert (event["upstream"], event["reason"]) == ("bad", "upstream_tls_failed")
                assert detail in event["detail"]

                bad.context = trusted.issue(NAME)
                with connect() as sock:
                    assert exchange(sock, "/bad/well")[2] == b"/bad/well"
                assert started.wait_event("upstream_connect_recovered")["failures"] == 30
                assert len(started.events("upstream_connect_failed")) == 1
            assert clients.failures == []
            lines = wait_for("all lines", lambda: [line for line in started.log_lines() if "/bad/" in line][30:])
            assert len(lines) == 1


def test_upstream_that_asks_for_a_certificate(authorities: tuple[Authority, Authority]) -> None:
    """In TLS 1.3 it refuses us after the handshake: that is no reset, and the log says what it wanted, once."""
    trusted, _ = authorities
    context = trusted.issue(NAME)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(trusted.path)
    context.verify_mode = ssl.CERT_REQUIRED
    with tls_server(context) as strict:
        table: dict[str, Value] = {
            "endpoints": [f"https://127.0.0.1:{strict.port}"],
            "tls": {"ca": str(trusted.path), "server_name": NAME},
        }
        with gateway.running(strict.port, Settings(extra={"upstream": {"u": table}})) as started:
            connect = to(*started.address)
            with connect() as sock:
                for number in range(10):
                    status, _, body = exchange(sock, f"/{number}")
                    assert (status, json.loads(body)["reason"]) == (502, "upstream_tls_failed")
            event = started.wait_event("upstream_refused_us")
            assert (event["upstream"], event["endpoint"]) == ("u", f"127.0.0.1:{strict.port}")
            assert event["detail"] == "tlsv13 alert certificate required"
            assert len(started.events("upstream_refused_us")) == 1
            assert not started.events("upstream_connect_recovered")
