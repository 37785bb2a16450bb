"""Spans of a real gateway, as a collector gets them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import gateway
from tests.support.collector import CLIENT, SERVER, Collector, Seen, collecting
from tests.support.gateway import Gateway, Settings, Value, free_port
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import (
    ScriptedUpstream,
    SeenRequest,
    UpstreamConnection,
    answer,
    reply_then,
    serve,
)
from tests.support.supervised import connect, read_all, wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])")


@dataclass
class Traced:
    """A gateway that traces everything, its upstream, and who collects."""

    edge: Gateway
    upstream: ScriptedUpstream
    collector: Collector
    admin: str
    handler: Callable[[UpstreamConnection, SeenRequest], None]
    seen: list[SeenRequest] = dataclasses.field(default_factory=list)
    """What has come to the upstream, in order, over all its connections."""

    @property
    def last(self) -> SeenRequest:
        return self.seen[-1]

    def handle(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        self.seen.append(request)
        self.handler(connection, request)

    def ask(self, *fields: str, path: str = "/a?secret", client: RawClient | None = None) -> Answer:
        lines = "".join(f"{field}\r\n" for field in fields)
        with contextlib.ExitStack() as stack:
            client = client or stack.enter_context(RawClient(self.edge.address))
            return client.ask(f"GET {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n".encode())

    def get(self, target: str) -> str:
        """From the admin socket, over HTTP: the content."""
        with connect(self.admin) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: edgeq\r\nConnection: close\r\n\r\n".encode())
            return read_all(sock).decode().partition("\r\n\r\n")[2]

    def queue(self, name: str) -> dict[str, Any]:
        """Nothing if there is no such queue."""
        found = [one for one in json.loads(self.get("/v1/queues")) if one["queue"] == name]
        return dict(found[0]) if found else {}

    def spans_of(self, trace_id: str, count: int) -> list[Seen]:
        def found() -> list[Seen]:
            return [one for one in self.collector.accepted if one.trace_id == trace_id]

        wait_for(f"{count} spans of {trace_id}", lambda: len(found()) >= count)
        return sorted(found(), key=lambda one: (one.raw.kind, one.raw.start_time_unix_nano))


def answer_ok(connection: UpstreamConnection, _: SeenRequest) -> None:
    connection.send(answer(b"ok"))


@contextlib.contextmanager
def tracing(collector: Collector, settings: Settings, **trace: Value) -> Iterator[Traced]:
    made: list[Traced] = []
    upstream = ScriptedUpstream(serve(lambda connection, request: made[0].handle(connection, request)))
    with upstream, tempfile.TemporaryDirectory(prefix="edgeq-admin-") as directory:
        table: dict[str, Value] = {
            "trace": {"endpoint": collector.url, "ratio": 1.0, **trace},
            "listener": {"trusted": ["127.0.0.1"]},
            "server": {"workers": settings.workers, "drain_timeout": 2, "admin": f"{directory}/admin.sock"},
        }
        settings = dataclasses.replace(settings, extra=gateway.merge(table, settings.extra))
        with gateway.running(upstream.port, settings) as edge:
            made.append(Traced(edge, upstream, collector, f"unix:{directory}/admin.sock", answer_ok))
            yield made[0]


@pytest.fixture(scope="module")
def shared() -> Iterator[Traced]:
    with collecting() as collector, tracing(collector, Settings(workers=2)) as made:
        yield made


@pytest.fixture
def traced(shared: Traced) -> Iterator[Traced]:
    """The shared one, as if it were new."""
    shared.collector.clear()
    shared.seen.clear()
    yield shared
    shared.handler = answer_ok


def upstream_context(traced: Traced) -> tuple[str, str, str]:
    """Trace, parent and flag that the upstream has got with the last request."""
    found = _TRACEPARENT.fullmatch(traced.last.get(b"traceparent") or b"")
    assert found is not None
    return found[1].decode(), found[2].decode(), found[3].decode()


def test_a_request_has_two_spans(traced: Traced) -> None:
    """Ids chain from the caller over both spans to the upstream; names and attributes are those of the conventions."""
    traced.ask(f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1,b=2", "user-agent: me")
    client, server = sorted(traced.spans_of(TRACE, 2), key=lambda one: -one.raw.kind)
    assert (client.raw.kind, server.raw.kind) == (CLIENT, SERVER)
    assert server.parent_id == PARENT
    assert client.parent_id == server.span_id
    assert upstream_context(traced) == (TRACE, client.span_id, "1")
    assert traced.last.get(b"tracestate") == b"a=1,b=2"
    assert server.raw.trace_state == client.raw.trace_state == "a=1,b=2"
    assert (server.raw.name, client.raw.name) == ("GET default", "GET")
    expected = {
        "http.request.method": "GET",
        "http.route": "default",
        "url.path": "/a",
        "url.scheme": "http",
        "server.address": "shop.example",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "user_agent.original": "me",
        "http.response.status_code": 200,
        "edgeq.upstream": "u",
    }
    assert server.attributes.items() >= expected.items()
    expected = {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": traced.upstream.port,
        "network.peer.address": "127.0.0.1",
        "http.response.status_code": 200,
    }
    assert client.attributes.items() >= expected.items()
    assert "secret" not in str(server.raw)
    assert not server.is_error
    assert not client.is_error
    assert server.resource["service.name"] == "edgeq"
    begins, ends = server.raw.start_time_unix_nano, server.raw.end_time_unix_nano
    assert begins <= client.raw.start_time_unix_nano < client.raw.end_time_unix_nano <= ends
    assert client.waits()["edgeq.wait.first_byte"]["edgeq.wait_ms"]


def test_the_log_and_the_answer_name_the_trace(traced: Traced) -> None:
    """From a line of the access log one finds the trace, and from a span the request id that the client was told."""
    got = traced.ask()
    trace_id, _, _ = upstream_context(traced)
    (_, server) = sorted(traced.spans_of(trace_id, 2), key=lambda one: -one.raw.kind)
    request_id = (got.get(b"x-request-id") or b"").decode()
    assert server.attributes["edgeq.request_id"] == request_id

    def line() -> dict[str, Value]:
        found = [json.loads(one) for one in traced.edge.log_lines() if request_id in one]
        return found[0] if found else {}

    assert wait_for("its line", line)["trace_id"] == trace_id


def test_what_a_trusted_caller_does_not_sample(traced: Traced) -> None:
    """Its flag is obeyed, and the upstream gets what it has sent: nobody here stands between them."""
    traced.ask(f"traceparent: 00-{TRACE}-{PARENT}-00")
    assert upstream_context(traced) == (TRACE, PARENT, "0")
    traced.ask()
    traced.spans_of(upstream_context(traced)[0], 2)
    assert all(one.trace_id != TRACE for one in traced.collector.accepted)


def test_a_wrong_traceparent_begins_anew(traced: Traced) -> None:
    """What breaks the rules is no trace to go on with, and its tracestate goes with it (W3C, 3.3)."""
    for wrong in (f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE.upper()}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "x"):
        traced.ask(f"traceparent: {wrong}", "tracestate: a=1")
        trace_id, _, flag = upstream_context(traced)
        assert trace_id != TRACE
        assert flag == "1"
        assert traced.last.get(b"tracestate") is None
        spans = traced.spans_of(trace_id, 2)
        assert not any(span.raw.links for span in spans)
        assert {span.parent_id for span in spans} >= {""}


def test_one_that_is_refused_before_it_is_sent(traced: Traced) -> None:
    """A server span with the reason, and no client span."""
    with RawClient(traced.edge.address) as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        (got,) = client.read_answers([Asked()])
    assert got.status == 400
    (server,) = traced.collector.wait(1)
    assert server.raw.kind == SERVER
    assert server.raw.name == "GET"
    assert server.attributes["error.type"] == server.attributes["edgeq.reason"] != ""
    assert str(server.attributes["edgeq.resource"]).startswith("listener/")
    assert not server.is_error  # the client's fault (HTTP conventions, "Status")


def test_a_cut_answer_is_an_error(traced: Traced) -> None:
    """Its status was 200, and still it is an error, by its reason, in both spans."""
    traced.handler = reply_then(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", "reset")
    with RawClient(traced.edge.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_to_end()
    spans = traced.spans_of(upstream_context(traced)[0], 2)
    assert [one.attributes["error.type"] for one in spans] == ["upstream_truncated"] * 2
    assert [one.attributes["http.response.status_code"] for one in spans] == [200, 200]
    assert all(one.is_error for one in spans)


def test_who_leaves_is_no_error(traced: Traced) -> None:
    """Cancelled by the caller: the reason says it, the status does not."""
    go = threading.Event()

    def hang(connection: UpstreamConnection, _: SeenRequest) -> None:
        connection.wait(go)

    traced.handler = hang
    with RawClient(traced.edge.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for("it is at the upstream", lambda: traced.seen)
        client.reset()
    spans = traced.spans_of(upstream_context(traced)[0], 2)
    go.set()
    for one in spans:
        assert one.attributes["edgeq.reason"] == "client_gone"
        assert "error.type" not in one.attributes
        assert not one.is_error


@pytest.mark.parametrize(("status", "server_fails"), [(404, False), (500, True)])
def test_the_upstreams_statuses(traced: Traced, status: int, server_fails: bool) -> None:
    """For a client span 4xx is an error as well; for the server's it is the caller's affair."""
    traced.handler = lambda connection, _: connection.send(answer(b"", b"%d X" % status))
    traced.ask()
    spans = {one.raw.kind: one for one in traced.spans_of(upstream_context(traced)[0], 2)}
    assert spans[CLIENT].is_error
    assert spans[CLIENT].attributes["error.type"] == str(status)
    assert spans[SERVER].is_error == server_fails


def test_waits_are_events() -> None:
    """Who waits for a place has the queue's name and the time in his span; who gets a new connection has that, too. Who
    finds the queue full has a server span that says so, and no other."""
    go = threading.Event()

    def hold(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target == b"/first":
            connection.wait(go)
        connection.send(answer(b"ok"))

    settings = Settings(
        limit=1, extra={"upstream": {"u": {"queue": {"max": 1, "timeout": "20s", "discipline": "fifo"}}}}
    )
    with collecting() as collector, tracing(collector, settings) as traced:
        traced.handler = hold
        with RawClient(traced.edge.address) as first, RawClient(traced.edge.address) as second:
            first.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            traced.upstream.wait_for(lambda: len(traced.upstream.requests) == 1)
            second.send(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for("one waits", lambda: traced.queue("upstream/u:queue")["depth"] == 1)
            assert traced.ask(path="/third").status == 503
            go.set()
            first.read_answers([Asked()])
            second.read_answers([Asked()])
        spans = collector.wait(5)
        refused = next(one for one in spans if one.attributes.get("url.path") == "/third")
        assert refused.attributes["error.type"] == "queue_full"
        assert refused.attributes["edgeq.resource"] == "upstream/u:queue"
        assert refused.is_error
        assert [one.raw.kind for one in spans if one.trace_id == refused.trace_id] == [SERVER]
        waited = next(one for one in spans if one.raw.kind == SERVER and one.attributes["url.path"] == "/second")
        event = waited.waits()["edgeq.wait.queue"]
        assert event["edgeq.resource"] == "upstream/u"
        assert float(event["edgeq.wait_ms"]) > 0
        opened = [one for one in spans if "edgeq.wait.connect" in one.waits()]
        assert [one.raw.kind for one in opened] == [CLIENT]
        assert not [one for one in spans if one.raw.kind == SERVER and "edgeq.wait.connect" in one.waits()]


def retrying(endpoints: Sequence[str], **retry: Value) -> dict[str, Value]:
    """Configuration of one route with these endpoints, asked in turn."""
    return {
        "upstream": {"u": {"endpoints": endpoints, "balance": "round-robin"}},
        "route": [{"name": "r", "upstream": "u", "retry": retry}],
    }


def test_each_try_is_a_span() -> None:
    """An answer that is no good, then a good one: two client spans of one server span, the second one says that it is
    the second, and each has told its own id to its upstream."""
    first = threading.Event()

    def handle(connection: UpstreamConnection, _: SeenRequest) -> None:
        fails = not first.is_set()
        first.set()
        connection.send(answer(b"", b"503 X") if fails else answer(b"ok"))

    with collecting() as collector, ScriptedUpstream(serve(handle)) as one, ScriptedUpstream(serve(handle)) as other:
        extra = retrying([one.url, other.url], on=["503"], attempts=2, backoff="1ms")
        with tracing(collector, Settings(extra=extra)) as traced:
            assert traced.ask().status == 200
            server, failed, good = sorted(collector.wait(3), key=lambda span: span.raw.kind != SERVER)
        assert server.attributes["http.response.status_code"] == 200
        assert not server.is_error
        assert failed.parent_id == good.parent_id == server.span_id
        assert failed.attributes["http.response.status_code"] == 503
        assert "http.request.resend_count" not in failed.attributes
        assert failed.is_error
        assert good.attributes["http.response.status_code"] == 200
        assert good.attributes["http.request.resend_count"] == 1
        assert failed.raw.end_time_unix_nano <= good.raw.start_time_unix_nano
        told = [request.get(b"traceparent") or b"" for request in (*one.requests, *other.requests)]
        assert sorted(told) == sorted(f"00-{span.trace_id}-{span.span_id}-01".encode() for span in (failed, good))


def test_who_cannot_be_reached() -> None:
    """A dial that fails is a try as well: its span names the endpoint and the reason, the next one succeeds."""
    dead = f"http://127.0.0.1:{free_port()}"
    with collecting() as collector, ScriptedUpstream(serve(answer_ok)) as alive:
        with tracing(collector, Settings(extra=retrying([dead, alive.url], on=["reset"]))) as traced:
            for _ in range(2):  # each of the endpoints has its turn
                assert traced.ask().status == 200
            failed = next(one for one in collector.wait(5) if one.is_error)
            spans = traced.spans_of(failed.trace_id, 3)
        assert failed.raw.kind == CLIENT
        assert failed.attributes["error.type"] == "upstream_connect_refused"
        assert f"http://{failed.attributes['server.address']}:{failed.attributes['server.port']}" == dead
        assert sorted(one.raw.kind for one in spans) == [SERVER, CLIENT, CLIENT]


def test_two_tries_at_once() -> None:
    """Of a try and its hedge the one that is answered has the status; the one that hangs ends then, as nobody's error.
    Mostly the hedge wins; on a busy machine it may reach its upstream first, and then be the one that hangs."""
    hung: list[bytes] = []
    go = threading.Event()

    def handle(connection: UpstreamConnection, request: SeenRequest) -> None:
        if not hung:
            hung.append(request.get(b"traceparent") or b"")
            connection.wait(go)
        connection.send(answer(b"ok"))

    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting())
        endpoints = [stack.enter_context(ScriptedUpstream(serve(handle))).url for _ in range(2)]
        settings = Settings(extra=retrying(endpoints, hedge="50ms"))
        traced = stack.enter_context(tracing(collector, settings))
        assert traced.ask().status == 200
        server, *tries = sorted(collector.wait(3), key=lambda span: span.raw.kind != SERVER)
        go.set()
    (lost,) = [span for span in tries if span.span_id.encode() in hung[0]]
    (won,) = [span for span in tries if span is not lost]
    assert [span.attributes.get("edgeq.hedge", False) for span in tries] == [False, True]
    assert won.attributes["http.response.status_code"] == 200
    assert "http.response.status_code" not in lost.attributes
    assert not lost.is_error
    assert lost.parent_id == won.parent_id == server.span_id
    assert lost.raw.end_time_unix_nano > won.raw.start_time_unix_nano


def test_what_did_not_come_from_the_upstream() -> None:
    """A stored answer has no client span; one of another upstream has two, and the request keeps its reason."""

    def fails(connection: UpstreamConnection, _: SeenRequest) -> None:
        connection.send(answer(b"", b"500 X"))

    def stored(connection: UpstreamConnection, _: SeenRequest) -> None:
        connection.send(answer(b"ok", b"200 OK", b"Cache-Control: max-age=60"))

    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting())
        backup = stack.enter_context(ScriptedUpstream(serve(stored)))
        extra: dict[str, Value] = {
            "upstream": {"b": {"endpoints": [backup.url]}},
            "route": [
                {"name": "f", "upstream": "u", "fallback": {"on": ["500"], "upstream": "b"}},
                {"name": "c", "upstream": "b", "match": {"path": "/cached"}, "cache": {}},
            ],
        }
        traced = stack.enter_context(tracing(collector, Settings(extra=extra)))
        traced.handler = fails
        assert traced.ask().body == b"ok"
        server, failed, good = sorted(collector.wait(3), key=lambda one: one.raw.kind != SERVER)
        assert server.attributes["edgeq.fallback"]
        assert server.attributes["edgeq.reason"] == "upstream_failed"
        assert server.attributes["http.response.status_code"] == 200
        assert (failed.attributes["http.response.status_code"], failed.attributes["edgeq.upstream"]) == (500, "u")
        assert (good.attributes["http.response.status_code"], good.attributes["edgeq.upstream"]) == (200, "b")
        assert not good.is_error
        collector.clear()
        for _ in range(2):
            assert traced.ask(path="/cached").body == b"ok"
        found = sorted(collector.wait(3), key=lambda one: int(one.raw.start_time_unix_nano))  # batches may overtake
        kinds = [(one.raw.kind, one.attributes.get("edgeq.cache")) for one in found]
        assert kinds == [(SERVER, "miss"), (CLIENT, None), (SERVER, "hit")]


def test_nothing_without_a_ratio() -> None:
    """Of what begins here nothing is sampled, and upstreams are told so; a trusted caller's wish is still obeyed."""
    with collecting() as collector, tracing(collector, Settings(), ratio=0) as traced:
        for _ in range(3):
            traced.ask()
            assert upstream_context(traced)[2] == "0"
        traced.ask(f"traceparent: 00-{TRACE}-{PARENT}-01")
        assert {one.trace_id for one in collector.wait(2)} == {TRACE}


def test_who_is_not_trusted_chooses_nothing() -> None:
    """Neither what is recorded nor whose trace it is: a new one begins, with a link to the caller's."""
    with collecting() as collector, tracing(collector, Settings(extra={"listener": {"trusted": []}})) as traced:
        traced.ask(f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: a=1")
        trace_id, _, flag = upstream_context(traced)
        assert trace_id != TRACE
        assert flag == "1"
        assert traced.last.get(b"tracestate") is None
        server, client = sorted(collector.wait(2), key=lambda one: one.raw.kind)
        assert {one.trace_id for one in (server, client)} == {trace_id}
        (link,) = server.raw.links
        assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, PARENT)
        assert not client.raw.links


def test_upstreams_may_see_nothing_of_it() -> None:
    """forward.trace = "off" leaves the spans here, and sends no field."""
    off = Settings(extra={"forward": {"trace": "off"}})
    with collecting() as collector, tracing(collector, off) as traced:
        traced.ask(f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1")
        assert {one.trace_id for one in collector.wait(2)} == {TRACE}
        assert traced.last.get(b"traceparent") is traced.last.get(b"tracestate") is None


@pytest.mark.parametrize("how", ["dead", "broken", "slow"])
def test_a_collector_that_does_not_work(how: str) -> None:
    """Requests notice nothing, the queue is bounded and shown, what is dropped is counted and told; at the end nobody
    waits for it for long."""
    limit = 256
    with collecting() as collector:
        url = f"http://127.0.0.1:{free_port()}" if how == "dead" else collector.url
        if how == "broken":
            collector.status = 500
        elif how == "slow":
            collector.open.clear()
        with tracing(collector, Settings(), endpoint=url, queue=limit) as traced:
            with RawClient(traced.edge.address) as client:
                for _ in range(limit):
                    assert traced.ask(client=client).status == 200
            wait_for("what is dropped is shown", lambda: traced.queue("otel/spans")["refused"].get("dropped", 0))
            shown = traced.queue("otel/spans")
            assert shown["limit"] == limit
            assert shown["depth"] <= limit
            assert shown["worker"] == 0
            assert traced.edge.wait_event("trace.dropped")["spans"] > 0
            if how == "slow":
                assert not traced.edge.events("trace.failed")
            else:
                assert traced.edge.wait_event("trace.failed")["endpoint"] == url
                assert len(traced.edge.events("trace.failed")) == 1
            if how == "broken":
                collector.status = 200
                # Until one finds room in the queue, which is full.
                wait_for("it has recovered", lambda: traced.ask() and traced.edge.events("trace.recovered"))
            assert traced.edge.stop() == 0


def test_what_waits_is_sent_at_the_end() -> None:
    """A worker that ends sends what it has: one request, and the gateway stops at once after it."""
    with collecting() as collector, tracing(collector, Settings()) as traced:
        traced.ask()
        assert traced.edge.stop() == 0
        assert len(collector.accepted) == 2


def test_a_reload_turns_it_on_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """On, changed, and off again, in place; headers go to the collector and nowhere else."""
    monkeypatch.setenv("EDGEQ_TEST_TOKEN", "Bearer s3cret")
    with collecting() as collector, tracing(collector, Settings()) as traced:
        whole = dict(traced.edge.settings.extra)
        without = {name: table for name, table in whole.items() if name != "trace"}

        def reload(**trace: Value) -> None:
            # Not merged: a table that is left out is gone.
            extra = {**without, "trace": trace} if trace else without
            traced.edge.settings = dataclasses.replace(traced.edge.settings, extra=extra)
            traced.edge.reload({})

        traced.ask()
        collector.wait(2)
        reload()
        traced.ask()
        wait_for("its queue is gone", lambda: not traced.queue("otel/spans"))
        assert traced.last.get(b"traceparent") is not None
        headers: dict[str, Value] = {"authorization": "env:EDGEQ_TEST_TOKEN", "x-key": "s3cret-too"}
        reload(endpoint=collector.url, ratio=1.0, service="shop", headers=headers)
        traced.ask()
        spans = collector.wait(4)
        assert [one.resource["service.name"] for one in spans] == ["edgeq"] * 2 + ["shop"] * 2
        posted = collector.posted[-1]
        assert posted.path == "/v1/traces"
        assert posted.headers["authorization"] == "Bearer s3cret"
        assert posted.headers["x-key"] == "s3cret-too"
        shown = traced.get("/v1/config")
        assert "env:EDGEQ_TEST_TOKEN" in shown
        assert "s3cret" not in shown + traced.edge.stderr() + traced.get("/v1/queues")


def test_the_dropped_are_a_metric() -> None:
    """By worker, so that an alert can see a collector that is gone."""
    with collecting() as collector, tracing(collector, Settings()) as traced:
        traced.ask()
        collector.wait(2)
        wait_for("the queue is shown", lambda: traced.queue("otel/spans"))
        text = traced.get("/metrics")
        assert 'edgeq_spans_dropped_total{worker="0"} 0.0' in text
        assert 'edgeq_queue_limit{kind="spans",queue="otel/spans"} 2048.0' in text
        # Since when they wait nobody knows, and it is not told as 0.
        assert 'edgeq_queue_oldest_seconds{kind="limit",' in text
        assert 'edgeq_queue_oldest_seconds{kind="spans",' not in text


def test_a_wait_for_a_connection() -> None:
    """Two requests and one connection: the second one's client span says how long it stood in the pool's queue."""
    go = threading.Event()

    def hold(connection: UpstreamConnection, request: SeenRequest) -> None:
        if request.target == b"/first":
            connection.wait(go)
        connection.send(answer(b"ok"))

    settings = Settings(extra={"upstream": {"u": {"pool": {"max_connections": 1}}}})
    with collecting() as collector, tracing(collector, settings) as traced:
        traced.handler = hold
        with RawClient(traced.edge.address) as first, RawClient(traced.edge.address) as second:
            first.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for("it is at the upstream", lambda: traced.seen)
            second.send(b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
            pool = f"upstream/u#127.0.0.1:{traced.upstream.port}:pool"
            wait_for("one waits", lambda: traced.queue(pool).get("depth") == 1)
            go.set()
            first.read_answers([Asked()])
            second.read_answers([Asked()])
        spans = collector.wait(4)
        (waited,) = [one for one in spans if one.attributes.get("edgeq.reused")]
        assert waited.raw.kind == CLIENT
        event = waited.waits()["edgeq.wait.pool"]
        assert event["edgeq.resource"] == pool
        assert float(event["edgeq.wait_ms"]) > 0
