"""Live changes of a running gateway: real workers, requests that are held, and the admin socket as operators use it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from edgeq.cli import main
from edgeq.cli.admin_client_io import ask, get
from edgeq.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from tests.support import gateway as gateways
from tests.support.bench import bench
from tests.support.gateway import Gateway, Settings, Value
from tests.support.machine import UPSTREAM, Machine, machine
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream, answer, serve
from tests.support.supervised import connect, read_all, wait_for

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Operator:
    """At the admin socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def command(self, method: str, path: str, **arguments: str) -> tuple[int, dict[str, Any]]:
        return ask(self.path, method, f"{path}?{urlencode(arguments)}", 60)

    def do(self, method: str, path: str, **arguments: str) -> dict[str, Any]:
        """What has to go well."""
        status, said = self.command(method, path, **arguments)
        assert status == 200, said
        return said

    def set(self, resource: str, key: str, value: object, **options: str) -> dict[str, Any]:
        return self.do("PUT", "/v1/changes", resource=resource, key=key, value=str(value), **options)

    def unset(self, resource: str, key: str) -> dict[str, Any]:
        return self.do("DELETE", "/v1/changes", resource=resource, key=key)

    def show(self, subject: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(get(self.path, f"/v1/{subject}", 60)[2])
        return found

    def text(self, line: str) -> str:
        with connect(f"unix:{self.path}") as sock:
            sock.sendall(line.encode() + b"\n")
            return read_all(sock).decode()

    def names(self) -> list[tuple[str, str]]:
        return [(one["resource"], one["key"]) for one in self.show("changes")]


class Place:
    """One gateway for most of the tests: two workers, a limit of 1 before an upstream that is held."""

    def __init__(self, made: Machine, operator: Operator) -> None:
        self.made = made
        self.operator = operator

    def generations(self) -> list[int]:
        """What each worker runs."""
        return [one["generation"] for one in self.operator.show("workers")]

    def answered(self, clients: list[RawClient]) -> list[int]:
        """Let all go; the statuses."""
        self.made.let_all_go()
        return [client.read_answers([Asked()], 60)[0].status for client in clients]


@pytest.fixture(scope="module")
def one_place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="edgeq-live-") as folder:
        path = Path(folder) / "admin.sock"
        queue: Mapping[str, gateways.Value] = {"max": 100, "timeout": "60s", "discipline": "fifo"}
        settings = Settings(
            workers=2,
            limit=1,
            extra={
                "server": {"admin": str(path)},
                "upstream": {"u": {"queue": queue}},
                "route": [{"name": "r", "upstream": "u", "queue": {"max": 2}}],
            },
        )
        with machine(settings) as made:
            yield Place(made, Operator(path))


@pytest.fixture
def place(one_place: Place) -> Iterator[Place]:
    """Nothing set, nothing held."""
    one_place.made.open = False
    try:
        yield one_place
    finally:
        one_place.made.let_all_go()
        wait_for("an idle gateway", lambda: one_place.made.reading().in_flight == one_place.made.reading().queued == 0)
        for resource, key in one_place.operator.names():
            one_place.operator.unset(resource, key)


def test_a_limit_in_all_workers_at_once(place: Place) -> None:
    """More: who waits at any worker goes on, with the answer; less: who runs stays, and nobody follows until there are
    fewer than the new limit. All get their answers."""
    made = place.made
    clients = [made.ask(slot) for slot in (0, 1) * 4]
    made.wait_queued(7)
    seen = len(made.paths)
    place.operator.set(UPSTREAM, "limit", 4)
    made.wait_seen(seen + 3)
    wait_for("four at work", lambda: made.at_work == 4)
    assert (made.reading().in_flight, made.reading().queued) == (4, 4)
    place.operator.set(UPSTREAM, "limit", 2)
    made.let_go(2)
    wait_for("two at work", lambda: (made.at_work, made.reading().in_flight, made.reading().queued) == (2, 2, 4))
    made.let_go(1)
    wait_for("who follows", lambda: (made.reading().in_flight, made.reading().queued) == (2, 3))
    assert made.most_at_work == 4
    assert place.answered(clients) == [200] * 8


def test_requests_all_the_while(place: Place) -> None:
    """Changes of all kinds under load: every request is answered 200, by connections that are kept."""
    made, operator = place.made, place.operator
    made.open = True
    stop = threading.Event()
    statuses: list[int] = []

    def run() -> None:
        with made.running.connect(60) as client:
            while not stop.is_set():
                statuses.append(client.ask(GET).status)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        url = f"http://127.0.0.1:{made.upstream.port}"
        for number in range(1, 11):
            operator.set(UPSTREAM, "limit", number)
            operator.set(UPSTREAM, "queue.max", 100 + number)
            operator.set(UPSTREAM, f"endpoints.{url}.weight", number)
            operator.set("route/r", "timeout", f"{number}m")
            operator.set("listener/{}:{}".format(*made.gateway.address), "backlog", 100 + number)
        for resource, key in operator.names():
            operator.unset(resource, key)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_what_is_wrong_changes_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, as text and over HTTP: the same message, and exit codes for scripts."""
    operator = place.operator
    generation = place.generations()
    says = "set: upstream/u limit: must not be negative"
    assert operator.command("PUT", "/v1/changes", resource=UPSTREAM, key="limit", value="-4")[0] == 422
    assert operator.text("set upstream/u limit -4") == f"error: {says}\n"
    assert main(["set", UPSTREAM, "limit", "--admin", operator.path, "--", "-4"]) == EXIT_FAILED
    assert capsys.readouterr().err == f"edgeq {says}\n"
    assert main(["set", UPSTREAM, "queue.timeout", "-1s", "--admin", operator.path]) == EXIT_FAILED
    assert capsys.readouterr().err == "edgeq set: upstream/u queue.timeout: must not be negative\n"
    for ttl in ("x", "-5s"):
        assert main(["set", UPSTREAM, "limit", "4", "--ttl", ttl, "--admin", operator.path]) == EXIT_USAGE
        assert "ttl: expected a duration" in capsys.readouterr().err
    assert "server.metrics takes effect only at the next start" in operator.text("set server metrics 127.0.0.1:1")
    assert "VALUE is missing: set RESOURCE KEY VALUE" in operator.text("set upstream/u limit")
    assert "is not set: show changes" in operator.text("unset upstream/u limit")
    assert operator.text("resume r") == "error: route/r is not paused\n"
    assert "there is no route 'rr' (did you mean r?)" in operator.text("resume rr")
    port = place.made.upstream.port
    for words, state in (("undrain", "drained"), ("enable", "disabled")):
        assert operator.text(f"{words} 127.0.0.1:{port}") == f"error: http://127.0.0.1:{port} of u is not {state}\n"
        assert f"did you mean 127.0.0.1:{port}" in operator.text(f"{words} 127.0.0.1.{port}")
    # What is refused may be a secret in the wrong place: it is not in the log.
    for words in ("upstream/u endpoints [http://u:hunter2@a]", "trace.headers authorization hunter2"):
        assert operator.text(f"set {words}").startswith("error: ")
    told = place.made.gateway.wait_event("live change refused")
    assert (told["resource"], told["key"], "value" in told) == ("trace.headers", "authorization", False)
    assert "hunter2" not in place.made.gateway.stderr()
    assert operator.show("changes") == []
    assert place.generations() == generation


def test_who_was_first(place: Place) -> None:
    """An ETag that is not the newest any more is refused with 412, by header and by option."""
    operator = place.operator
    with connect(f"unix:{operator.path}") as sock:
        sock.sendall(b"GET /v1/limits HTTP/1.1\r\nHost: a\r\n\r\n")
        head = read_all(sock).partition(b"\r\n\r\n")[0].decode().lower()
    etag = head.partition('etag: "')[2].partition('"')[0]
    request = 'PUT /v1/changes?resource=upstream/u&key=limit&value={} HTTP/1.1\r\nHost: a\r\nIf-Match: "{}"\r\n\r\n'
    for value, expected in (("2", b"HTTP/1.1 200"), ("3", b"HTTP/1.1 412")):
        with connect(f"unix:{operator.path}") as sock:
            sock.sendall(request.format(value, etag).encode())
            assert read_all(sock).startswith(expected)
    status, said = operator.command(
        "PUT", "/v1/changes", resource=UPSTREAM, key="limit", value="4", **{"if-match": etag}
    )
    assert (status, said["ok"]) == (412, False)
    one_of = f'"other", "{said["etag"]}"'
    assert operator.set(UPSTREAM, "limit", 5, **{"if-match": one_of})["etag"] != said["etag"]
    (change,) = operator.show("changes")
    assert change["value"] == "5"


def test_what_is_set_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Value, that of the file, who, until when, why: in `show changes`, in `show limits`, and in the log."""
    operator = place.operator
    where = ["--admin", operator.path]
    assert main(["set", UPSTREAM, "limit", "64", "--ttl", "10m", "--comment", "a sale", *where]) == EXIT_OK
    (change,) = operator.show("changes")
    assert (change["value"], change["file"], change["uid"], change["pid"]) == ("64", "1", os.geteuid(), os.getpid())
    assert (change["comment"], change["persisted"]) == ("a sale", False)
    assert change["since"] < change["until"]
    assert 590 < change["left_s"] <= 600
    capsys.readouterr()
    assert main(["show", "changes", *where]) == EXIT_OK
    assert re.search(r"10\.0m  false +a sale", capsys.readouterr().out)
    assert main(["show", "limits", "--diff", *where]) == EXIT_OK
    limit, value, source, configured, uid, left = capsys.readouterr().out.splitlines()[1].split()
    assert (limit, value, source, configured, uid) == ("upstream.u.limit", "64", "live", "1", str(os.geteuid()))
    assert left == "10.0m"
    limits = {one["limit"]: one for one in operator.show("limits")}
    for key in ("uid", "since", "until", "left_s", "comment", "persisted"):
        assert limits["upstream.u.limit"][key] == change[key]
        assert limits["upstream.u.queue.max"][key] is None
    # What is no limit, too, and what is set as a whole.
    url = f"http://127.0.0.1:{place.made.upstream.port}"
    for resource, key, value in (
        (UPSTREAM, "queue", "{ max = 7 }"),
        (UPSTREAM, f"endpoints.{url}.weight", "3"),
        ("route/r", "paused", "true"),
    ):
        operator.set(resource, key, value)
    changed = {one["limit"]: one["value"] for one in operator.show("limits?diff=true")}
    operator.unset("route/r", "paused")
    assert changed == {
        "upstream.u.limit": "64",
        "upstream.u.queue.max": "7",
        "upstream.u.queue.max_bytes": "16MiB",
        "upstream.u.queue.timeout": "0s",
        f'upstream.u.endpoints."{url}".weight': "3",
        "route.r.paused": "true",
    }
    (upstream,) = operator.show("upstreams")
    assert (upstream["limit"], upstream["limit_source"]) == (64, "live")
    told = [one for one in place.made.gateway.events("live change") if one["comment"] == "a sale"][-1]
    assert (told["resource"], told["key"], told["value"]) == (UPSTREAM, "limit", "64")
    assert (told["uid"], told["peer_pid"], told["comment"]) == (os.geteuid(), os.getpid(), "a sale")


def test_a_change_with_a_time_to_live(place: Place) -> None:
    """It ends by itself, in all workers, and is told."""
    made = place.made
    count = len(made.gateway.events("live change ended")) + 1
    clients = [made.ask(slot) for slot in (0, 1, 0)]
    made.wait_queued(2)
    place.operator.set(UPSTREAM, "limit", 2, ttl="100ms")
    wait_for("two at work", lambda: made.at_work == 2)
    event = made.gateway.wait_event("live change ended", count)
    assert (event["resource"], event["why"]) == (UPSTREAM, "its time is over")
    assert place.operator.show("changes") == []
    made.let_go(1)
    wait_for("one at work", lambda: (made.at_work, made.reading().in_flight, made.reading().queued) == (1, 1, 1))
    assert place.answered(clients) == [200] * 3


def test_a_worker_that_dies_and_one_that_hangs(place: Place) -> None:
    """The successor runs what is set. One that hangs is told of, keeps nobody waiting for long, and takes it when it
    goes on."""
    made, operator = place.made, place.operator
    operator.set(UPSTREAM, "limit", 3)
    made.kill(0)
    wait_for("two that serve", lambda: {one["state"] for one in operator.show("workers")} == {"serving"})
    clients = [made.ask(slot) for slot in (0, 0, 1, 1)]
    wait_for("three at work", lambda: made.at_work == 3)
    made.wait_queued(1)
    pid = made.pid(1)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert operator.set(UPSTREAM, "limit", 4)["behind"] == [1]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("four at work", lambda: made.at_work == 4)
    wait_for("one generation", lambda: len(set(place.generations())) == 1)
    assert place.answered(clients) == [200] * 4


def test_the_backlog_of_the_kernel(place: Place) -> None:
    """listen() again on the sockets that accept, as the kernel itself tells."""
    made, operator = place.made, place.operator
    name = "listener/{}:{}".format(*made.gateway.address)
    assert operator.set(name, "backlog", 77)["ok"]
    accept = [one["limit"] for one in operator.show("queues") if one["kind"] == "accept"]
    assert accept == [77, 77]
    operator.unset(name, "backlog")
    assert {one["limit"] for one in operator.show("queues") if one["kind"] == "accept"} != {77}


def test_pause_and_resume(place: Place) -> None:
    """A paused route's requests wait, as many as its queue takes; nobody is sent; afterwards all are answered. Who runs
    when it is paused is not held up."""
    made, operator = place.made, place.operator
    operator.set(UPSTREAM, "limit", 10)
    seen = len(made.paths) + 1
    running = made.ask(0)
    made.wait_seen(seen)
    operator.do("POST", "/v1/pause", route="route/r", comment="the upstream restarts")
    waiting = [made.ask(0) for _ in range(2)]
    made.wait_queued(2, "route/r")
    (route,) = operator.show("routes")
    assert (route["paused"], route["limit"], route["queued"]) == (True, 0, 2)
    refused = made.ask(0).read_answers([Asked()], 60)[0]
    assert refused.status == 503
    assert [json.loads(refused.body)[key] for key in ("reason", "resource")] == ["queue_full", "route/r:queue"]
    made.let_go()
    assert running.read_answers([Asked()], 60)[0].status == 200
    assert len(made.paths) == seen
    operator.do("POST", "/v1/resume", route="r")
    assert place.answered(waiting) == [200, 200]


def test_drain_and_disable_an_endpoint(tmp_path: Path) -> None:
    """A drained endpoint gets nobody new, a disabled one is none; what runs is finished; both survive a worker's death
    and, persisted, a restart; and are taken back."""
    served = [0, 0]
    gates = [threading.Event(), threading.Event()]

    def handler(index: int) -> Any:
        def handle(connection: Any, request: Any) -> None:
            served[index] += 1
            if request.target == b"/hold":
                gates[index].wait(60)
            connection.send(answer(b"%d" % index))

        return handle

    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(ScriptedUpstream(serve(handler(index)))) for index in range(2)]
        operator = Operator(tmp_path / "admin.sock")
        upstream: Mapping[str, gateways.Value] = {"endpoints": [one.url for one in both], "balance": "round-robin"}
        extra: Mapping[str, gateways.Value] = {"server": {"admin": operator.path}, "upstream": {"u": upstream}}
        settings = Settings(workers=1, extra=extra)
        gateway = _started(both[0].port, settings, tmp_path)
        stack.callback(lambda: gateway.stop())

        def bodies(count: int) -> set[bytes]:
            with RawClient(gateway.address, 60) as client:
                return {client.ask(GET).body for _ in range(count)}

        assert bodies(4) == {b"0", b"1"}
        held = [stack.enter_context(RawClient(gateway.address, 60)) for _ in range(2)]
        before = sum(served)
        for client in held:
            client.send(GET.replace(b"/ ", b"/hold "))
        wait_for("one at each", lambda: sum(served) == before + 2)
        first = f"127.0.0.1:{both[0].port}"
        operator.do("POST", "/v1/drain", endpoint=first, persist="true")
        assert bodies(6) == {b"1"}
        wait_for(
            "its state",
            lambda: [one["state"] for one in operator.show("endpoints") if one["endpoint"] == first] == ["draining"],
        )
        for gate in gates:
            gate.set()
        assert sorted(client.read_answers([Asked()], 60)[0].body for client in held) == [b"0", b"1"]

        gateway.stop()
        gateway = _again(gateway, tmp_path)
        assert [one["persisted"] for one in operator.show("changes")] == [True]
        assert bodies(6) == {b"1"}
        operator.do("POST", "/v1/disable", endpoint=f"u#{both[1].url}")
        with RawClient(gateway.address, 60) as client:
            answered = client.ask(GET)
        assert (answered.status, b"upstream_none_healthy" in answered.body) == (503, True)
        operator.do("POST", "/v1/enable", endpoint=both[1].url)
        operator.do("POST", "/v1/undrain", endpoint=first)
        assert bodies(8) == {b"0", b"1"}
        assert operator.show("changes") == []
        assert "[[change]]" not in (tmp_path / "edgeq.toml.d" / "changes.toml").read_text()


def _again(gateway: Gateway, directory: Path) -> Gateway:
    """The same file, another process, another port."""
    return _started(gateway.upstream_port, gateway.settings, directory)


def _started(port: int, settings: Settings, directory: Path) -> Gateway:
    """With its admin socket, which opens after the listeners."""
    gateway = gateways.start(port, settings, directory)
    gateway.wait_event("serving")
    return gateway


def test_a_reload_keeps_what_it_does_not_touch(tmp_path: Path) -> None:
    """And says what it ends, in its answer and in the log; what cannot be written down is not done."""
    operator = Operator(tmp_path / "admin.sock")
    kept = tmp_path / "no" / "folder" / "changes.toml"
    server: Mapping[str, gateways.Value] = {"admin": operator.path, "changes": str(kept)}
    with ScriptedUpstream(serve(lambda connection, _: connection.send(answer(b"")))) as upstream:
        gateway = _started(upstream.port, Settings(limit=5, extra={"server": server}), tmp_path)
        try:
            operator.set(UPSTREAM, "limit", 6)
            operator.set(UPSTREAM, "queue.max", 7)
            status, said = operator.command(
                "PUT", "/v1/changes", resource=UPSTREAM, key="queue.max", value="8", persist="true"
            )
            assert (status, said["error"]) == (
                500, f"nothing was changed: {kept} cannot be written: No such file or directory"
            )  # fmt: skip
            gateway.reconfigure({"upstream": {"u": {"queue": {"timeout": "2s"}}}})
            assert operator.do("POST", "/v1/reload")["ended"] == []
            assert [one["value"] for one in operator.show("changes")] == ["6", "7"]
            gateway.reconfigure({}, limit=9)
            why = "the file says something else there than when it was set"
            assert operator.do("POST", "/v1/reload")["ended"] == [f"{UPSTREAM} limit: {why}"]
            assert gateway.wait_event("live change ended")["why"] == why
            assert [one["key"] for one in operator.show("changes")] == ["queue.max"]
            assert operator.show("upstreams")[0]["limit"] == 9
        finally:
            gateway.stop()


def test_what_a_start_has_ended_is_kept_no_more(tmp_path: Path) -> None:
    """As of a reload: a file that says later what it has said before does not bring the change back."""
    operator = Operator(tmp_path / "admin.sock")
    with ScriptedUpstream(serve(lambda connection, _: connection.send(answer(b"")))) as upstream:
        settings = Settings(limit=5, extra={"server": {"admin": operator.path}})
        gateway = _started(upstream.port, settings, tmp_path)
        try:
            operator.set(UPSTREAM, "limit", 6, persist="true")
            operator.set(UPSTREAM, "queue.max", 7, persist="true")
            gateway.stop()
            gateway = _started(upstream.port, dataclasses.replace(settings, limit=9), tmp_path)
            assert gateway.wait_event("live change ended")["key"] == "limit"
            gateway.stop()
            gateway = _again(gateway, tmp_path)
            gateway.stop()
            gateway = _started(upstream.port, settings, tmp_path)
            assert operator.names() == [(UPSTREAM, "queue.max")]
            assert operator.show("upstreams")[0]["limit"] == 5
        finally:
            gateway.stop()


def test_a_reload_says_what_waits_for_a_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each time, until the file says again what runs: in the answer, in the log, and in `show config`."""
    operator = Operator(tmp_path / "admin.sock")
    with ScriptedUpstream(serve(lambda connection, _: connection.send(answer(b"")))) as upstream:
        gateway = _started(upstream.port, Settings(extra={"server": {"admin": operator.path}}), tmp_path)
        try:
            assert operator.do("POST", "/v1/reload")["restart"] == []
            gateway.reconfigure({"server": {"admin": str(tmp_path / "other.sock"), "metrics": "127.0.0.1:1"}})
            for _ in range(2):
                assert operator.do("POST", "/v1/reload")["restart"] == ["server.admin", "server.metrics"]
            told = [one["key"] for one in gateway.events("takes effect at the next start")]
            assert told == ["server.admin", "server.metrics"] * 2
            operator.set(UPSTREAM, "limit", 5)
            waiting = [one["key"] for one in operator.show("config") if one["waits_for"] == "restart"]
            assert waiting == ["server.admin", "server.metrics"]
            assert main(["reload", "--admin", operator.path]) == EXIT_OK
            said = capsys.readouterr().out.splitlines()
            assert said[1:] == [f"server.{key} takes effect only at a restart" for key in ("admin", "metrics")]
            gateway.reconfigure({}, limit=9)
            assert main(["reload", "--admin", operator.path]) == EXIT_OK
            why = "the file says something else there than when it was set"
            assert capsys.readouterr().out.splitlines()[1:] == [f"not set any more: {UPSTREAM} limit: {why}"]
            assert not [one for one in operator.show("config") if one["waits_for"]]
            assert len(gateway.events("takes effect at the next start")) == 6
        finally:
            gateway.stop()


def test_what_a_change_leaves_without_effect_is_told(place: Place) -> None:
    """What is set where it has none is set all the same, and whoever does it hears so; once, while that is so."""
    operator = place.operator
    said = operator.set(UPSTREAM, "sticky_cookie", "c")
    assert said["warning"] == ("upstream.u.sticky_cookie: is for balance = sticky, which is p2c-ewma")
    assert "warning" not in operator.set(UPSTREAM, "limit", 5)
    assert "warning" not in operator.set(UPSTREAM, "balance", "sticky")
    for key in ("limit", "balance", "sticky_cookie"):
        operator.unset(UPSTREAM, key)


def test_what_has_no_effect_is_in_the_log() -> None:
    """At the start, and of a reload what is new; each once."""
    settings: dict[str, Value] = {"tls": {"verify": False}}
    with bench(Settings(extra={"upstream": {"u": settings}})) as running:
        gateway = running.gateway
        told = gateway.wait_event("setting without effect")
        assert (told["key"], told["why"]) == ("upstream.u.tls.verify", "is not used: no endpoint is https")
        gateway.reload({"upstream": {"u": {**settings, "limit": 0, "queue": {"max": 3}}}})
        gateway.wait_event("setting without effect", 2)
        keys = [one["key"] for one in gateway.events("setting without effect")]
        assert keys == ["upstream.u.tls.verify", "upstream.u.queue.max"]
