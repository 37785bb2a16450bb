"""The real gateway as real processes, under a steady stream of requests, while something happens to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import gateway, kernel
from tests.support.clients import Closed, begin, exchange, finish, load, server_pid, to
from tests.support.gateway import ROOT, Gateway, Settings, Value
from tests.support.scripted_upstream import (
    ScriptedUpstream,
    SeenRequest,
    UpstreamConnection,
    answer,
    serve,
    upstream,
)
from tests.support.supervised import wait_for


class Backend:
    """An upstream that repeats the path, and keeps answers to /hold/... back until the test lets them go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.server = ScriptedUpstream(serve(self._answer))

    def _answer(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target.startswith(b"/hold/"):
            connection.wait(self.go)
        connection.send(answer(request.target))

    def wait_held(self, *paths: str) -> None:
        """Until these requests have arrived."""
        wanted = {path.encode() for path in paths}
        self.server.wait_for(lambda: wanted <= {seen.target for seen in self.server.requests}, 30, f"{paths}")


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    try:
        yield made
    finally:
        made.go.set()
        made.server.stop()


def settings(workers: int, **extra: Value) -> Settings:
    """Many seconds for everything, so that only what is tested ends a connection."""
    tables: dict[str, Value] = {"server": {"workers": workers, "drain_timeout": 30, "drain_idle": 2}}
    return Settings(workers=workers, keepalive_s=300, extra=gateway.merge(tables, extra))


@contextlib.contextmanager
def running(backend: Backend, made: Settings) -> Iterator[Gateway]:
    """A gateway all of whose workers serve."""
    with gateway.running(backend.server.port, made) as started:
        started.wait_event("serving")
        yield started


def kept_connections(started: Gateway, each: int) -> dict[int, list[socket.socket]]:
    """Connections that have served a request, so many on each worker: pid to connections."""
    found: dict[int, list[socket.socket]] = {pid: [] for pid in started.workers}
    surplus: list[socket.socket] = []
    connect = to(*started.address)
    for number in range(400):
        sock = connect()
        assert exchange(sock, f"/first/{number}")[0] == 200
        owner = found.get(server_pid(sock, list(found)), surplus)
        (owner if len(owner) < each else surplus).append(sock)
        if all(len(owned) == each for owned in found.values()):
            break
    for sock in surplus:
        sock.close()
    assert all(len(owned) == each for owned in found.values())
    return found


def test_killed_worker_takes_only_its_own_requests(backend: Backend) -> None:
    """kill -9 of one of two workers: what the other has in flight is served, all else goes on, a successor comes."""
    with running(backend, settings(2)) as started:
        connect = to(*started.address)
        workers = started.workers
        assert len(workers) == 2
        victim, survivor = workers
        connections = kept_connections(started, 3)
        held = {f"/hold/{pid}/{n}": connections[pid][n] for pid in workers for n in range(2)}
        for path, sock in held.items():
            begin(sock, path)
        backend.wait_held(*held)
        with load(connect, kept=3, new=2) as clients:
            os.kill(victim, signal.SIGKILL)
            wait_for("its successor", lambda: started.events("worker died") and len(started.workers) == 2)
            wait_for("its successor to serve", lambda: len(started.events("worker ready")) == 3)
            clients.wait_served(10)
        assert started.events("worker died")[0]["ended"] == "SIGKILL"
        assert started.events("worker died")[0]["restart_in_s"] == 0
        for client in clients.clients:
            # One request at a time, so the victim had at most one of each in flight.
            assert len(client.failures) <= 1, client.failures
        backend.go.set()
        for path, sock in held.items():
            if f"/{survivor}/" in path:
                assert finish(sock)[2] == path.encode()
            else:
                with pytest.raises(Closed):
                    finish(sock)
        assert exchange(connections[survivor][2], "/after")[0] == 200
        with load(connect) as after:
            after.wait_served(10)
        assert after.failures == []
        for sock in (sock for owned in connections.values() for sock in owned):
            sock.close()


def test_reloads_under_load_lose_nothing(backend: Backend) -> None:
    """20 reloads that change a time-out, routes and upstreams: no request fails, and every kept connection stays."""
    everything: Value = {"name": "all", "upstream": "u"}
    with upstream(serve(lambda connection, _: connection.send(answer(b"other")))) as other:
        more: dict[str, Value] = {
            "upstream": {"more": {"endpoints": [other.url]}},
            "route": [everything, {"name": "more", "upstream": "more", "match": {"path": "/more/*"}}],
        }
        less: dict[str, Value] = {"route": [everything]}
        with running(backend, settings(2)) as started:
            pids = started.workers
            connections = kept_connections(started, 2)
            with load(to(*started.address), kept=4, new=2) as clients:
                kept = connections[pids[0]][0]
                for number in range(20):
                    started.reload(less if number % 2 else more, first_byte_s=30 + number)
                    assert exchange(kept, "/more/x")[2] == (b"/more/x" if number % 2 else b"other")
                    clients.wait_served(2)
            assert clients.failures == []
            assert [(client.connections, client.announced, client.idle_ends) for client in clients.kept] == [
                (1, 0, 0) for _ in clients.kept
            ]
            for sock in (sock for owned in connections.values() for sock in owned):
                assert exchange(sock, "/last")[2] == b"/last"
                sock.close()
            assert started.workers == pids


def test_drain_loses_nothing(backend: Backend) -> None:
    """SIGTERM under load: what was accepted is answered, kept connections end as announced or by a FIN while silent."""
    with running(backend, settings(2)) as started:
        connections = kept_connections(started, 2)
        held = [owned[0] for owned in connections.values()]
        idle = [owned[1] for owned in connections.values()]
        for number, sock in enumerate(held):
            begin(sock, f"/hold/{number}")
        backend.wait_held(*(f"/hold/{number}" for number in range(len(held))))
        with load(to(*started.address), kept=3, new=3) as clients:
            started.process.send_signal(signal.SIGTERM)
            started.wait_event("draining")
            clients.join()
        assert clients.failures == []
        assert all(client.turned_away for client in clients.clients)
        assert sum(client.announced + client.idle_ends for client in clients.kept) >= len(clients.kept)
        for sock in idle:
            assert sock.recv(1) == b""  # a FIN; a reset raises
            sock.close()
        assert started.is_alive()
        backend.go.set()
        for number, sock in enumerate(held):
            status, fields, body = finish(sock)
            assert (status, fields.get("connection"), body) == (200, "close", b"/hold/%d" % number)
            assert sock.recv(1) == b""
            sock.close()
        assert started.process.wait(30) == 0


def test_number_of_workers_changes_under_load(backend: Backend) -> None:
    """1 -> 3 -> 1 workers by reload: no request fails, and connections of leaving workers end as announced."""
    with running(backend, settings(1)) as started, load(to(*started.address), kept=3, new=3) as clients:
        first = started.workers
        started.reload({"server": {"workers": 3}})
        assert len(started.workers) == 3
        clients.wait_served(10)
        # Kept connections on the new workers, which will have to leave again.
        with load(to(*started.address), kept=6, new=0) as more:
            started.reload({"server": {"workers": 1}})
            wait_for("the leaving ones", lambda: started.workers == first, 60)
            more.wait_served(5)
            clients.wait_served(5)
        clients.stop()
        assert clients.failures == []
        assert more.failures == []
        assert [client.idle_ends for client in (*clients.kept, *more.kept)] == [0] * 9
        assert not started.events("worker died")


def test_bad_file_at_reload(backend: Backend) -> None:
    """A wrong file changes nothing, and stderr names file, line and key of each problem."""
    with running(backend, settings(2)) as started, load(to(*started.address)) as clients:
        workers = started.workers
        path = started.directory / "edgeq.toml"
        good = path.read_text()
        path.write_text(good + "\n[log]\nlevle = 'info'\n[dns]\ntimeout = 'soon'\n")
        line = good.count("\n") + 3
        started.process.send_signal(signal.SIGHUP)
        started.wait_event("configuration refused, the old one stays", 2)
        problems = [event["problem"] for event in started.events("configuration refused, the old one stays")]
        assert any(f"{path}:{line}:" in problem and "log.levle" in problem for problem in problems), problems
        assert any(f"{path}:{line + 2}:" in problem and "dns.timeout" in problem for problem in problems), problems
        clients.wait_served(5)
        path.write_text("this is no TOML")
        started.process.send_signal(signal.SIGHUP)
        started.wait_event("configuration refused, the old one stays", 3)
        assert f"{path}:1" in started.events("configuration refused, the old one stays")[-1]["problem"]
        clients.wait_served(5)
        started.reload({})
        clients.wait_served(5)
        assert started.workers == workers
        clients.stop()
        assert clients.failures == []


def test_access_log_rotation_under_load(backend: Backend) -> None:
    """Rotated by rename and SIGUSR1, the files together have one line for each request, and each line is whole."""
    with running(backend, settings(2)) as started:
        files = [started.access_log]
        with load(to(*started.address), kept=3, new=3) as clients:
            for number in range(3):
                files.append(started.directory / f"access.log.{number}")
                wait_for("lines in the file", lambda: started.access_log.stat().st_size > 0)
                started.access_log.rename(files[-1])
                started.process.send_signal(signal.SIGUSR1)
                wait_for("the new file", started.access_log.exists)
                clients.wait_served(20)
        assert clients.failures == []
        assert started.stop(30) == 0
        lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
        paths = [line["url.path"] for line in lines]
        sent = [f"/{client.name}/{number}" for client in clients.clients for number in range(client.served)]
        assert sorted(paths) == sorted(sent)
        assert {line["http.response.status_code"] for line in lines} == {200}
        assert all(file.stat().st_size for file in files)


def test_access_log_moves_away_from_a_stuck_pipe(backend: Backend) -> None:
    """Nobody waits for the old log's reader, and what it had not taken is still written once it reads."""
    with running(backend, settings(1)) as started:
        fifo = started.directory / "fifo"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
            pipe: dict[str, Value] = {"access_log": {"target": str(fifo)}}
            started.reload(pipe)
            with to(*started.address)() as sock:
                for number in range(40):
                    assert exchange(sock, f"/old/{number}")[0] == 200
                started.reload({})
                assert exchange(sock, "/new")[0] == 200
            os.set_blocking(reader, True)
            with open(reader, "rb", closefd=False) as lines:
                old = [json.loads(lines.readline())["url.path"] for _ in range(40)]
            assert old == [f"/old/{number}" for number in range(40)]
            wait_for("the new log", lambda: [line for line in started.log_lines() if '"/new"' in line])
        finally:
            os.close(reader)


def test_supervisor_killed(backend: Backend) -> None:
    """kill -9 of the supervisor: its workers finish what runs, take nothing new, and no process is left."""
    with running(backend, settings(2)) as started:
        family = kernel.children(started.pid)
        connections = kept_connections(started, 1)
        held = [sock for owned in connections.values() for sock in owned]
        for number, sock in enumerate(held):
            begin(sock, f"/hold/{number}")
        backend.wait_held(*(f"/hold/{number}" for number in range(len(held))))
        try:
            with load(to(*started.address), kept=2, new=2) as clients:
                started.process.kill()
                started.process.wait()
                clients.join()
            assert all(client.turned_away for client in clients.clients)
            assert clients.failures == []
            backend.go.set()
            for number, sock in enumerate(held):
                assert finish(sock)[2] == b"/hold/%d" % number
                sock.close()
            wait_for("all to be gone", lambda: not any(kernel.is_alive(pid) for pid in family), 60)
        finally:
            for pid in family:  # of a failed test
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        left = {file.name for file in Path(started.directory).iterdir()}
        assert left <= {"edgeq.toml", "stderr", "access.log"}


def test_stop_while_a_worker_is_in_back_off(backend: Backend) -> None:
    """What waits in the accept queue of a worker that is dead when the gateway stops is served by its sibling."""
    with running(backend, settings(2)) as started:

        def victim() -> int:
            return int([one["worker_pid"] for one in started.events("worker ready") if one["slot"] == 0][-1])

        for number in range(4):  # 0, 0.1, 0.2 and 0.4 s until its successor starts
            os.kill(victim(), signal.SIGKILL)
            started.wait_event("worker ready", 3 + number)
        os.kill(victim(), signal.SIGSTOP)
        connect = to(*started.address)
        queued = [connect() for _ in range(24)]
        for number, sock in enumerate(queued):
            begin(sock, f"/queued/{number}")
        os.kill(victim(), signal.SIGKILL)
        assert started.wait_event("worker died", 5)["restart_in_s"] == 0.8
        started.process.send_signal(signal.SIGTERM)
        for number, sock in enumerate(queued):
            assert finish(sock)[2] == b"/queued/%d" % number
            sock.close()
        assert started.process.wait(30) == 0
        assert len(started.log_lines()) == len(queued)


def test_ambiguous_paths_are_refused_until_their_route_lets_them_pass(backend: Backend) -> None:
    """400 with reason and route, in the answer and in the log; after a reload the same bytes are the upstream's."""
    path = "/projects/a%2Fb/issues"
    project: dict[str, Value] = {"name": "project", "upstream": "u", "match": {"path": "/projects/*/issues"}}
    rest: dict[str, Value] = {"name": "rest", "upstream": "u"}
    with running(backend, settings(1, route=[project, rest])) as started:
        connect = to(*started.address)
        with connect() as sock:
            status, fields, body = exchange(sock, path)
        assert (status, fields["content-type"]) == (400, "application/problem+json")
        told = json.loads(body)
        assert (told["reason"], told["resource"]) == ("request_ambiguous", "route/project:path")
        lines = wait_for("the line", started.log_lines)
        assert json.loads(lines[0])["edgeq.resource"] == "route/project:path"
        with connect() as sock:
            assert exchange(sock, "/projects/a/issues")[0] == 200
            started.reload({"route": [{**project, "ambiguous_paths": "pass"}, rest]})
            assert exchange(sock, path)[2] == path.encode()


def test_a_reload_signal_during_the_start_is_not_lost(backend: Backend, tmp_path: Path) -> None:
    """From the moment that the process does not die of it any more: the file that was changed before it is applied."""
    made = settings(1)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(4):
            port, directory = gateway.free_port(), tmp_path / str(number)
            directory.mkdir()
            config = directory / "edgeq.toml"
            config.write_text(gateway.edgeq_config(port, backend.server.port, directory, made))
            with (directory / "stderr").open("wb") as stderr:
                command = [sys.executable, "-m", "edgeq", "serve", "--config", str(config)]
                process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
            started.append(process)
            starting = Gateway("edgeq", ("127.0.0.1", port), process, directory, made, backend.server.port)
            wait_for("signals", lambda pid=process.pid: kernel.heeds(pid, signal.SIGHUP))  # type: ignore[misc]
            starting.reconfigure({"forward": {"node": "changed"}})
            process.send_signal(signal.SIGHUP)
            starting.wait_event("configuration applied")
            with socket.create_connection(starting.address, timeout=30) as sock:
                assert exchange(sock, "/after", close=True)[0] == 200
            assert backend.server.requests[-1].get(b"via") == b"1.1 changed"
            assert starting.stop() == 0
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_terminal_gets_data_and_events_apart(backend: Backend) -> None:
    """On a terminal, too, standard output has access lines in JSON and nothing else; events are for people there."""
    port = gateway.free_port()
    upstream_url = f"http://127.0.0.1:{backend.server.port}"
    command = [sys.executable, "-m", "edgeq", "serve", "--listen", f"127.0.0.1:{port}", "--upstream", upstream_url]
    terminals = [pty.openpty(), pty.openpty()]
    said = [b"", b""]

    def has_said(stream: int, text: bytes) -> bool:
        while select.select([terminals[stream][0]], [], [], 0)[0]:
            said[stream] += os.read(terminals[stream][0], 65536)
        return text in said[stream]

    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=terminals[0][1],
        stderr=terminals[1][1],
        env=environment,
    )
    try:
        wait_for("serving", lambda: has_said(1, b"serving"))
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            assert exchange(sock, "/seen", close=True)[0] == 200
        wait_for("its line", lambda: has_said(0, b"/seen"))
        process.terminate()
        wait_for("the end", lambda: has_said(1, b"stopped"))
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        for descriptor in (*terminals[0], *terminals[1]):
            os.close(descriptor)
    assert [json.loads(line)["url.path"] for line in said[0].splitlines()] == ["/seen"]
    assert b"\x1b[" in said[1]
