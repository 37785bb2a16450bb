"""Providers behind TLS: their certificates are verified, whole answers and streams pass, and who cannot be trusted is
told apart and not asked: the next target is."""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.llm.gateway.support import CHAT, DEMO, MESSAGES, Stand, ask_for, events, request
from tests.support import demo_llm, gateway
from tests.support.authority import Authority
from tests.support.raw_client import Answer
from tests.support.scripted_upstream import ScriptedUpstream

NAME = "provider.test"
DETAILS = {
    "expired": "certificate has expired",
    "misnamed": "Hostname mismatch",
    "unknown": "unable to get local issuer certificate",
    "self-signed": "self-signed certificate",
    "system": "unable to get local issuer certificate",
    "plain": "WRONG_VERSION_NUMBER",
}
"""Providers that cannot be spoken to by TLS, and what the log says of them."""


@dataclass(slots=True)
class Secure:
    """What runs, and what the provider has seen."""

    stand: Stand
    others: str
    """File of the CA that is not trusted."""
    names: set[str | None] = field(default_factory=set)
    """Server names that were asked for."""


def watched(context: ssl.SSLContext, names: set[str | None]) -> ssl.SSLContext:
    """The same context, which notes each server name."""

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        names.add(name)

    context.sni_callback = note
    return context


@pytest.fixture(scope="module")
def secure() -> Iterator[Secure]:
    """A gateway before one provider, which has many certificates."""
    with tempfile.TemporaryDirectory() as name:
        trusted, other = Authority(Path(name), "trusted"), Authority(Path(name), "other")
        certificate, key = trusted.pair("edgeq.test")
        names: set[str | None] = set()
        strict = watched(trusted.issue("strict.test"), names)
        strict.verify_mode = ssl.CERT_REQUIRED
        strict.load_verify_locations(trusted.path)
        contexts = {
            "well": watched(trusted.issue(NAME), names),
            "local": watched(trusted.issue("localhost"), names),
            "strict": strict,
            "expired": trusted.issue(NAME, days=-1),
            "misnamed": trusted.issue("another.test"),
            "unknown": other.issue(NAME),
            "self-signed": trusted.self_signed(NAME),
        }
        with demo_llm.running(tls=list(contexts.values())) as demo, ScriptedUpstream() as scripted:
            ports = dict(zip(contexts, demo.tls_ports, strict=True))
            ports |= {"system": ports["well"], "bare": ports["strict"], "plain": demo.port}
            by_default: dict[str, Any] = {"ca": str(trusted.path), "server_name": NAME}
            tls = dict.fromkeys(ports, by_default) | {
                "local": {"ca": str(trusted.path)},
                "strict": {
                    "ca": str(trusted.path),
                    "server_name": "strict.test",
                    "certificate": str(certificate),
                    "key": str(key),
                },
                "system": {"server_name": NAME},  # of its CAs none has issued this
                "bare": {"ca": str(trusted.path), "server_name": "strict.test"},
            }
            tables = tables_of(ports, tls)
            admin = str(Path(name) / "admin.sock")
            settings = gateway.Settings(workers=2, extra={"server": {"admin": admin}, **tables})
            with gateway.running(demo.port, settings) as found:
                yield Secure(Stand(found, demo, scripted, tables, admin), str(other.path), names)


def tables_of(ports: dict[str, int], tls: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A provider of each dialect that is well, one for each that is not, and one more without TLS."""
    patient = {"breaker": {"min_requests": 1_000_000}, "rest_after": 0, "keys": ["sk-tls"]}
    providers: dict[str, Any] = {
        f"well-{short}": {
            "url": f"https://127.0.0.1:{ports['well']}{path}",
            "dialect": dialect,
            "tls": tls["well"],
            **patient,
        }
        for short, (dialect, path) in DEMO.items()
    }
    for kind, port in ports.items():
        host = "localhost" if kind == "local" else "127.0.0.1"
        providers[kind] = {"url": f"https://{host}:{port}/v1", "tls": tls[kind], **patient}
    providers["next"] = {"url": f"http://127.0.0.1:{ports['plain']}/v1", **patient}
    models: dict[str, Any] = {}
    for who, provider in providers.items():
        prefix = "models/mock/" if provider.get("dialect") == "gemini" else "mock/"
        first = {"provider": who, "model": f"{prefix}tokens=5,tag={who}"}
        long = {"provider": who, "model": f"{prefix}rate=20,tokens=400,tag=long-{who}"}
        models[who] = {"targets": [first]}
        models[f"long-{who}"] = {"targets": [long]}
        models[f"{who}-then-next"] = {"targets": [first, {"provider": "next", "model": "mock/tokens=5,tag=next"}]}
    return {"provider": providers, "model": models, "route": [{"name": "llm", "llm": {"keepalive": "0s"}}]}


@pytest.mark.parametrize("who", ["well-oa", "well-an", "well-ge", "local", "strict"])
def test_whole_and_streamed(secure: Secure, who: str) -> None:
    """In each dialect; by the name that is configured, or the URL's; with a certificate of the gateway's own."""
    secure.names.clear()
    for path, stream in product((CHAT, MESSAGES), (False, True)):
        answer = secure.stand.ask(ask_for(who, stream), path)
        assert (answer.status, answer.complete) == (200, True), answer
        assert (answer.get(b"x-edgeq-target") or b"").startswith(who.encode() + b"/")
        if stream:
            last = events(answer.body)[-1]
            assert last == (("", "[DONE]") if path == CHAT else ("message_stop", {"type": "message_stop"}))
        else:
            assert json.loads(answer.body)["usage"]
    names = {"local": {"localhost"}, "strict": {"strict.test"}}.get(who, {NAME})
    assert secure.names <= names, "each connection has said whom it wants"
    secure.stand.wait_idle()


@pytest.mark.parametrize("who", ["well-oa", "well-an", "well-ge"])
def test_a_client_leaves(secure: Secure, who: str) -> None:
    """In the middle of a stream: the provider's connection ends, below TLS as well."""
    stand = secure.stand
    name = stand.called(f"long-{who}")
    cancelled = stand.counts(name)["cancelled"]
    clients = [stand.client() for _ in range(4)]
    for client, path in zip(clients, (CHAT, MESSAGES) * 2, strict=True):
        client.send(request(ask_for(f"long-{who}", True), path))
    for client in clients:
        while len(client.received) < 1000:
            assert client.read_some(), client.received
    for client in clients[:2]:
        client.close()
    for client in clients[2:]:
        client.reset()
    stand.wait_counts(name, open=0, cancelled=cancelled + 4)
    stand.wait_idle()


def asked_next(stand: Stand, who: str) -> None:
    """Where this provider would be the first one, whole and streamed, the next target answers."""
    before = stand.counts(stand.called(who))["requests"]
    for path, stream in product((CHAT, MESSAGES), (False, True)):
        answer = stand.ask(ask_for(f"{who}-then-next", stream), path)
        assert (answer.status, answer.complete) == (200, True), answer
        assert (answer.get(b"x-edgeq-target") or b"").startswith(b"next/")
    assert stand.counts(stand.called(who))["requests"] == before, "no request, and no key, has got there"
    stand.wait_idle()


@pytest.mark.parametrize("who", DETAILS)
def test_who_cannot_be_trusted_is_not_asked(secure: Secure, who: str) -> None:
    """The next target answers; without one the client is told what failed, and the log says why."""
    asked_next(secure.stand, who)
    answer = secure.stand.ask(ask_for(who))
    assert (answer.status, reason_of(answer)) == (502, "upstream_tls_failed")
    assert b"error=tls_certificate_error" in (answer.get(b"proxy-status") or b"")
    told = [one for one in secure.stand.gateway.events("upstream_connect_failed") if one["upstream"] == who]
    assert {(one["reason"], one["detail"].partition(",")[0]) for one in told} == {("upstream_tls_failed", DETAILS[who])}


def test_who_misses_our_certificate(secure: Secure) -> None:
    """With TLS 1.3 it says so when the handshake is over for us, and closes: that is a reset, and moves on, too."""
    asked_next(secure.stand, "bare")
    answer = secure.stand.ask(ask_for("bare"))
    assert (answer.status, reason_of(answer)) == (502, "upstream_reset")


def reason_of(answer: Answer) -> str:
    """Of a refusal."""
    reason: str = json.loads(answer.body)["error"]["code"]
    return reason


@pytest.mark.parametrize("who", ["unknown", "self-signed"])
def test_trust_changes_by_a_reload(secure: Secure, who: str) -> None:
    """Another CA, or none: both ways, and no connection of the time before is used on."""
    stand = secure.stand
    trust: dict[str, Any] = {"ca": secure.others} if who == "unknown" else {"verify": False}
    assert stand.ask(ask_for(who)).status == 502
    stand.gateway.reload({"provider": {who: {"tls": trust}}})
    for stream in (False, True):
        answer = stand.ask(ask_for(who, stream))
        assert (answer.status, answer.complete) == (200, True), answer
    stand.gateway.reload({})
    answer = stand.ask(ask_for(who))
    assert (answer.status, reason_of(answer)) == (502, "upstream_tls_failed")
    stand.wait_idle()
