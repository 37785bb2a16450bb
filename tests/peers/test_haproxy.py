"""HAProxy in front of the gateway: by PROXY protocol, and as an HTTP proxy that is trusted."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.conftest import Site
from tests.peers.programs import haproxy
from tests.support.gateway import free_port

CLIENT = "127.0.0.9"
"""HAProxy itself comes from 127.0.0.1."""
FRONTS = ("v1", "v2", "v2-options", "tls", "http")
_paths = itertools.count()


def config(site: Site, ports: dict[str, int]) -> str:
    """A front for each way to send the client's address, with health checks that send a header as well."""
    options = "send-proxy-v2 proxy-v2-options crc32c,unique-id"
    servers = {
        "v1": f"127.0.0.1:{site.proxied} send-proxy check check-send-proxy inter 200ms",
        "v2": f"127.0.0.1:{site.proxied} send-proxy-v2 check check-send-proxy inter 200ms",
        "v2-options": f"127.0.0.1:{site.proxied} {options}",
        "tls": f"127.0.0.1:{site.proxied_tls} send-proxy-v2",
        "http": f"127.0.0.1:{site.trusting}",
    }
    parts = [
        "global\n  maxconn 1000\ndefaults\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n",
        "  unique-id-format %ci:%cp\n",
    ]
    for name, server in servers.items():
        mode = "mode http\n  option forwardfor\n  http-reuse always" if name == "http" else "mode tcp"
        parts.append(f"listen {name}\n  {mode}\n  bind 127.0.0.1:{ports[name]}\n  server gateway {server}\n")
    return "".join(parts)


@pytest.fixture(scope="module")
def fronts(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Ports of HAProxy's fronts, by name."""
    ports = {name: free_port() for name in FRONTS}
    directory = tmp_path_factory.mktemp("haproxy")
    with haproxy(directory, ports["http"], config(site, ports)):
        yield ports


@contextlib.contextmanager
def connected(site: Site, port: int, secure: bool = False) -> Iterator[tuple[http.client.HTTPConnection, int]]:
    """A client from an address of its own, and its port."""
    sock: socket.socket = socket.create_connection(("127.0.0.1", port), 30, (CLIENT, 0))
    if secure:
        context = ssl.create_default_context(cafile=site.certificate.path)
        sock = context.wrap_socket(sock, server_hostname="gateway.test")
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.sock = sock
    try:
        yield connection, sock.getsockname()[1]
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, path: str, **fields: str) -> dict[str, Any]:
    """What the app got."""
    connection.request("GET", path, headers=fields)
    found = json.load(connection.getresponse())
    assert isinstance(found, dict)
    assert found["target"] == path
    fields_got = found["fields"]
    assert isinstance(fields_got, dict)
    return fields_got


@pytest.mark.parametrize("front", ["v1", "v2", "v2-options", "tls"])
def test_proxy_protocol(site: Site, fronts: dict[str, int], front: str) -> None:
    """The client's address and port come from the header, for the upstream as for the log, on every request."""
    with connected(site, fronts[front], front == "tls") as (connection, port):
        for _ in range(3):
            path = f"/haproxy/{next(_paths)}"
            fields = ask(connection, path, **{"X-Forwarded-For": "192.0.2.1"})
            assert fields["x-forwarded-for"] == CLIENT
            assert fields["x-forwarded-proto"] == ("https" if front == "tls" else "http")
            line = site.log_line(path)
            assert (line["client.address"], line["client.port"]) == (CLIENT, port)
            assert line["edgeq.listener"] == ("proxied-tls" if front == "tls" else "proxied")


def test_http_proxy_that_is_trusted(site: Site, fronts: dict[str, int]) -> None:
    """X-Forwarded-For of a trusted proxy is kept, and the proxy itself appended; the log names who is connected."""
    with connected(site, fronts["http"]) as (connection, _):
        for _ in range(3):
            path = f"/haproxy/{next(_paths)}"
            assert ask(connection, path)["x-forwarded-for"] == f"{CLIENT}, 127.0.0.1"
            assert site.log_line(path)["client.address"] == "127.0.0.1"


def test_many_clients(site: Site, fronts: dict[str, int]) -> None:
    """Each of many connections has its own address, however they mix."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(site, fronts[front])) for front in ("v1", "v2") * 25]
        for connection, _ in clients:
            connection.request("GET", f"/many/{connection.sock.getsockname()[1]}")
        for connection, port in clients:
            assert json.load(connection.getresponse())["target"] == f"/many/{port}"
        for _, port in clients:
            assert site.log_line(f"/many/{port}")["client.port"] == port


def test_without_a_header(site: Site) -> None:
    """A trusted peer that sends no PROXY header is not served: it could be anybody."""
    with connected(site, site.proxied) as (connection, _):
        connection.request("GET", "/no-header")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.getresponse()
    assert not [line for line in site.log_lines() if line.get("url.path") == "/no-header"]
