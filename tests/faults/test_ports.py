"""An upstream for which no local port is left, for real: in a network namespace that has four of them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import begin, exchange, finish
from tests.support.gateway import ROOT, Gateway, Settings
from tests.support.namespace import Namespace, namespace
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection, answer, serve
from tests.support.supervised import connect

PORTS = 4


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


def start(place: Namespace, directory: Path, upstream_port: int) -> Gateway:
    """A gateway in the namespace; its clients come by a Unix socket, which is in none."""
    config = directory / "edgeq.toml"
    config.write_text(
        f"server = {{ workers = 1, drain_timeout = 1 }}\n"
        f'listener = [{{ address = "unix:{directory}/http.sock" }}]\n'
        f'upstream.u = {{ endpoints = ["http://127.0.0.1:{upstream_port}"] }}\n'
        f'access_log.target = "{directory}/access.log"\n'
    )
    command = place.command(sys.executable, "-m", "edgeq", "serve", "--config", str(config))
    with (directory / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    return Gateway("edgeq", ("", 0), process, directory, Settings())


def test_no_port_left(place: Namespace, tmp_path: Path) -> None:
    """Who needs a fifth connection is told so at once, the others are served, and so is he once one is free again."""
    go = threading.Event()

    def hold(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target.startswith(b"/hold/"):
            connection.wait(go)
        connection.send(answer(request.target))

    server = place.call(lambda: ScriptedUpstream(serve(hold)))
    place.run("sysctl", "-w", f"net.ipv4.ip_local_port_range=40000 {40000 + PORTS - 1}")
    started = start(place, tmp_path, server.port)
    held: list[socket.socket] = []
    try:
        started.wait_event("serving")
        address = f"unix:{tmp_path}/http.sock"
        for number in range(PORTS):
            held.append(connect(address))
            begin(held[-1], f"/hold/{number}")
        server.wait_for(lambda: len(server.requests) == PORTS, 20, "all ports are in use")
        with connect(address) as sock:
            for number in range(3):
                status, fields, body = exchange(sock, f"/more/{number}")
                told = json.loads(body)
                assert (status, told["reason"]) == (503, "upstream_port_exhausted")
                assert told["resource"] == f"upstream/u#127.0.0.1:{server.port}"
                assert fields["retry-after"] == "1"
            event = started.wait_event("upstream_connect_failed")
            assert (event["reason"], event["failures"]) == ("upstream_port_exhausted", 1)
            assert event["detail"].startswith("EADDRNOTAVAIL")
            go.set()
            for number, one in enumerate(held):
                assert finish(one)[2] == b"/hold/%d" % number
            assert exchange(sock, "/at-last")[2] == b"/at-last"
        assert len(server.connections) == PORTS
        # A new connection, once the kernel has a port: the endpoint counts as reached again.
        server.drop_idle()
        with connect(address) as sock:
            assert exchange(sock, "/new")[2] == b"/new"
        assert started.wait_event("upstream_connect_recovered")["failures"] == 3
    except BaseException as error:
        error.add_note(started.describe())
        raise
    finally:
        go.set()
        for one in held:
            one.close()
        started.stop()
        server.stop()
