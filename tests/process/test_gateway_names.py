"""Endpoints that have names: what clients see until the first answer of DNS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.bench import head
from tests.support.dns_server import DnsServer
from tests.support.gateway import Gateway, Settings, Value, running
from tests.support.raw_client import Asked, RawClient
from tests.support.scripted_upstream import ScriptedUpstream, echo, serve, upstream

NAME = "up.test"
COUNT = 5


def named(dns: DnsServer, port: int, name: str = NAME) -> dict[str, Value]:
    return {
        "dns": {"nameservers": [dns.address], "timeout": 3},
        "upstream": {"u": {"endpoints": [f"http://{name}:{port}"]}},
    }


@contextmanager
def asked_early(dns: DnsServer, started: Gateway, name: str) -> Iterator[list[RawClient]]:
    """Clients whose requests are there before DNS has answered anything."""
    clients = [RawClient(started.address) for _ in range(COUNT)]
    for number, client in enumerate(clients):
        client.send(head("GET", f"/{number}"))
    assert dns.wait_for(name, 1)
    # Another connection is served meanwhile: the worker has read those before it.
    with RawClient(started.address) as other:
        other.send(b"nonsense\r\n\r\n")
        assert other.read_answers([Asked()])[0].status == 400
    yield clients
    for client in clients:
        client.close()


def are_served(clients: list[RawClient]) -> None:
    for number, client in enumerate(clients):
        (got,) = client.read_answers([Asked()])
        assert (got.status, got.get(b"x-path")) == (200, b"/%d" % number)


@pytest.fixture
def backend() -> Iterator[ScriptedUpstream]:
    with upstream(serve(echo)) as server:
        yield server


def test_requests_wait_for_the_first_answer(backend: ScriptedUpstream) -> None:
    """A worker that has just begun knows no address yet: nobody is refused for that."""
    with DnsServer() as dns:
        dns.fail(NAME, "SILENCE")
        with running(backend.port, Settings(extra=named(dns, backend.port))) as started:
            started.wait_event("serving")
            with asked_early(dns, started, NAME) as clients:
                dns.address_records(NAME, ["127.0.0.1"])
                are_served(clients)


def test_requests_wait_for_a_new_name(backend: ScriptedUpstream) -> None:
    """A reload has another name in place of the old one: the same."""
    with DnsServer() as dns:
        dns.fail("new.test", "SILENCE")
        with running(backend.port, Settings()) as started:
            started.wait_event("serving")
            started.reload(named(dns, backend.port, "new.test"))
            with asked_early(dns, started, "new.test") as clients:
                dns.address_records("new.test", ["127.0.0.1"])
                are_served(clients)


def test_they_are_told_that_there_is_no_such_name(backend: ScriptedUpstream) -> None:
    """As soon as that is known, as is who comes later."""
    with DnsServer() as dns:
        dns.fail(NAME, "SILENCE")
        with running(backend.port, Settings(extra=named(dns, backend.port))) as started:
            started.wait_event("serving")
            with asked_early(dns, started, NAME) as clients:
                dns.fail(NAME, "NXDOMAIN")
                for client in clients:
                    (got,) = client.read_answers([Asked()])
                    assert (got.status, json.loads(got.body)["reason"]) == (502, "dns_error")
                assert clients[0].ask(head()).status == 502
