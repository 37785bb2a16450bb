"""The real gateway's places for connections: who waited for one says so, and a reload never loses or invents one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import gateway
from tests.support.clients import exchange, finish
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.scripted_upstream import ScriptedUpstream, answer, serve
from tests.support.supervised import wait_for

WAITED_S = 0.5
NO_QUEUE: Value = {"max": 0, "timeout": 1}


@pytest.fixture
def backend() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(serve(lambda connection, request: connection.send(answer(request.target)))) as server:
        yield server


def opened(port: int, count: int) -> list[socket.socket]:
    """So many connections, each of which has served a request."""
    found = []
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        found.append(sock)
        assert exchange(sock, f"/{number}")[0] == 200
    return found


def status_of_one_more(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        return exchange(sock, "/one-more", close=True)[0]


def close(*socks: socket.socket) -> None:
    for sock in socks:
        sock.close()


def fill(port: int, count: int) -> list[socket.socket]:
    """Take all places of a listener that should have so many; those given back just now may still be on their way."""
    found: list[socket.socket] = []

    def one_more() -> bool:
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        if exchange(sock, f"/{len(found)}")[0] == 200:
            found.append(sock)
            return True
        sock.close()
        return False

    for number in range(count):
        wait_for(f"place {number + 1} of {count}", one_more)
    assert status_of_one_more(port) == 503
    return found


def logged(started: Gateway, path: str) -> list[dict[str, Any]]:
    """Lines of the access log for this path."""
    return [line for line in map(json.loads, started.log_lines()) if line.get("url.path") == path]


def test_the_wait_for_a_place_is_logged(backend: ScriptedUpstream) -> None:
    """A connection that had to wait tells for how long, in its first line only; others tell nothing."""
    terms: dict[str, Value] = {"max_connections": 1, "queue": {"max": 4, "timeout": 20}}
    with gateway.running(backend.port, Settings(extra={"listener": terms})) as started:
        started.wait_event("serving")
        (first,) = opened(started.address[1], 1)
        with socket.create_connection(started.address, timeout=30) as second:
            second.sendall(b"GET /waited HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
            # Answers on the one that is open come from the same loop: the other is in the queue by the second one.
            until_s = time.monotonic() + 2 * WAITED_S
            while time.monotonic() < until_s:
                assert exchange(first, "/before")[0] == 200
            first.close()
            assert finish(second)[0] == 200
            assert exchange(second, "/again")[0] == 200
        wait_for("the log", lambda: logged(started, "/again"))
        assert logged(started, "/waited")[0]["edgeq.accept_ms"] >= WAITED_S * 1000
        # A first request may have waited in the kernel for a while, on a busy machine.
        assert logged(started, "/0")[0].get("edgeq.accept_ms", 0) < WAITED_S * 1000
        for path in ("/before", "/again"):
            assert all("edgeq.accept_ms" not in line for line in logged(started, path))


def test_a_listener_is_renamed_under_open_connections(backend: ScriptedUpstream) -> None:
    """Its old name goes to another listener meanwhile: both have exactly their places, before and after."""
    terms: dict[str, Value] = {"max_connections": 4, "queue": NO_QUEUE, "timeouts": {"keepalive": 300}}
    made = Settings(workers=2, extra={"listener": {"name": "front", **terms}})
    with gateway.running(backend.port, made) as started:
        started.wait_event("serving")
        here, there = started.address[1], free_port()
        close(*fill(here, 4))
        kept = fill(here, 4)
        kept.pop().close()
        listeners: list[Value] = [
            {"address": f"127.0.0.1:{here}", "name": "back", **terms},
            {"address": f"127.0.0.1:{there}", "name": "front", **terms},
        ]
        started.reload({"listener": listeners})
        assert [exchange(sock, "/kept")[0] for sock in kept] == [200] * 3
        kept += fill(here, 1)
        others = fill(there, 4)
        close(*kept)
        kept = fill(here, 4)  # the places of those from before the reload have come back here ...
        assert status_of_one_more(there) == 503  # ... and not there
        started.reload({"listener": listeners[:1]})
        close(*kept, *others)
        started.reload({"listener": listeners})
        close(*fill(here, 4), *fill(there, 4))


def test_a_listener_moves_under_open_connections(backend: ScriptedUpstream) -> None:
    """The same name at another address: connections of the old one take no place there, and leave none behind."""
    terms: dict[str, Value] = {"name": "front", "max_connections": 3, "queue": NO_QUEUE, "timeouts": {"keepalive": 300}}
    made = Settings(workers=2, extra={"server": {"drain_idle": 300}, "listener": terms})
    with gateway.running(backend.port, made) as started:
        started.wait_event("serving")
        here, there = started.address[1], free_port()
        kept = fill(here, 3)
        started.reload({"listener": [{"address": f"127.0.0.1:{there}", **terms}]})
        assert [exchange(sock, "/kept")[0] for sock in kept] == [200] * 3
        others = fill(there, 3)
        close(*kept)
        assert status_of_one_more(there) == 503
        started.reload({"listener": [{"address": f"127.0.0.1:{here}", **terms}]})
        close(*fill(here, 3), *others)


def test_clients_of_a_unix_socket_are_many(backend: ScriptedUpstream, tmp_path: Path) -> None:
    """The limit per client does not take them for one client."""
    path = tmp_path / "http.sock"
    with gateway.running(backend.port, Settings(workers=2)) as started:
        started.wait_event("serving")
        listeners: list[Value] = [
            {"address": f"127.0.0.1:{started.address[1]}"},
            {"address": f"unix:{path}", "max_connections_per_client": 1},
        ]
        started.reload({"listener": listeners})
        kept = []
        for number in range(6):
            sock = socket.socket(socket.AF_UNIX)
            kept.append(sock)
            sock.settimeout(30)
            sock.connect(str(path))
            assert exchange(sock, f"/{number}")[0] == 200
        close(*kept)
