"""What is said to connections for which there is no worker."""

from __future__ import annotations

import asyncio
import socket

import pytest

from edgeq.config.schema import Certificate, Listener, ListenerTls
from edgeq.supervisor.leftover_io import refuse_waiting
from tests.support.supervised import read_all

TLS = ListenerTls(certificates=(Certificate("unused.pem"),))


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("tls", [None, TLS])
def test_everybody_sees_an_end_and_nobody_a_reset(tls: ListenerTls | None, asks: bool) -> None:
    """Plain clients get the reason; with TLS there is no way to say it. Whether their request has come or not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        clients = [socket.create_connection(server.getsockname(), timeout=10) for _ in range(3)]
        if asks:
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        listener = Listener(address="127.0.0.1:80", name="shop", tls=tls)
        assert asyncio.run(refuse_waiting(server, listener, b"node")) == 3
        for client in clients:
            with client:
                answer = read_all(client)
            if tls is None:
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b'"reason":"draining","resource":"listener/shop"' in answer
            else:
                assert answer == b""
