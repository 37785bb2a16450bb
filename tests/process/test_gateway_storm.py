"""A real storm of refusals: told in the event log, written to a file, and read from it after the gateway is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.bench import head
from tests.support.gateway import ROOT, Settings, Value
from tests.support.machine import machine
from tests.support.raw_client import Asked
from tests.support.supervised import wait_for


def show(*words: str) -> subprocess.CompletedProcess[str]:
    """`edgeq show history`, as it is typed."""
    command = [sys.executable, "-m", "edgeq", "show", "history", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def rows(*words: str) -> list[dict[str, Any]]:
    done = show(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_a_storm_of_refusals(tmp_path: Path) -> None:
    """With the queue full, who comes is refused: a storm. Its file has what was before it, what it was, and who waited.

    The directory was not there at the start, and a reload is enough. While all workers are frozen the running gateway
    tells its history, too.
    """
    dumps, admin = tmp_path / "dumps", str(tmp_path / "admin.sock")
    server: dict[str, Value] = {"admin": admin, "dumps": str(dumps)}
    upstream: dict[str, Value] = {"u": {"queue": {"max": 2, "timeout": "60s", "discipline": "fifo"}}}
    with machine(Settings(workers=2, limit=1, extra={"server": server, "upstream": upstream})) as made:
        assert made.gateway.events("history of refusal storms is not written")
        dumps.mkdir()
        made.gateway.reload({"server": {"history": "1m"}})
        waiting = [made.ask(0) for _ in range(3)]
        made.wait_queued(2)
        assert made.gateway.events("storm_began") == []
        with made.client_of(0) as client:

            def is_storm_after_one_more() -> bool:
                client.send(head())
                assert client.read_answers([Asked()], 60)[0].status == 503
                return bool(made.gateway.events("storm_began"))

            wait_for("a storm", is_storm_after_one_more)
        began = made.gateway.wait_event("storm_began")
        assert began["resource"] == "upstream/u"
        assert began["refused_per_s"] >= 10
        (file,) = wait_for("the file", lambda: list(dumps.glob("*.history")))
        assert began["file"] == str(file)
        with made.gateway.asleep():
            (live,) = rows("upstream/u", "1", "--admin", admin)
            assert (live["depth"], live["in_flight"], live["limit"]) == (2, 1, 1)
            assert {one["resource"] for one in rows("--admin", admin)} == {"upstream/u", "worker/0", "worker/1"}
        made.let_all_go()
        assert [one.read_answers([Asked()], 60)[0].status for one in waiting] == [200] * 3
    seen = rows("upstream/u", "60", "--file", str(file))
    assert (seen[-1]["depth"], seen[-1]["in_flight"], seen[-1]["limit"]) == (2, 1, 1)
    assert seen[-1]["oldest_ms"] > 0
    assert max(one["refused_per_s"] for one in seen) >= 10
    heads = show("upstream/u", "5", "--file", str(file)).stdout.split("\n")[0]
    assert heads.split()[:5] == ["UTC", "resource", "depth", "limit", "busy"]
    tenths = show("--file", str(file), "upstream/u", "60", "0.1").stdout.splitlines()[1:]
    assert len(tenths) > len(seen)
    assert tenths[-1].split()[0] == seen[-1]["at"][11:21]
    assert show("upstream/v", "--file", str(file)).stderr == (
        "edgeq show: no history of 'upstream/v'; did you mean upstream/u?\n"
    )
    file.write_bytes(file.read_bytes()[:-100])
    cut = show("--file", str(file))
    assert (cut.returncode, cut.stderr) == (1, f"edgeq show: {file} is cut off: its end is missing\n")
