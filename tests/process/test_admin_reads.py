"""What the admin socket tells of a running gateway: real workers, asked from outside while they work, hang and die."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.admin.commands import COMMANDS
from edgeq.cli import main
from tests.support.gateway import ROOT, Settings, Value, free_port
from tests.support.kernel import select_pause
from tests.support.machine import Machine, machine
from tests.support.raw_client import Asked
from tests.support.supervised import Supervised, connect, read_all, supervised, wait_for

READS = [one for one in COMMANDS if one.level == "viewer" and not one.words.startswith("follow")]


class Admin:
    """A client of one admin socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self, line: str) -> str:
        with connect(f"unix:{self.path}") as sock:
            sock.sendall(line.encode() + b"\n")
            return read_all(sock).decode()

    def http(self, target: str, *fields: str) -> tuple[int, str, bytes]:
        """GET: status, head and content."""
        with connect(f"unix:{self.path}") as sock:
            sock.sendall("\r\n".join([f"GET {target} HTTP/1.1", "Host: edgeq", *fields, "", ""]).encode())
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode(), body

    def show(self, subject: str, match: str = "") -> list[dict[str, Any]]:
        status, _head, body = self.http(f"/v1/{subject}" + (f"?match={match}" if match else ""))
        assert status == 200
        found = json.loads(body)
        assert isinstance(found, list)
        return found

    def queue(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.show("queues") if one["queue"] == name]
        return found

    def count(self, reason: str) -> int:
        return sum(one["count"] for one in self.show("reasons") if one["reason"] == reason)


@contextlib.contextmanager
def gateway(tmp_path: Path, workers: int = 2, **extra: Value) -> Iterator[tuple[Machine, Admin]]:
    """A gateway with an admin socket before an upstream that is held, with a limit of 1."""
    path = tmp_path / "admin.sock"
    upstream: dict[str, Value] = {"u": {"queue": {"max": 100, "timeout": "60s", "discipline": "fifo"}}}
    settings = Settings(workers=workers, limit=1, extra={"server": {"admin": str(path)}, "upstream": upstream, **extra})
    with machine(settings) as made:
        yield made, Admin(path)


def test_all_is_told_while_every_worker_is_frozen(tmp_path: Path) -> None:
    """Each read command answers, over text and HTTP, without a worker's help; that they hang is seen, and so is what
    waits for them in the kernel."""
    with gateway(tmp_path) as (made, admin):
        clients = [made.ask(slot) for slot in (0, 1, 1)]
        made.wait_queued(2)
        wait_for("the report", lambda: admin.show("endpoints"))
        with made.gateway.asleep(), contextlib.ExitStack() as waiting:
            for _ in range(5):
                waiting.enter_context(socket.create_connection(made.gateway.address))
            for command in READS:
                if command.path.startswith(("/v1/keys", "/v1/accounts", "/v1/usage")):
                    continue  # there are none here: tests/process/test_accounts.py
                if command.path == "/readyz":
                    continue  # when they have hung for long enough it says so, below
                assert not admin.text(command.words).startswith("error"), command.words
                assert admin.http(command.path)[0] in (200, 503), command.words
            accept = [one for one in admin.show("queues") if one["kind"] == "accept"]
            assert sum(one["depth"] for one in accept) == 5
            assert all(one["limit"] > 0 for one in accept)
            assert admin.queue("upstream/u:queue")["depth"] == 2
            wait_for("stuck workers", lambda: {one["state"] for one in admin.show("workers")} == {"stuck"})
            wait_for("who does not send traffic here", lambda: admin.http("/readyz")[0] == 503)
            assert admin.http("/livez")[0] == 200
        wait_for("workers that go on", lambda: {one["state"] for one in admin.show("workers")} == {"serving"})
        wait_for("who sends traffic again", lambda: admin.http("/readyz")[0] == 200)
        made.let_all_go()
        assert [client.read_answers([Asked()], 60)[0].status for client in clients] == [200] * 3


def test_a_queue_that_fills_up(tmp_path: Path) -> None:
    """Depth, age, limit, refusals, rates and high-water of the queue before an upstream, and who waits there."""
    extra: dict[str, Value] = {"tenant": {"key": "header:x-tenant"}}
    with gateway(tmp_path, 2, **extra) as (made, admin):
        assert admin.queue("upstream/u:queue")["depth"] == 0
        for number, slot in enumerate((0, 1, 0, 1)):
            made.ask(slot, "/", f"X-Tenant: t{number % 2}")
            made.wait_queued(number)
        queue = wait_for("three that wait", lambda: (q := admin.queue("upstream/u:queue"))["depth"] == 3 and q)
        assert queue["limit"] == 100
        assert queue["fill"] == 0.03
        assert queue["oldest_ms"] > 0
        assert queue["high_water"] == 3
        wait_for("tenants", lambda: sum(admin.queue("upstream/u:queue")["by_tenant"].values()) == 3)
        wait_for("a rate", lambda: admin.queue("upstream/u:queue")["arrival_per_s"] > 0)
        (upstream,) = admin.show("upstreams")
        assert (upstream["in_flight"], upstream["limit"], upstream["limit_source"]) == (1, 1, "file")
        (endpoint,) = wait_for("a connection", lambda: [one for one in admin.show("endpoints") if one["active"] == 1])
        assert endpoint["endpoint"] == f"127.0.0.1:{made.upstream.port}"
        made.let_all_go()
        wait_for("all served", lambda: admin.queue("upstream/u:queue")["depth"] == 0)
        queue = admin.queue("upstream/u:queue")
        assert queue["high_water"] == 3
        assert queue["oldest_ms"] == 0
        assert wait_for("departures", lambda: admin.queue("upstream/u:queue")["drain_per_s"] > 0)


def test_a_tenant_who_waits_for_himself(tmp_path: Path) -> None:
    """His queue has all that other queues have: depth, age, waits, rates."""
    upstream: Value = {"u": {"limit": 10, "queue": {"timeout": "60s", "discipline": "fifo"}}}
    tenant: Value = {"key": "header:x-tenant", "limit": 1, "queue": {"timeout": "60s"}}
    extra: dict[str, Value] = {"tenant": tenant, "upstream": upstream}
    with gateway(tmp_path, 2, **extra) as (made, admin):
        clients = [made.ask(0, "/", "X-Tenant: t") for _ in range(3)]

        def waiting(depth: int) -> dict[str, Any]:
            found = [one for one in admin.show("queues") if one["kind"] == "tenant" and one["depth"] == depth]
            return found[0] if found else {}

        queue = wait_for("two that wait", lambda: waiting(2))
        assert (queue["oldest_ms"] > 0, queue["wait_ms"]["p50"]) == (True, None)
        made.let_go(1)
        queue = wait_for("one that has waited", lambda: (one := waiting(1)) and one["wait_ms"]["p50"] and one)
        assert queue["wait_ms"]["p50"] <= queue["wait_ms"]["p99"]
        wait_for("a rate", lambda: (one := waiting(1)) and one["arrival_per_s"] > 0)
        made.let_all_go()
        assert [client.read_answers([Asked()], 60)[0].status for client in clients] == [200] * 3


def test_high_water_begins_anew(tmp_path: Path) -> None:
    """By `edgeq reset high-water`: at what waits then, also where it is only looked at now and then."""
    with gateway(tmp_path) as (made, admin):
        clients = [made.ask(slot) for slot in (0, 1, 0, 1)]
        made.wait_queued(3)
        made.let_go(2)
        made.wait_queued(1)
        assert admin.queue("upstream/u:queue")["high_water"] == 3
        assert main(["reset", "high-water", "--admin", str(admin.path)]) == 0
        wait_for("the mark", lambda: admin.queue("upstream/u:queue")["high_water"] == 1)
        made.let_all_go()
        assert [client.read_answers([Asked()], 60)[0].status for client in clients] == [200] * 4
        with pytest.raises(SystemExit) as ended:
            main(["reset", "--admin", str(admin.path)])
        assert ended.value.code == 2


def test_refusals_outlive_their_worker(tmp_path: Path) -> None:
    """Counted by reason and resource for the machine, and never less because a worker dies."""
    with gateway(tmp_path) as (made, admin):
        for slot in (0, 0, 1):
            client = made.client_of(slot)
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            client.read_to_end(60)
        wait_for("three refusals", lambda: admin.count("host_invalid") == 3)
        counts: list[int] = []
        pid = made.pid(0)
        os.kill(pid, signal.SIGKILL)
        while made.board.row(0).pid in (0, pid):
            counts.append(admin.count("host_invalid"))
            select_pause(0.005)
        counts.append(admin.count("host_invalid"))
        assert set(counts) == {3}
        client = made.client_of(0)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.read_to_end(60)
        wait_for("the successor's", lambda: admin.count("host_invalid") == 4)
        (row,) = [one for one in admin.show("reasons") if one["reason"] == "host_invalid"]
        assert row["resource"].startswith("listener/")
        assert (row["status"], row["hint"]) == (400, "exactly one valid Host is required")
        events = [one["event"] for one in json.loads(admin.http("/v1/events")[2])]
        assert "worker died" in events


def test_last_words_of_a_worker(tmp_path: Path) -> None:
    """What a worker logs when it leaves is told by the supervisor after the worker has ended."""
    with gateway(tmp_path) as (made, admin):
        client = made.client_of(1)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.read_to_end(60)
        pid = made.pid(1)
        made.gateway.reload({}, workers=1)
        wait_for("its end", lambda: made.board.row(1).pid == 0)
        events = json.loads(admin.http("/v1/events?count=1000")[2])
        assert [one["event"] for one in events if one["pid"] == pid][-1] == "refusals_of_worker"


def test_limits_say_where_they_come_from(tmp_path: Path) -> None:
    """File, default, learned, kernel."""
    extra: dict[str, Value] = {"listener": {"backlog": 1 << 20}}
    with gateway(tmp_path, 1, **extra) as (_made, admin):
        limits = {one["limit"]: one for one in admin.show("limits")}
        nobody = dict.fromkeys(("uid", "since", "until", "left_s", "comment", "persisted"))
        assert limits["upstream.u.limit"] == {
            "limit": "upstream.u.limit", "value": "1", "source": "file", "configured": "1", **nobody,
        }  # fmt: skip
        assert limits["upstream.u.pool.max_idle"]["source"] == "default"
        (backlog,) = [one for key, one in limits.items() if key.endswith(".backlog")]
        assert backlog["source"] == "kernel"
        assert backlog["value"] == Path("/proc/sys/net/core/somaxconn").read_text().strip()


def test_a_rate_that_is_not_enforced_counts(tmp_path: Path) -> None:
    """Whoever tries a rate sees whom it would have refused."""
    rate: dict[str, Value] = {"name": "trial", "by": "client", "limits": ["1/h"], "enforce": False}
    with gateway(tmp_path, 1, rate=[rate]) as (made, admin):
        made.open = True
        client = made.client_of(0)
        for _ in range(3):
            assert client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
        wait_for("its count", lambda: admin.show("rates")[0]["would_refuse"] == 2)
        (told,) = admin.show("rates")
        assert told == {
            "rate": "trial", "by": "client", "limits": ["1/h"], "routes": [], "enforce": False, "refused": 0,
            "would_refuse": 2,
        }  # fmt: skip
        assert admin.text("show rates").splitlines()[1].split() == ["trial", "client", "1/h", "-", "false", "0", "2"]


def test_a_cache_is_told(tmp_path: Path) -> None:
    """Whoever has one sees whether it helps, and how full it is."""
    route: dict[str, Value] = {"name": "kept", "upstream": "u", "cache": {"default_ttl": "1h", "max_bytes": "4MiB"}}
    with gateway(tmp_path, 1, route=[route]) as (made, admin):
        made.open = True
        client = made.client_of(0)
        for _ in range(3):
            assert client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
        wait_for("its count", lambda: admin.show("caches")[0]["hits"] == 2)
        (told,) = admin.show("caches")
        assert 0 < told.pop("bytes") < 10_000
        assert told == {
            "route": "kept", "hits": 2, "joined": 0, "stale": 0, "misses": 1, "stored": 1, "entries": 1,
            "max_bytes": 4 << 20, "waiting": 0,
        }  # fmt: skip


def test_secrets_are_masked(tmp_path: Path) -> None:
    """Whoever may read the configuration may not read the credentials in it, in no form and in no answer."""
    extra: dict[str, Value] = {
        "tenant": {"key": "key", "weights": {"sk-secret": 3}},
        "provider": {"g": {"url": "http://127.0.0.1:9/v1?key=sk-secret"}},
        "model": {"m": {"targets": [{"provider": "g"}]}},
        "route": [{"name": "models", "match": {"path": "/v1/*"}, "llm": {}}, {"name": "rest", "upstream": "u"}],
    }
    with gateway(tmp_path, 1, **extra) as (made, admin):
        assert {"key": "tenant.weights", "value": "{*** = 3}", "default": False, "waits_for": None} in admin.show(
            "config"
        )
        made.open = True
        client = made.client_of(0)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-secret\r\n\r\n")
        wait_for("the answer", lambda: admin.show("workers")[0]["requests"] > 0)
        assert admin.text("set provider/g url http://127.0.0.1:9/v2?key=sk-secret").startswith("ok: true")
        (change,) = admin.show("changes")
        assert change["value"] == '"http://127.0.0.1:9/v2?key=***"'
        assert "sk-secret" not in made.gateway.stderr()
        for command in READS:
            assert "sk-secret" not in admin.text(f"{command.words} json"), command.words


def test_a_request_after_another_on_one_connection(tmp_path: Path) -> None:
    """A client that asks to keep the connection gets it kept, and only that one."""
    with gateway(tmp_path, 1) as (_made, admin), connect(f"unix:{admin.path}") as sock:
        connection = http.client.HTTPConnection("edgeq")
        connection.sock = sock
        for _ in range(3):
            connection.request("GET", "/v1/queues", headers={"Connection": "keep-alive"})
            assert len(json.loads(connection.getresponse().read())) > 1
        connection.request("GET", "/v1/queues")
        assert connection.getresponse().getheader("connection") == "close"


def test_metrics(tmp_path: Path) -> None:
    """Text and OpenMetrics, parsed by the library that Prometheus' own clients use; also on a TCP address, which has
    nothing else."""
    parser = pytest.importorskip("prometheus_client.parser")
    open_parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    port = free_port()
    server: dict[str, Value] = {"admin": str(tmp_path / "admin.sock"), "metrics": f"127.0.0.1:{port}"}
    with gateway(tmp_path, server=server) as (made, admin):
        for slot in (0, 1):
            made.ask(slot)
        client = made.client_of(0)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.read_to_end(60)
        made.wait_queued(1)
        wait_for("a refusal", lambda: admin.count("host_invalid") == 1)

        def samples(families: Any) -> dict[tuple[str, ...], float]:
            return {
                (sample.name, *sorted(sample.labels.values())): sample.value
                for family in families
                for sample in family.samples
            }

        status, head, body = admin.http("/metrics")
        assert status == 200
        assert "content-type: text/plain; version=0.0.4" in head.lower()
        text = samples(parser.text_string_to_metric_families(body.decode()))
        assert text["edgeq_queue_depth", "limit", "upstream/u:queue"] == 1
        assert text["edgeq_inflight", "u"] == 1
        assert text["edgeq_inflight_limit", "u"] == 1
        (refused,) = [
            value for key, value in text.items() if key[0] == "edgeq_refusals_total" and "host_invalid" in key
        ]
        assert refused == 1
        assert text["edgeq_accept_queue_limit", "0", f"127.0.0.1:{made.gateway.address[1]}"] > 0

        accept = "Accept: application/openmetrics-text; version=1.0.0"
        _status, head, body = admin.http("/metrics", accept)
        assert "content-type: application/openmetrics-text; version=1.0.0" in head.lower()
        samples(open_parser.text_string_to_metric_families(body.decode()))

        made.let_all_go()
        wait_for("both served", lambda: admin.show("upstreams")[0]["ok"] == 2)
        text = samples(parser.text_string_to_metric_families(admin.http("/metrics")[2].decode()))
        assert text["edgeq_queue_wait_seconds_count", "upstream/u"] == 2
        assert text["edgeq_queue_wait_seconds_bucket", "+Inf", "upstream/u"] == 2

        for method, target, wanted in (
            ("GET", "/metrics", 200),
            ("GET", "/v1/config", 404),
            ("POST", "/v1/drain", 404),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(method, target)
            assert connection.getresponse().status == wanted
            connection.close()


# What the supervisor does alone is seen with fake workers.


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Supervised]:
    with supervised(tmp_path, addresses=[f"127.0.0.1:{free_port()}"]) as made:
        yield made


def show(running: Supervised, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`edgeq show` as a process."""
    admin = str(running.settings["admin"])
    command = [sys.executable, "-m", "edgeq", "show", *arguments, "--admin", admin]
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_edgeq_show(running: Supervised) -> None:
    """A table, JSON with all of it, a filter; and each way to fail has its exit code."""
    done = show(running, "workers")
    assert done.returncode == 0
    assert re.fullmatch(r"slot .*\n +0 +\d+ +serving .*\n", done.stdout)
    done = show(running, "queues", "fake", "--json")
    assert json.loads(done.stdout) == []
    assert [one["queue"] for one in json.loads(show(running, "queues", "u:queue", "--json").stdout)] == [
        "upstream/u:queue"
    ]
    assert show(running, "config", "nothing").stdout == "(none)\n"
    assert show(running, "nonsense").returncode == 2
    assert show(running, "workers", "a", "b").returncode == 2
    done = show(running, "events", "0")
    assert (done.returncode, done.stderr) == (2, "edgeq show: match: expected a number from 1 to 1000\n")
    done = show(running, "events", "no-such-word")
    assert (done.returncode, done.stdout) == (0, "(none)\n")
    running.stop()
    done = show(running, "workers")
    assert done.returncode == 69
    assert "not reachable" in done.stderr
    assert "edgeq serve --admin PATH" in done.stderr


def test_followers_see_what_happens(running: Supervised) -> None:
    """As chunked JSON lines over HTTP, and as lines over the plain socket, also if the client has closed its half."""
    with connect(f"unix:{running.settings['admin']}") as one, connect(f"unix:{running.settings['admin']}") as other:
        one.sendall(b"GET /v1/events/follow HTTP/1.1\r\nHost: edgeq\r\n\r\n")
        other.sendall(b"follow events\n")
        other.shutdown(socket.SHUT_WR)
        assert b"application/x-ndjson" in one.recv(65536)
        assert running.reload(node="v2")["ok"]
        for sock in (one, other):
            seen = b""
            while b'"configuration applied"' not in seen:
                more = sock.recv(65536)
                assert more
                seen += more


def test_edgeq_follow_and_ready(running: Supervised) -> None:
    """`follow` prints a line of each event, and ends with the gateway; `ready` and `live` are for checks."""
    admin = ["--admin", str(running.settings["admin"])]
    command = [sys.executable, "-m", "edgeq", "follow"]
    for words in (["live"], ["ready"]):
        assert main([*words, *admin]) == 0
    with (
        subprocess.Popen([*command, *admin], cwd=ROOT, stdout=subprocess.PIPE, text=True) as people,
        subprocess.Popen(
            [*command, "events", "--json", *admin], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as program,
    ):
        assert people.stdout is not None
        assert program.stdout is not None
        people_read, machine_reads = people.stdout.fileno(), program.stdout.fileno()
        # Which of the events both hear depends on when they have begun.
        wait_for(
            "a follower", lambda: running.reload(node="v2")["ok"] and select.select([machine_reads], [], [], 0.1)[0]
        )
        for line in program.stdout:
            if json.loads(line)["event"] == "configuration applied":
                break
        wait_for("the other", lambda: running.reload(node="v3")["ok"] and select.select([people_read], [], [], 0.1)[0])
        running.stop()
        assert re.search(r"^20\S+Z? +info +configuration applied +.*generation=\d+", people.stdout.read(), re.MULTILINE)
        assert people.wait(60) == 0
        program.stdout.read()
        assert program.wait(60) == 0
    assert main(["ready", *admin]) == 69


def test_a_gateway_that_drains_is_not_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and why; it lives."""
    with gateway(tmp_path) as (made, reads):
        client = made.ask(0)
        made.wait_seen(1)
        admin = ["--admin", str(reads.path)]
        assert main(["drain", *admin]) == 0
        assert main(["ready", *admin]) == 1
        assert "edgeq ready: not ready: edgeq starts or drains, or every worker hangs" in capsys.readouterr().err
        assert main(["live", *admin]) == 0
        made.let_all_go()
        assert client.read_answers([Asked()], 60)[0].status == 200


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory into which other users may look, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="edgeq-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_who_may_do_what(reachable: Path) -> None:
    """Another user reads if the mode lets him connect, and changes nothing; both is asked of the kernel."""
    path = reachable / "admin.sock"

    def as_nobody(line: str, *groups: int) -> str:
        """The answer to a command, or what went wrong; `groups` are others than the main one."""
        seen, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups(groups)
                os.setgid(54321)
                os.setuid(65534)
                with connect(f"unix:{path}") as sock:
                    sock.sendall(line.encode() + b"\n")
                    os.write(told, read_all(sock))
            except OSError as error:
                os.write(told, repr(error).encode())
            finally:
                os._exit(0)
        os.close(told)
        with open(seen) as answer:
            text = answer.read()
        os.waitpid(pid, 0)
        return text

    address = f"127.0.0.1:{free_port()}"
    with supervised(reachable, addresses=[address], admin=str(path), admin_mode="0660") as running:
        assert "PermissionError" in as_nobody("show version")
        assert running.reload(admin_mode="0666")["ok"]
        assert "version:" in as_nobody("show version")
        assert as_nobody("drain") == "error: user 65534 may only read: changes are for root and user 0\n"
        assert as_nobody("reload").startswith("error: user 65534 may only read")
        refused = running.events("admin command")[-1]
        assert (refused["uid"], refused["allowed"], refused["command"]) == (65534, False, "reload")
        assert running.reload(admin_mode="0660", admin_group="nogroup")["ok"]
        assert "PermissionError" in as_nobody("show version")
        assert "version:" in as_nobody("show version", 65534)
        assert as_nobody("drain", 65534).startswith("error: user 65534 may only read")
        assert (os.stat(path).st_mode & 0o777, os.stat(path).st_gid) == (0o660, 65534)
