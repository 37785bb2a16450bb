"""Finished exchanges as the access log gets them: real objects, made from plain fields.

`FIELDS` is a plain request; `EMPTY` a connection of which nothing more is known than that it was there.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from edgeq.config.schema import Listener
from edgeq.listener.connection import Downstream
from edgeq.listener.peer import Peer
from edgeq.listener.settings import ListenerSettings
from edgeq.policy.headers import TRACE_BEGIN, X_FORWARDED, ForwardPolicy
from edgeq.response.relay import Exchange
from edgeq.route.table import Route
from edgeq.upstream.upstream import Upstream
from edgeq.wire.head import RequestFields, RequestHead
from edgeq.worker.shard import Shard

END_US: Final = 1_790_000_000_123_456  # 2026-09-21T14:13:20.123456Z
WALL_OFFSET_S: Final = 1_789_999_000.0
"""Wall clock minus monotonic clock, for `render`."""

FIELDS: Final[dict[str, Any]] = {
    "end_us": END_US,
    "method": b"GET",
    "target": b"/cart/7?item=1&x",
    "version": b"HTTP/1.1",
    "host": b"shop.example:8080",
    "client_host": "203.0.113.7",
    "client_port": 40001,
    "listener": "0.0.0.0:8080",
    "route": "checkout",
    "upstream": "api",
    "endpoint": "10.0.0.7:9000",
    "status": 200,
    "request_body_bytes": 5,
    "response_body_bytes": 1024,
    "total_us": 12_034,
    "queue_us": 301,
    "accept_us": 20,
    "kernel_us": 9000,
    "connect_us": 300,
    "upstream_us": 11_000,
    "first_byte_us": 999,
    "attempts": 2,
    "reason": "",
    "resource": "",
    "request_id": b"0af7651916cd43dd",
    "trace_id": b"0af7651916cd43dd8448eb211c80319c",
    "user_agent": b"curl/8.0",
    "referer": b"",
    "tls": False,
    "generation": 3,
    "reused": True,
}
"""`queue_us` is the wait until the request was sent, or until the end if `upstream_us` is 0: it was never sent."""
EMPTY: Final[dict[str, Any]] = {name: type(value)() for name, value in FIELDS.items()}


@functools.lru_cache(16)
def _shard(generation: int) -> Shard:
    shard = Shard(ForwardPolicy(X_FORWARDED, True, b"node", TRACE_BEGIN), [], None, None)
    shard.generation = generation
    return shard


def downstream(fields: dict[str, Any]) -> Downstream:
    """The client connection of an exchange; may be shared by several."""
    shard = _shard(fields["generation"])
    settings = ListenerSettings(Listener(address="127.0.0.1:8080"))
    settings.name = fields["listener"]
    peer = Peer(fields["client_host"], fields["client_port"], "127.0.0.1", 8080, fields["tls"], False, "")
    peer.waited_us = fields["accept_us"]
    peer.kernel_us = fields["kernel_us"]
    return Downstream(shard, settings, peer, None)


def request_head(fields: dict[str, Any]) -> RequestHead:
    """The head of an exchange; may be shared by several."""
    known = RequestFields()
    known.user_agent = fields["user_agent"]
    known.referer = fields["referer"]
    path, mark, query = fields["target"].partition(b"?")
    minor = 0 if fields["version"] == b"HTTP/1.0" else 1
    head = RequestHead(
        b"", 0, fields["method"], fields["target"], path, mark + query, fields["host"], minor, known, b""
    )
    head.version = fields["version"]
    return head


def route_of(fields: dict[str, Any], down: Downstream) -> Route | None:
    """The route of an exchange; may be shared by several."""
    if not fields["route"]:
        return None
    upstream = Upstream(fields["upstream"], down.shard.wheel)
    return Route(fields["route"], b"*", b"/*", upstream, b"", 0.0, -1, fields["generation"])


def exchange(base: dict[str, Any] | None = None, **changed: Any) -> Exchange:
    """A finished exchange with these fields (of FIELDS, if no others are given), `changed` over them."""
    fields = {**(FIELDS if base is None else base), **changed}
    assert fields.keys() == FIELDS.keys(), fields.keys() ^ FIELDS.keys()
    down = downstream(fields)
    return finished(fields, down, request_head(fields), route_of(fields, down))


def finished(fields: dict[str, Any], down: Downstream, head: RequestHead, route: Route | None) -> Exchange:
    """A finished exchange on a connection, with a head and a route that others may share."""
    ended_at = fields["end_us"] / 1e6 - WALL_OFFSET_S
    done = Exchange(down, head, route, ended_at - fields["total_us"] / 1e6)
    done.ended = True
    done.ended_at = ended_at
    if fields["upstream_us"]:
        done.sent_at = ended_at - fields["upstream_us"] / 1e6
        done.queued_at = done.sent_at - fields["queue_us"] / 1e6
        if fields["first_byte_us"]:
            done.first_byte_at = done.sent_at + fields["first_byte_us"] / 1e6
    elif fields["queue_us"]:
        done.queued_at = ended_at - fields["queue_us"] / 1e6
    done.connect_s = fields["connect_us"] / 1e6
    done.endpoint = fields["endpoint"]
    done.status = fields["status"]
    done.request_bytes = fields["request_body_bytes"]
    done.answer_bytes = fields["response_body_bytes"]
    done.attempts = fields["attempts"]
    done.reason = fields["reason"]
    done.resource = fields["resource"]
    done.request_id = fields["request_id"]
    done.trace_id = fields["trace_id"]
    done.reused = fields["reused"]
    return done
