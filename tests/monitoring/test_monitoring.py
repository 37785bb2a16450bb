"""Dashboard and alert rules: they speak of numbers that edgeq has, and the rules say what they shall."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.board.layout import Board
from edgeq.config.schema import Breaker, Config, Listener, Provider, Upstream
from edgeq.config.schema_llm import Model, Target
from edgeq.llm.measures import Measures
from edgeq.llm.message import Usage
from edgeq.observe.metrics import Metrics
from edgeq.observe.overview import Overview
from edgeq.supervisor.sockets_io import Queue

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
CONFIG = Config(
    listener=(Listener(address="127.0.0.1:1"),),
    upstream={"u": Upstream(endpoints=("http://127.0.0.1:9",), breaker=Breaker())},
    provider={"p": Provider(url="http://127.0.0.1:9/v1")},
    model={"m": Model(targets=(Target(provider="p"),))},
)
_PARTS = ("_bucket", "_count", "_sum", "_total")


class Nobody:
    """No workers, no sockets."""

    def pids(self) -> dict[int, int]:
        return {}

    def queues(self) -> list[Queue]:
        return []


@pytest.fixture
def exposed(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The names of all families, of an edgeq without workers that has answered for a model."""
    pytest.importorskip("prometheus_client")
    board = Board.create(1)
    board.assign_resources(["upstream/u", "upstream/p"])
    overview = Overview(board, Nobody(), Nobody(), lambda: CONFIG)
    asked = Measures()
    asked.record("m", "p/m", "acme", Usage(100, 11), 500_000, 0.05, 1.05, "ok", "", "chat")
    monkeypatch.setattr(overview.reports, "llm", lambda: asked.told(0.0))
    _media, text = Metrics(board, overview, 1, True, {}, store_fails=False).expose("")
    yield set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))
    board.close()


@pytest.mark.parametrize("name", ["grafana.json", "rules.yml", "rules_test.yml"])
def test_only_numbers_that_exist(name: str, exposed: set[str]) -> None:
    """A renamed metric must not leave an empty panel or an alert that never comes."""
    text = (MONITORING / name).read_text()
    used = set(re.findall(r"\b(?:edgeq|process|gen_ai_server|gen_ai_client)_[a-z_]+\b", text))
    assert used
    for one in used:
        names = {one, *(one.removesuffix(part) for part in _PARTS)}
        assert names & exposed, one


def test_dashboard() -> None:
    """Panels with different numbers, each with a title, a description and something to draw; none over another."""
    panels = json.loads((MONITORING / "grafana.json").read_text())["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for one in panels:
        place = one["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, one["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if one["type"] != "row":
            assert one["description"]
            assert all(target["expr"] and target["legendFormat"] for target in one["targets"])


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: prometheus); PROMTOOL=PATH names one")
def test_rules_on_recorded_series() -> None:
    """Each alert comes when it shall, and not when it must not."""
    assert PROMTOOL is not None
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run(
            [PROMTOOL, *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tested() -> None:
    """With or without promtool: no alert without a case."""
    rules = set(re.findall(r"alert: (\w+)", (MONITORING / "rules.yml").read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (MONITORING / "rules_test.yml").read_text()))
    assert rules == tested


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: prometheus); PROMTOOL=PATH names one")
def test_names_follow_the_conventions() -> None:
    """promtool's linter has nothing to say about names, units and help texts."""
    assert PROMTOOL is not None
    pytest.importorskip("prometheus_client")
    board = Board.create(1)
    board.assign_resources(["upstream/u", "upstream/p"])
    _media, text = Metrics(board, Overview(board, Nobody(), Nobody(), lambda: CONFIG), 1, True, {}, True).expose("")
    board.close()
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
