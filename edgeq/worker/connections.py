"""A worker's client connections, for who asks about them (`show connections`): nothing is noted for that before.

States, in the order of a request's way:

    new       nothing has come yet
    head      a part of a request's head
    waiting   for a place, a connection, the answer to an identical request, or another try: `resource` says which
    body      the client still sends, to the upstream
    upstream  the request is sent, no answer has come
    answer    the client gets it (`stalled`: it does not take it)
    idle      between two requests
    tunnel    after 101
    closing   answered; what the client still sends is thrown away

Invariants
- However many there are, at most MAX_WALKED are looked at: in an order of no meaning, so of more than that it is a
  sample. Of these the requests that run longest come first, then the oldest of the silent ones.
- A record has no query, no header and no body: what they say may be secret. Every text is cut at MAX_TEXT, so that an
  answer of any length fits into a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest
from itertools import islice
from typing import Final

from edgeq.listener.connection import ACTIVE, CLOSED, IDLE, LINGERING, NEW, READING, TUNNEL, Downstream
from edgeq.listener.peer import Peer
from edgeq.listener.tcp_info_io import traffic
from edgeq.response.relay import Exchange
from edgeq.supervisor.messages import SeenConnection

MAX_WALKED: Final = 10_000
"""About a millisecond of the worker's time, and 0.02 for each record that is told."""
MAX_TEXT: Final = 120
_STATES: Final = {
    NEW: "new",
    READING: "head",
    IDLE: "idle",
    TUNNEL: "tunnel",
    LINGERING: "closing",
    CLOSED: "closing",
}


def listed(connections: Iterable[Downstream], count: int, now: float) -> tuple[SeenConnection, ...]:
    """At most `count` records. `now`: monotonic seconds."""
    return tuple(_seen(one, now) for one in nsmallest(count, islice(connections, MAX_WALKED), key=_rank))


def _rank(connection: Downstream) -> tuple[bool, float]:
    exchange = connection.exchange
    return (True, connection.opened_at) if exchange is None else (False, exchange.begun_at)


def _seen(connection: Downstream, now: float) -> SeenConnection:
    exchange = connection.exchange
    sent, received = traffic(connection.transport)
    settings = connection.settings
    state, resource = _STATES.get(connection.state, "answer"), settings.resource
    route = method = path = endpoint = request_id = ""
    if exchange is not None:
        if connection.state == ACTIVE:
            state, resource = _progress(exchange, resource)
        route = exchange.route.name if exchange.route is not None else ""
        method = _text(exchange.head.method)
        path = _text(exchange.head.path.partition(b"?")[0])
        endpoint = exchange.endpoint
        request_id = _text(exchange.request_id)
    return SeenConnection(
        client=_address(connection.peer),
        listener=settings.name[:MAX_TEXT],
        tls=connection.peer.tls,
        state=state,
        resource=resource[:MAX_TEXT],
        age_ms=round((now - connection.opened_at) * 1000, 1),
        request_ms=round((now - exchange.begun_at) * 1000, 1) if exchange is not None else None,
        requests=connection.requests,
        received_bytes=received if received >= 0 else None,
        sent_bytes=sent if sent >= 0 else None,
        stalled=connection.write_blocked,
        route=route[:MAX_TEXT],
        method=method,
        path=path,
        endpoint=endpoint[:MAX_TEXT],
        request_id=request_id,
    )


def _progress(exchange: Exchange, listener: str) -> tuple[str, str]:
    """How far an active request is: its state, and what it is at or waits for (for a client: the listener)."""
    up = exchange.up
    if exchange.answer_started:
        return "answer", listener if up is None else up.pool.resource
    if exchange.waits_in is not None:
        return "waiting", f"{exchange.waits_in.resource}:queue"
    if exchange.waiting_in is not None:
        return "waiting", f"{exchange.waiting_in.resource}:pool"
    if up is not None:
        return ("upstream" if exchange.request_done else "body"), up.pool.resource
    if exchange.waits_for_another():
        return "waiting", f"{_route(exchange, listener)}:cache"
    if exchange.tries is not None:
        return "waiting", f"{_route(exchange, listener)}:retry"
    return "answer", listener


def _route(exchange: Exchange, otherwise: str) -> str:
    return otherwise if exchange.route is None else exchange.route.resource


def _address(peer: Peer) -> str:
    """As a URL has it."""
    if not peer.client_port:
        return peer.client_host
    host = f"[{peer.client_host}]" if ":" in peer.client_host else peer.client_host
    return f"{host}:{peer.client_port}"


def _text(raw: bytes) -> str:
    return raw[:MAX_TEXT].decode("latin-1")
