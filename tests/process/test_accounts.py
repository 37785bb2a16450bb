"""Accounts of a real supervisor with real workers: what they know, and what of usage outlives which end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from edgeq.cli import admin_client_io, main
from edgeq.llm.store_io import Store
from tests.support import gateway, kernel
from tests.support.gateway import Settings, Value, free_port
from tests.support.raw_client import RawClient
from tests.support.scripted_upstream import echo, serve, upstream
from tests.support.supervised import TIMEOUT_S, Supervised, Who, connect, read_who, supervised, wait_for

FLUSH_S = 0.05
_ENOUGH = 40
"""Connections that reach both of two workers, or the kernel has bad luck once in 10^12."""


class Accounted:
    """A supervisor with accounts, and what is asked of it."""

    def __init__(self, running: Supervised, address: str, store: Path) -> None:
        self.running = running
        self.address = address
        self.store = store

    def command(self, method: str, path: str, **arguments: str) -> Any:
        status, body = self.running.admin(method, f"{path}?{urlencode(arguments)}")
        assert status == 200, body
        return body

    def find(self, secret: str) -> tuple[int, str, str, int]:
        """Slot, verdict, tenant and what is spent, as the worker of a new connection says."""
        with connect(self.address) as sock:
            sock.sendall(f"find {secret}\n".encode())
            slot, verdict, tenant, spent = sock.recv(1024).split()
        return int(slot), verdict.decode(), tenant.decode(), int(spent)

    def verdicts(self, secret: str) -> set[str]:
        """What all workers say of a secret."""
        found = [self.find(secret) for _ in range(_ENOUGH)]
        assert {one[0] for one in found} == {0, 1}
        return {one[1] for one in found}

    def use(self, count: int, key_id: str = "k") -> Who:
        with connect(self.address) as sock:
            sock.sendall(f"use {count} {key_id}\n".encode())
            return read_who(sock)

    def stored(self) -> int:
        """Requests in the sums by day; and as many are there one by one."""
        return stored(self.store)

    def wait_stored(self, count: int) -> None:
        wait_for(f"{count} requests", lambda: self.stored() == count)


def stored(path: Path) -> int:
    """Requests in the sums by day; as many are there one by one."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")
        (by_day,) = db.execute("SELECT SUM(requests) FROM days").fetchone()
        (one_by_one,) = db.execute("SELECT COUNT(*) FROM requests").fetchone()
    assert (by_day or 0) == one_by_one
    return int(one_by_one)


@contextlib.contextmanager
def accounted(directory: Path, workers: int = 2) -> Iterator[Accounted]:
    """A supervisor that serves; a second one in the same directory has the same store."""
    address = f"127.0.0.1:{free_port()}"
    store = directory / "accounts.sqlite"
    with supervised(directory, addresses=[address], workers=workers, store=str(store), flush=FLUSH_S) as running:
        yield Accounted(running, address, store)


def test_workers_know_of_a_change_when_its_answer_comes(tmp_path: Path) -> None:
    """A new key works everywhere at once, a rotated one with both secrets, a revoked one nowhere, also after a crash of
    a worker; and no file and no log has a secret."""
    with accounted(tmp_path) as one:
        made = one.command("POST", "/v1/keys", tenant="acme", team="core", models="gpt-*", rpm="5", expires="1h")
        secret = made["key"]
        assert secret.startswith(f"eq-{made['id']}-")
        assert one.verdicts(secret) == {"active"}
        assert one.verdicts(secret + "x") == {"unknown"}
        second = one.command("POST", "/v1/keys/rotate", id=made["id"], grace="1h")["key"]
        assert one.verdicts(secret) == one.verdicts(second) == {"active"}
        third = one.command("POST", "/v1/keys/rotate", id=made["id"])["key"]
        assert one.verdicts(second) == {"replaced"}
        assert one.verdicts(secret) == {"unknown"}
        assert one.verdicts(third) == {"active"}
        slot = one.find(third)[0]
        os.kill(one.running.pids()[slot], signal.SIGKILL)
        wait_for("the log", lambda: one.running.events("worker died"))
        wait_for("both", lambda: len(one.running.events("worker ready")) == 3)
        assert one.verdicts(third) == {"active"}
        one.command("DELETE", "/v1/keys", id=made["id"])
        assert one.verdicts(third) == {"revoked"}
        assert one.verdicts(second) == {"revoked"}
        (listed,) = one.command("GET", "/v1/keys")
        assert (listed["tenant"], listed["team"], listed["state"]) == ("acme", "core", "revoked")
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        for told in (secret, second, third):
            assert told.encode() not in files


def test_a_worker_that_hangs_is_named(tmp_path: Path) -> None:
    """It is not waited for, and knows of the change before it serves anybody again."""
    with accounted(tmp_path) as one:
        pids = one.running.pids()
        os.kill(pids[1], signal.SIGSTOP)
        made = one.command("POST", "/v1/keys", tenant="acme")
        assert made["behind"] == [1]
        os.kill(pids[1], signal.SIGCONT)
        wait_for("the other one", lambda: "behind" not in one.command("PUT", "/v1/keys", id=made["id"], rpm="1"))
        assert one.verdicts(made["key"]) == {"active"}


def test_keys_and_usage_outlive_a_restart(tmp_path: Path) -> None:
    """What is in use when the gateway stops is stored to the last request, and the next one goes on from there."""
    with accounted(tmp_path) as one:
        secret = one.command("POST", "/v1/keys", tenant="acme")["key"]
        for _ in range(20):
            one.use(100)
        one.running.signal(signal.SIGTERM)
        assert one.running.wait_exit() == 0
        assert one.stored() == 2000
    with accounted(tmp_path) as one:
        assert one.verdicts(secret) == {"active"}
        assert one.find(secret)[3] == 2000, "known before the first request"
        one.use(5)
        one.wait_stored(2005)
        wait_for("all workers", lambda: {one.find(secret)[3] for _ in range(_ENOUGH)} == {2005})
        rows = one.command("GET", "/v1/usage", by="tenant,key,model,target")
        assert [(row["tenant"], row["key"], row["requests"], row["input"], row["output"]) for row in rows] == [
            ("acme", "k", 2005, 20050, 4010)
        ]
        assert rows[0]["cost"] == pytest.approx(0.002005)


def test_a_killed_worker_loses_what_it_had_not_told(tmp_path: Path) -> None:
    """What was stored stays, what was told arrives, nothing is counted twice; its successor's usage is added."""
    with accounted(tmp_path, workers=1) as one:
        one.use(100)
        one.wait_stored(100)
        for _ in range(10):
            who = one.use(10)
        os.kill(who.pid, signal.SIGKILL)
        after = one.use(1)  # by the successor
        assert after.pid != who.pid
        one.use(1, "marked")
        wait_for("the successor's", lambda: one.command("GET", "/v1/usage", by="key")[-1]["key"] == "marked")
        rows = {row["key"]: row["requests"] for row in one.command("GET", "/v1/usage", by="key")}
        assert rows["marked"] == 1
        assert 101 <= rows["k"] <= 201
        assert one.stored() == rows["k"] + 1


def test_a_killed_supervisor_loses_nothing(tmp_path: Path) -> None:
    """What its workers had not told, and what they finish without it, is there for the next one, once."""
    with accounted(tmp_path) as one:
        one.use(100)
        one.wait_stored(100)
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(connect(one.address)) for _ in range(_ENOUGH)]
            for sock in held:
                sock.sendall(b"use 1 k\n")
                read_who(sock)
            for sock in held:
                sock.sendall(b"hold\n")
            pids = one.running.pids().values()
            one.running.signal(signal.SIGKILL)
            one.running.wait_exit()
            for sock in held:
                read_who(sock)  # it drains
        wait_for("the end of its workers", lambda: not any(map(kernel.is_alive, pids)))
        assert 100 <= one.stored() <= 100 + _ENOUGH
    with accounted(tmp_path) as one:
        assert one.stored() == 100 + _ENOUGH
        one.use(7)
        one.wait_stored(107 + _ENOUGH)


def test_a_worker_that_outlives_its_supervisor(tmp_path: Path) -> None:
    """What it finishes while the next one serves already, that one stores."""
    with accounted(tmp_path, workers=1) as old, connect(old.address) as sock:
        sock.sendall(b"use 1 k\n")
        pid = read_who(sock).pid
        old.wait_stored(1)
        old.running.signal(signal.SIGKILL)
        old.running.wait_exit()
        with accounted(tmp_path, workers=1) as new:
            assert new.stored() == 1
            assert kernel.is_alive(pid)
            sock.sendall(b"use 3 k\n")
            assert read_who(sock).pid == pid
            new.wait_stored(4)
            told = "usage of the last run's workers is stored"
            wait_for("the log", lambda: new.running.events(told))
            assert new.running.events(told)[-1]["requests"] == 3


def test_a_store_that_cannot_be_written_stops_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys are known, commands that change are refused with the reason, usage waits and is counted once."""
    with accounted(tmp_path) as one:
        secret = one.command("POST", "/v1/keys", tenant="acme")["key"]
        with contextlib.closing(sqlite3.connect(one.store)) as other:
            other.execute("ALTER TABLE batches RENAME TO elsewhere")
            one.use(50)
            wait_for("the log", lambda: one.running.events("accounts store cannot be written: usage waits"))
            assert one.verdicts(secret) == {"active"}
            also = one.running.admin("GET", "/v1/explain")[1]["also"]
            (told,) = [each for each in also if each["cause"] == "store_unwritten"]
            assert told["says"].startswith("usage waits since ")
            assert main(["usage", "--admin", str(one.running.settings["admin"])]) == 0
            assert capsys.readouterr().err.startswith("edgeq usage: usage waits since ")
            other.execute("ALTER TABLE keys RENAME TO gone")
            status, body = one.running.admin("POST", "/v1/keys?tenant=acme")
            assert status == 503
            assert "nothing was changed" in body["error"]
            other.execute("ALTER TABLE gone RENAME TO keys")
            other.execute("ALTER TABLE elsewhere RENAME TO batches")
        one.wait_stored(50)
        wait_for("the log again", lambda: one.running.events("accounts store is written again"))
        assert one.running.admin("GET", "/v1/explain")[1]["also"] == []


def test_what_waits_at_the_end_waits_for_the_next_one(tmp_path: Path) -> None:
    """A gateway stops while its store cannot be written."""
    with accounted(tmp_path) as one, contextlib.closing(sqlite3.connect(one.store)) as other:
        other.execute("ALTER TABLE batches RENAME TO elsewhere")
        one.use(50)
        wait_for("the log", lambda: one.running.events("accounts store cannot be written: usage waits"))
        one.use(20)
        one.running.signal(signal.SIGTERM)
        assert one.running.wait_exit() == 0
        other.execute("ALTER TABLE elsewhere RENAME TO batches")
    with accounted(tmp_path) as one:
        assert one.stored() == 70


def test_a_gateway_knows_tenants_by_their_keys(tmp_path: Path) -> None:
    """With the real data plane: rates count them, and its log names them; others stay without a name."""
    store = str(tmp_path / "accounts.sqlite")
    rate: dict[str, Value] = {"name": "calls", "by": "tenant", "limits": ["2/h"]}
    extra: dict[str, Value] = {
        "server": {"admin": str(tmp_path / "admin.sock")},
        "accounts": {"store": store},
        "tenant": {"key": "key"},
        "rate": [rate],
    }
    with upstream(serve(echo)) as backend, gateway.running(backend.port, Settings(extra=extra, workers=2)) as edge:
        edge.wait_event("serving")

        def ask(secret: str) -> int:
            with RawClient(edge.address) as client:
                return client.ask(f"GET /a HTTP/1.1\r\nHost: a\r\nX-Api-Key: {secret}\r\n\r\n".encode()).status

        made = [
            admin_client_io.post(str(tmp_path / "admin.sock"), "/v1/keys?tenant=acme", TIMEOUT_S)[1]["key"]
            for _ in range(2)
        ]
        assert [ask(one) for one in (*made, made[0], "stranger")] == [200, 200, 429, 200]
        edge.stop()
        tenants = {json.loads(line)["edgeq.tenant"] for line in edge.log_lines()}
        assert len(tenants) == 2
        assert "acme" in tenants


def test_a_store_that_is_in_use_or_broken(tmp_path: Path) -> None:
    """It is said at the start, with the file."""
    path = tmp_path / "accounts.sqlite"
    store = Store(str(path))
    with pytest.raises(AssertionError) as failed, accounted(tmp_path):
        pass
    assert f"accounts.store: {path}: another edgeq has it open" in "".join(failed.value.__notes__)
    store.close()
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(AssertionError) as failed, accounted(tmp_path):
        pass
    assert f"accounts.store: {path}: file is not a database" in "".join(failed.value.__notes__)


def test_accounts_do_not_come_or_go_while_it_runs(tmp_path: Path) -> None:
    """A reload that would move the store is refused: keys must not seem to be asked for where they are not."""
    with accounted(tmp_path) as one:
        answer = one.running.reload(store=str(tmp_path / "other.sqlite"))
        assert not answer["ok"]
        assert "restart" in answer["error"]
        assert one.running.reload(store=str(one.store), flush=0.1)["ok"]
        one.use(3)
        one.wait_stored(3)
