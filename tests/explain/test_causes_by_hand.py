"""What operators do, and what has just begun, provoked for real with three workers: who or what it was is named."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeq.explain.watch import EVERY_S, QUIET_S
from tests.explain.scene import Behaviour, Clients, Scene, elapsed
from tests.support.builds import ONCE
from tests.support.dns_server import DnsServer
from tests.support.gateway import Settings, Value, running
from tests.support.scripted_upstream import ScriptedUpstream, serve
from tests.support.supervised import wait_for

pytestmark = ONCE

STEADY = ("taken", "both", "cut", "burst", "shut")
NAME = "backend.test"


class Stage(Scene):
    """The scene with what a test changes."""

    def __init__(self, scene: Scene, behaviour: Behaviour, servers: tuple[ScriptedUpstream, ScriptedUpstream]) -> None:
        super().__init__(scene.gateway, scene.admin)
        self.behaviour = behaviour
        self.addresses = [f"127.0.0.1:{one.port}" for one in servers]
        self.dns_port = 0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    admin = tmp_path_factory.mktemp("explain") / "admin.sock"
    behaviour = Behaviour()
    with contextlib.ExitStack() as closing:
        first, second = (closing.enter_context(ScriptedUpstream(serve(behaviour.act))) for _ in range(2))
        dns = closing.enter_context(DnsServer())
        dns.fail(NAME, "NXDOMAIN")
        urls = {"both": [first.url, second.url], "lost": [f"http://{NAME}:80"]}
        gateway = closing.enter_context(running(first.port, _settings(admin, first.url, urls, dns.port)))
        gateway.wait_event("serving")
        made = Stage(Scene(gateway, admin), behaviour, (first, second))
        made.dns_port = dns.port
        for name in STEADY:
            clients = Clients()
            closing.callback(clients.end)
            clients.add(gateway.address, f"/{name}/quick", 3)
        elapsed(4)
        made.is_calm()
        yield made


def _settings(admin: Path, url: str, urls: dict[str, list[str]], dns_port: int) -> Settings:
    names = (*STEADY, "lost")
    upstreams: dict[str, Value] = {
        name: {"endpoints": urls.get(name, [url]), "limit": 16, "queue": {"max": 4}, "breaker": {"min_requests": 10**6}}
        for name in names
    }
    upstreams["shut"] = {"endpoints": [url], "limit": 16, "breaker": {"open": "1s"}}
    extra: dict[str, Value] = {
        "server": {"admin": str(admin)},
        "dns": {"nameservers": [f"127.0.0.1:{dns_port}"], "timeout": "2s"},
        "upstream": upstreams,
        "route": [{"name": name, "upstream": name, "match": {"path": f"/{name}/*"}} for name in names],
    }
    return Settings(workers=3, extra=extra)


@contextlib.contextmanager
def asking(stage: Stage, path: str, count: int) -> Iterator[None]:
    """More clients meanwhile."""
    clients = Clients()
    clients.add(stage.gateway.address, path, count)
    try:
        yield
    finally:
        clients.end()


@pytest.mark.parametrize(
    ("done", "undone", "word"), [("drain", "undrain", "drained"), ("disable", "enable", "disabled")]
)
def test_the_only_endpoint_is_taken_out(stage: Stage, done: str, undone: str, word: str) -> None:
    """By an operator, who is named with his comment; and what is next takes it back."""
    name = f"upstream/taken#{stage.addresses[0]}"
    stage.tell(f"{done} {name} --comment disks")
    found = stage.says("endpoints_taken_out", "upstream/taken")
    assert f"its endpoint was {word} by an operator: {stage.addresses[0]}" in found["verdict"]
    assert re.fullmatch(rf"{stage.addresses[0]} is {word}, by user \d+ since .* \(disks\)", found["evidence"][0])
    command, _, _ = found["next"].partition("    # ")
    assert command == f"edgeq {undone} {name}"

    def is_refused() -> bool:
        return any("upstream_none_healthy" in one for one in stage.explain()["evidence"])

    wait_for("refusals", is_refused)
    elapsed(2 * EVERY_S)  # and the supervisor has seen why
    stage.tell(command.removeprefix("edgeq "))
    # How soon depends on when workers report, which a busy machine puts off.
    wait_for("nothing to tell", lambda: str(stage.explain()["verdict"]).endswith("nobody waits or is refused"))


def test_each_endpoint_is_taken_out_in_another_way(stage: Stage) -> None:
    """One drained, the other one disabled; with one of them back nothing is wrong."""
    drained, disabled = (f"upstream/both#{address}" for address in stage.addresses)
    stage.tell(f"drain {drained}")
    stage.tell(f"disable {disabled}")
    found = stage.says("endpoints_taken_out", "upstream/both")
    assert "all of its endpoints were disabled or drained by an operator" in found["verdict"]
    stage.tell(f"enable {disabled}")
    stage.is_calm()
    stage.tell(f"undrain {drained}")


def test_a_name_that_does_not_resolve(stage: Stage) -> None:
    """The name is told, and the command that asks the same server for it; the endpoint is shown with its name."""
    with asking(stage, "/lost/x", 3):
        found = stage.says("upstream_dead", "upstream/lost")
    assert f"{NAME} does not resolve" in found["verdict"]
    assert any(one.startswith(f"{NAME} does not resolve (dns_error: ") for one in found["evidence"])
    assert found["next"] == f"dig @127.0.0.1 -p {stage.dns_port} {NAME}"
    assert "unresolved" in stage.tell("show endpoints lost")


def test_an_upstream_that_sheds_until_its_circuit_opens(stage: Stage) -> None:
    """Next to nothing gets there any more, and it is not called dead."""
    stage.behaviour.statuses[b"/shut/quick"] = b"503 Busy"

    def is_open() -> bool:
        found = stage.says("upstream_shedding", "upstream/shut")
        return "so its circuit is open" in found["verdict"]

    wait_for("an open circuit", is_open)
    stage.behaviour.statuses.clear()
    stage.is_calm()


def test_a_limit_that_is_lowered_before_slow_requests(stage: Stage) -> None:
    """What is slow are other requests than before: the limit is what began it."""
    stage.behaviour.delays_s[b"/cut/slow"] = 0.3
    stage.tell("set upstream/cut limit 1")
    with asking(stage, "/cut/slow", 12):
        found = stage.says("limit_too_low", "upstream/cut")
    assert "its limit was lowered from 16 to 1" in found["verdict"]
    assert found["next"].startswith("edgeq set upstream/cut limit ")
    assert found["next"].endswith("edgeq unset upstream/cut limit")
    stage.tell("unset upstream/cut limit")
    stage.is_calm()


def test_refusals_that_have_just_begun(stage: Stage) -> None:
    """That they have is told before their cause is known; a machine that looks away for a second tries again."""
    first: dict[str, Any] = {}

    def is_named() -> bool:
        first.clear()
        first.update(stage.explain())
        return str(first["resource"]) == "upstream/burst"

    def begins() -> bool:
        with asking(stage, "/burst/slow", 60):
            wait_for("trouble", is_named)
        stage.is_calm()
        if first["cause"] is not None:
            elapsed(QUIET_S + 1)  # or the next try would be the same trouble
        return bool(first["cause"] is None)

    stage.behaviour.delays_s[b"/burst/slow"] = 0.5
    wait_for("a beginning", begins, 60)
    assert re.match("upstream/burst (refuses|has somebody waiting) since a moment ago", first["verdict"])
    assert any("arrive" in one for one in first["evidence"])
