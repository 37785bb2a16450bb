"""TLS sessions resume on every worker of the real gateway, and only where they may."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.listener import certificates
from tests.listener.certificates import Made
from tests.support import gateway
from tests.support.clients import Closed, exchange, server_pid
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.scripted_upstream import ScriptedUpstream, answer, serve
from tests.support.supervised import wait_for

WORKERS = 3
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
RECONNECTS = 30


@pytest.fixture
def backend() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(serve(lambda connection, request: connection.send(answer(request.target)))) as server:
        yield server


def tls_of(*made: Made, **more: str) -> dict[str, Value]:
    """[listener.tls] with these certificates."""
    return {"certificates": [{"certificate": str(one.path), "key": str(one.key)} for one in made], **more}


@contextlib.contextmanager
def running(backend: ScriptedUpstream, tls: Value) -> Iterator[Gateway]:
    """A gateway all of whose workers serve."""
    with gateway.running(backend.port, Settings(workers=WORKERS, extra={"listener": {"tls": tls}})) as started:
        started.wait_event("serving")
        yield started


class Visitor:
    """A client that comes again and again with the session of its first visit."""

    def __init__(self, port: int, trusted: Made, version: ssl.TLSVersion, name: str = "gateway.test") -> None:
        self.port = port
        self.name = name
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(trusted.path)
        self.context.minimum_version = self.context.maximum_version = version
        self.session: ssl.SSLSession | None = None

    def visit(self, pids: list[int] | None = None) -> tuple[bool, int]:
        """Returns: whether the session was resumed, and which worker it was. Raises ssl.SSLError, Closed."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain,
            self.context.wrap_socket(plain, server_hostname=self.name, session=self.session) as sock,
        ):
            assert exchange(sock, "/visit")[2] == b"/visit"
            if self.session is None:
                self.session = sock.session
            return bool(sock.session_reused), server_pid(sock, pids) if pids else 0


@pytest.mark.parametrize("version", VERSIONS)
def test_every_reconnect_resumes(backend: ScriptedUpstream, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """On whichever worker it arrives; on the successor of one that died; after a reload that does not concern it; and
    not once the certificate has been replaced."""
    first = certificates.make(tmp_path, "first", "gateway.test")
    other = certificates.make(tmp_path, "other", "other.test")
    with running(backend, tls_of(first, other)) as started:
        visitor = Visitor(started.address[1], first, version)
        by_name = Visitor(started.address[1], other, version, "other.test")
        for one in (visitor, by_name):
            assert one.visit() == (False, 0)
            visits = [one.visit(started.workers) for _ in range(RECONNECTS)]
            assert all(resumed for resumed, _ in visits)
            assert {pid for _, pid in visits} == set(started.workers)
        victim = started.workers[0]
        os.kill(victim, signal.SIGKILL)
        wait_for("its successor", lambda: len(started.events("worker ready")) == WORKERS + 1)
        wait_for("its successor", lambda: len(started.workers) == WORKERS and victim not in started.workers)
        started.reload({"listener": {"max_requests": 1000}})
        visits = [visitor.visit(started.workers) for _ in range(RECONNECTS)]
        assert all(resumed for resumed, _ in visits)
        assert {pid for _, pid in visits} == set(started.workers)
        replaced = certificates.make(tmp_path, "replaced", "gateway.test")
        visitor.context.load_verify_locations(replaced.path)
        started.reload({"listener": {"tls": tls_of(replaced, other)}})
        assert not any(visitor.visit()[0] for _ in range(RECONNECTS // 3))
        assert started.events("TLS sessions resume only on the worker that began them") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ticket_is_no_way_around_client_certificates(
    backend: ScriptedUpstream, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Neither at another listener, nor at the same one after a reload that begins to ask for them."""
    made = certificates.make(tmp_path, "made", "gateway.test")
    with running(backend, tls_of(made)) as started:
        strict = free_port()
        asks: list[Value] = [
            {"address": f"127.0.0.1:{started.address[1]}", "tls": tls_of(made)},
            {"address": f"127.0.0.1:{strict}", "tls": tls_of(made, client_ca=str(made.path))},
        ]
        started.reload({"listener": asks})
        visitor = Visitor(started.address[1], made, version)
        visitor.visit()
        assert visitor.visit()[0]
        visitor.port = strict
        for _ in range(RECONNECTS // 3):
            with pytest.raises((ssl.SSLError, Closed, OSError)):
                visitor.visit()
        visitor.port = started.address[1]
        assert visitor.visit()[0]
        started.reload({"listener": {"tls": tls_of(made, client_ca=str(made.path))}})
        for _ in range(RECONNECTS // 3):
            with pytest.raises((ssl.SSLError, Closed, OSError)):
                visitor.visit()


def test_openssl_resumes(backend: ScriptedUpstream, tmp_path: Path) -> None:
    """As another client sees it: the session that s_client has stored is reused by each later process."""
    made = certificates.make(tmp_path, "made", "gateway.test")
    with running(backend, tls_of(made)) as started:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{started.address[1]}", "-servername", "gateway.test"]
        command += ["-CAfile", str(made.path), "-ign_eof", "-tls1_3"]
        request = b"GET /a HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n"

        def run(*more: str) -> bytes:
            return subprocess.run([*command, *more], input=request, check=True, capture_output=True).stdout

        session = str(tmp_path / "session.pem")
        assert b"\nNew, TLSv1.3" in run("-sess_out", session)
        for _ in range(10):
            assert b"\nReused, TLSv1.3" in run("-sess_in", session)
