"""Where each reason is provoked for real: one gateway for most of them, others for what concerns a whole process.

A scenario is a function that is registered for its token, with what it needs of the configuration:

    @provokes("queue_full", upstream={"limit": 1, "queue": {"max": 1}})
    def queue_full(stage: Stage) -> Seen: ...

Each has a route of its own (path /TOKEN/*), an upstream of its own if it says something of it, and a listener of its
own likewise, all named after the token. So scenarios do not meet, and resources tell whose they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.listener import certificates
from tests.support import gateway, kernel
from tests.support.dns_server import DnsServer
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection, answer, serve

PATIENCE: Final = "60s"
"""For what must not come to an end by time."""
SOON: Final = "300ms"
"""For what must."""
DNS: Final = "2s"
"""For a nameserver that is silent; the same one answers others, also while all of this starts on a busy machine."""
UNLIMITED: Final = 1 << 20
SERVICE_S: Final = 0.6
"""How long answers to /.../slow take."""
NO_PRESSURE: Final[Mapping[str, Value]] = {"loop_lag": 0, "memory": 0, "descriptors": 0}
DEFECT: Final = "X-Defect"
"""A field that makes h11 raise what nobody has foreseen, in gateways of a stage."""

_BREAK_H11: Final = f"""
import h11

_receive = h11.Connection.receive_data

def _broken(self, data):
    if b"{DEFECT}" in data:
        raise RuntimeError("a defect, for a test")
    return _receive(self, data)

h11.Connection.receive_data = _broken
"""

Tables: TypeAlias = Mapping[str, Value]
Play: TypeAlias = Callable[["Stage"], "Seen"]
Wants: TypeAlias = Tables | Callable[["Stage"], Tables] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a scenario has provoked."""

    resource: str
    answer: Answer | None = None
    """With the reason; None if there can be none."""
    event: str = ""
    """What tells of it, if there was no request whose line in the access log could."""
    status: int | None = None
    """In the access log, where that is not the reason's own; 0: the line has none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    """How one reason is provoked."""

    token: str
    play: Play
    upstream: Wants
    route: Tables | None
    listener: Wants
    rate: Tables | None
    missing: str
    """Why this reason cannot be provoked yet; empty: it can."""


SCENARIOS: Final[dict[str, Scenario]] = {}


def provokes(
    token: str,
    *,
    upstream: Wants = None,
    route: Tables | None = None,
    listener: Wants = None,
    rate: Tables | None = None,
    missing: str = "",
) -> Callable[[Play], Play]:
    """Register a scenario, with the tables that it needs in the gateway of the stage."""

    def register(play: Play) -> Play:
        assert token not in SCENARIOS, token
        SCENARIOS[token] = Scenario(token, play, upstream, route, listener, rate, missing)
        return play

    return register


class Stage:
    """Upstreams, names, certificates and gateways for the scenarios."""

    def __init__(self, directory: Path, closing: contextlib.ExitStack) -> None:
        self.directory = directory
        self.closing = closing
        self.server = closing.enter_context(ScriptedUpstream(serve(self.act)))
        self.second_server = closing.enter_context(ScriptedUpstream(serve(self.act)))
        self.dns = closing.enter_context(DnsServer())
        self.dns.fail("silent.test", "SILENCE")
        self.certificate = certificates.make(directory, "served", "gateway.test")
        self.counts: Counter[tuple[str, str]] = Counter()
        """Of gateways that have ended, by reason and resource."""
        self.logged: Counter[tuple[str, str]] = Counter()
        """Lines of their access logs, likewise."""
        self._ports: dict[str, int] = {}
        self._go = threading.Event()
        self._go.set()
        (directory / "sitecustomize.py").write_text(_BREAK_H11)
        self._main: Gateway | None = None
        self.current: Gateway
        """Where the scenario that is played has to look for traces."""

    # -- the upstream of nearly all -----------------------------------------------------------------------------------

    def act(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        """The last segment of a path says what is to happen."""
        match request.target.rpartition(b"/")[2]:
            case b"hold":
                connection.wait(self._go, 60)
                connection.send(answer(b"held"))
            case b"slow":
                kernel.select_pause(SERVICE_S)
                connection.send(answer(b"slow"))
            case b"stall":
                connection.stall()
            case b"reset":
                connection.reset()
            case b"cut":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                connection.close()
            case b"garbage":
                connection.send(b"220 mail.test ESMTP\r\n\r\n")
                connection.close()
            case b"fail":
                connection.send(answer(b"", b"500 Broken"))
            case b"busy":
                connection.send(answer(b"", b"503 Busy"))
            case b"large":
                connection.send(answer(bytes(16 * 1024 * 1024)))
            case _:
                connection.send(answer(b"ok"))

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Requests for /.../hold are answered when this ends."""
        self._go.clear()
        try:
            yield
        finally:
            self._go.set()

    def wait_seen(self, token: str, count: int) -> None:
        """Until so many requests for /TOKEN/hold have arrived, ever."""
        path = f"/{token}/hold".encode()
        seen = self.server
        seen.wait_for(lambda: sum(one.target == path for one in seen.requests) >= count, 20, f"{count} x {token}")

    # -- gateways -----------------------------------------------------------------------------------------------------

    @property
    def main(self) -> Gateway:
        """The gateway of most scenarios, with the tables of all of them."""
        if self._main is None:
            self._main = self.start(self._main_settings())
        return self._main

    def start(self, settings: Settings) -> Gateway:
        """One more gateway, which lives as long as the stage."""
        environment = {"PYTHONPATH": f"{self.directory}:{os.environ['PYTHONPATH']}"}
        running = gateway.running(self.server.port, dataclasses.replace(settings, environment=environment))
        started = self.current = self.closing.enter_context(running)
        self.closing.callback(self._count, started)
        started.wait_event("serving")
        return started

    def _count(self, started: Gateway) -> None:
        started.stop()
        for event in started.events("refusals_of_worker"):
            for reason, resources in event["refused"].items():
                self.counts.update({(reason, resource): count for resource, count in resources.items()})
        lines = [json.loads(line) for line in started.log_lines()]
        self.logged.update((line["edgeq.reason"], line["edgeq.resource"]) for line in lines if "edgeq.reason" in line)

    def end(self) -> None:
        """Stop all; `counts` is complete."""
        self.closing.close()

    def _main_settings(self) -> Settings:
        upstreams: dict[str, Value] = {}
        routes: list[Value] = []
        listeners: list[Tables] = []
        rates: list[Value] = []
        for token, scenario in SCENARIOS.items():
            if scenario.upstream is not None:
                table = self._tables(scenario.upstream)
                upstreams[token] = {"endpoints": [self.server.url], "limit": UNLIMITED, **table}
            served_by = token if scenario.upstream is not None else "u"
            if scenario.upstream is not None or scenario.route is not None:
                match = {"path": f"/{token}/*"}
                routes.append({"name": token, "upstream": served_by, "match": match, **(scenario.route or {})})
            if scenario.listener is not None:
                address = f"127.0.0.1:{self.port(token)}"
                listeners.append({"name": token, "address": address, **self._tables(scenario.listener)})
            if scenario.rate is not None:
                rates.append({"name": token, "routes": [token], **scenario.rate})
        extra: dict[str, Value] = {
            "listener": {"name": "main", "trusted": ["127.0.0.0/8"]},
            "upstream": upstreams,
            "route": routes,
            "rate": rates,
            "tenant": {"key": "header:x-tenant"},
            "forward": {"deadline": "x-deadline", "priority": "x-priority", "node": "stage"},
            "dns": {"nameservers": [self.dns.address], "timeout": DNS, "retry": PATIENCE},
            "protect": NO_PRESSURE,
        }
        return Settings(listeners=listeners, extra=extra)

    def _tables(self, wants: Tables | Callable[[Stage], Tables]) -> Tables:
        return wants(self) if callable(wants) else wants

    def port(self, token: str) -> int:
        """Of the listener of a scenario."""
        return self._ports.setdefault(token, free_port())

    # -- clients ------------------------------------------------------------------------------------------------------

    def connect(self, listener: str = "", receive_buffer_bytes: int = 0) -> RawClient:
        """A connection to the main listener, or a scenario's own."""
        self.current = self.main
        address = ("127.0.0.1", self.port(listener)) if listener else self.main.address
        client = RawClient(address, 20, receive_buffer_bytes)
        self.closing.callback(client.close)
        return client

    def ask(self, request: bytes, listener: str = "", method: bytes = b"GET") -> Answer:
        """The answer to one request, on a connection of its own."""
        with self.connect(listener) as client:
            return client.ask(request, method)

    def send(self, request: bytes) -> RawClient:
        """A connection on which a request was sent."""
        client = self.connect()
        client.send(request)
        return client

    def settle(self) -> None:
        """What was sent before has been read: a request that comes after it is answered."""
        assert self.ask(get("nowhere")).status == 404

    def first_answer(self, asked: list[RawClient]) -> Answer:
        """Of these the one that is answered first; it leaves the list."""
        readable = select.select([client.socket for client in asked], [], [], 20)[0]
        assert readable, "nobody is answered"
        (client, *_) = [client for client in asked if client.socket in readable]
        asked.remove(client)
        (got,) = client.read_answers([Asked()])
        return got

    # -- traces -------------------------------------------------------------------------------------------------------

    def line_of(self, reason: str, resource: str) -> dict[str, Any]:
        """The last line with these in the access log of the gateway that was used last."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            lines = [json.loads(line) for line in self.current.log_lines() if f'"edgeq.reason":"{reason}"' in line]
            found[:] = [line for line in lines if (line["edgeq.reason"], line["edgeq.resource"]) == (reason, resource)]
            return bool(found)

        kernel.wait_until(look, 20, f"a line with {reason} and {resource}")
        return found[-1]

    def endpoint(self, token: str) -> str:
        """The resource of a scenario's only endpoint."""
        return f"upstream/{token}#127.0.0.1:{self.server.port}"


def wait_for_event(started: Gateway, name: str, /, **fields: Any) -> dict[str, Any]:
    """An event of this name with these fields."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [one for one in started.events(name) if fields.items() <= one.items()]
        return bool(found)

    kernel.wait_until(look, 20, f"{name} {fields}")
    return found[-1]


def get(token: str, what: str = "", *fields: str) -> bytes:
    """A request for a scenario's route."""
    return "\r\n".join([f"GET /{token}/{what} HTTP/1.1", "Host: a", *fields, "", ""]).encode()
