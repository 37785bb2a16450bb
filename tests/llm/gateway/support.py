"""One gateway of two workers before every kind of model, and clients that look at it from outside.

Who is asked: `demo` is the demo provider, told by a model's name how to behave; `scripted` is a provider that does what
a test says, byte by byte; at `dead` nobody listens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from edgeq.cli import admin_client_io
from tests.support import demo_llm, gateway, kernel
from tests.support.demo_llm import Provider
from tests.support.gateway import Gateway, free_port
from tests.support.raw_client import Answer, Asked, RawClient
from tests.support.scripted_upstream import Handler, ScriptedUpstream, SeenRequest, UpstreamConnection, serve

TIMEOUT_S: Final = 30.0
"""For what must come, on a machine of any speed."""
CHAT: Final = "/v1/chat/completions"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
DEMO: Final = {"oa": ("openai", "/v1"), "an": ("anthropic", "/v1"), "ge": ("gemini", "/v1beta")}
"""Names of the demo provider by dialect."""
MOVES: Final = {
    "429": "error=429,retry_after=60",
    "500": "error=500",
    "503": "error=503",
    "529": "error=529",
    "404": "error=404",
    "401": "error=401",
    "403": "error=403",
    "402": "error=402",
    "quota": "error=quota",
    "refused": "x",
    "reset": "reset=0",
    "cut-head": "cut=0",
    "late": "latency=25s",
    "silent": "early,latency=25s",
    "hangs": "hang=1,tokens=8",
    "failed": "fail=0",
    "failed-later": "fail=1",
    "cut": "cut=1,tokens=8",
    "html": "x",
    "open": "x",
}
"""What a provider does, and another target is asked: as a model's name tells the demo provider, or x."""
TAKES_TIME: Final = ("late", "silent", "hangs", "hang")
"""Of what a provider does: an end of it comes by a time-out only. Who waits for nothing else is given all the time."""
HEDGES: Final = {
    "500": "error=500",
    "429": "error=429",
    "cut": "cut=0",
    "reset": "reset=0",
    "cut-later": "cut=1,tokens=5",
}
"""What becomes of second targets."""


def request(
    body: object,
    path: str = CHAT,
    *,
    fields: Mapping[str, str] | None = None,
    version: str = "1.1",
    method: str = "POST",
) -> bytes:
    """A whole request; `body` as JSON, bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"host": "gateway.test", "content-type": "application/json", "content-length": str(len(data))}
    lines |= fields or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + data


def ask_for(model: str, stream: bool = False, text: str = "hello there", **more: object) -> dict[str, Any]:
    """The body of a request that is the same in the dialects of chat and messages."""
    said = {"model": model, "stream": stream, "max_tokens": 200, "messages": [{"role": "user", "content": text}]}
    return said | more


def events(body: bytes) -> list[tuple[str, Any]]:
    """Name ("" without one) and value of each event of a stream; "[DONE]" is a text, comments are left out."""
    found = []
    for block in body.replace(b"\r\n", b"\n").decode().split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            parts = {line[0]: line[1] for line in lines}
            value = parts["data"]
            found.append((parts.get("event", ""), value if value == "[DONE]" else json.loads(value)))
    return found


@dataclasses.dataclass(slots=True)
class Stand:
    """Everything that runs."""

    gateway: Gateway
    demo: Provider
    scripted: ScriptedUpstream
    tables: dict[str, Any]
    admin_socket: str
    clients: list[RawClient] = dataclasses.field(default_factory=list)

    opened: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Lets a script of the provider go on."""

    def close_clients(self) -> None:
        """Those that a test has left open."""
        for client in self.clients:
            client.close()
        self.clients.clear()

    @property
    def address(self) -> tuple[str, int]:
        return self.gateway.address

    def play(self, handler: Handler) -> None:
        """The scripted provider answers so, on new connections: those that were kept have their own script."""
        self.scripted.drop_idle()
        self.scripted.script = serve(handler)

    def client(self, receive_buffer_bytes: int = 0) -> RawClient:
        """A connection; it is closed with the test at last."""
        made = RawClient(self.address, TIMEOUT_S, receive_buffer_bytes)
        self.clients.append(made)
        return made

    def clients_of_one_worker(self, count: int) -> list[RawClient]:
        """So many connections that the same worker serves: order between workers depends on the machine's speed."""
        made = {"{}:{}".format(*one.socket.getsockname()): one for one in (self.client() for _ in range(4 * count))}
        worker_of: dict[str, int] = {}

        def are_all_seen() -> bool:
            seen = self.show("connections?count=1000")
            worker_of.update({one["client"]: one["worker"] for one in seen if one["client"] in made})
            return len(worker_of) == len(made)

        wait_for(are_all_seen, lambda: f"{len(worker_of)} of {len(made)} connections are there")
        busiest = max(set(worker_of.values()), key=list(worker_of.values()).count)
        return [made[client] for client, worker in worker_of.items() if worker == busiest][:count]

    def ask(self, body: object, path: str = CHAT, **how: Any) -> Answer:
        """One answer, by a connection of its own."""
        with self.client() as client:
            method = how.get("method", "POST")
            return client.ask(request(body, path, **how), method.encode())

    def ask_all(self, bodies: Sequence[tuple[str, object]]) -> list[Answer]:
        """One answer to each path and body, asked at the same time."""
        clients = []
        for path, body in bodies:
            client = self.client()
            client.send(request(body, path))
            clients.append(client)
        found = []
        for client in clients:
            answers = client.read_answers([Asked(b"POST")])
            assert answers, bytes(client.received)
            found += answers
            client.close()
        return found

    def show(self, subject: str) -> list[dict[str, Any]]:
        """What the admin socket tells."""
        status, _, text = admin_client_io.get(self.admin_socket, f"/v1/{subject}", TIMEOUT_S)
        assert status == 200, text
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def admin(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        """Change something by the admin socket."""
        return admin_client_io.ask(self.admin_socket, method, target, TIMEOUT_S)

    def counts(self, model: str, key: str = "") -> dict[str, int]:
        """What the demo provider has counted for a model, as it calls it; of all keys together, or of one."""
        total: dict[str, int] = dict.fromkeys(("requests", "cancelled", "open"), 0)
        for name, counts in self.demo.stats().items():
            who, _, what = name.partition(" ")
            if what == model and key in ("", who):
                for each, count in counts.items():
                    total[each] = total.get(each, 0) + count
        return total

    def called(self, model: str, target: int = 0) -> str:
        """How the demo provider calls a model's target."""
        name: str = self.tables["model"][model]["targets"][target]["model"]
        return name.removeprefix("models/")

    def wait_counts(self, model: str, key: str = "", **wanted: int) -> None:
        """Wait until the demo provider has counted so."""
        wait_for(
            lambda: all(self.counts(model, key)[name] == count for name, count in wanted.items()),
            lambda: f"wanted {wanted} of {model}: {self.demo.stats()}",
        )

    def is_idle(self) -> bool:
        """Is nobody's request left anywhere?"""
        return not self.leftover()

    def leftover(self) -> list[str]:
        """What is held somewhere, in words."""
        found = [f"worker {one['slot']}: {one['in_flight']}" for one in self.show("workers") if one["in_flight"]]
        for one in self.show("upstreams"):
            keys: tuple[str, ...] = ("in_flight", "queued", "retrying")
            found += [f"{one['upstream']}: {one[key]} {key}" for key in keys if one[key]]
        for one in self.show("endpoints"):
            keys = ("active", "connecting", "waiting")
            found += [f"{one['upstream']}#{one['endpoint']}: {one[key]} {key}" for key in keys if one[key]]
        targets = self.show("targets")
        if not targets:
            found.append("what the workers hold is not told yet")
        for one in targets:
            keys = ("in_flight", "queued")
            found += [f"target {one['target']}: {one[key]} {key}" for key in keys if one[key]]
        for one in self.show("meters"):
            found += [f"{one['meter']} {one['name']}: {one['in_flight']} in_flight"] if one["in_flight"] else []
        found += [f"queue {one['queue']}: {one['depth']}" for one in self.show("queues") if one["depth"]]
        found += [f"demo {name}: {one['open']} open" for name, one in self.demo.stats().items() if one["open"]]
        return found

    def wait_idle(self) -> None:
        """Wait until nothing of any request is left."""
        wait_for(self.is_idle, lambda: f"left behind: {self.leftover()}")

    def active(self, upstream: str) -> int:
        """Connections on which an upstream answers, as the admin socket tells it."""
        return sum(one["active"] for one in self.show("endpoints") if one["upstream"] == upstream)

    def wait_stuck(self, at_least: int = 1) -> int:
        """Wait until the scripted provider has got rid of so much, and of nothing more for a while. Returns: bytes."""
        seen = -1
        while seen < at_least or seen != self.scripted.sent_bytes:
            seen = self.scripted.sent_bytes
            kernel.select_pause(0.25)
        return seen

    def wait_log(self, what: Callable[[dict[str, Any]], bool], since: int = 0, count: int = 1) -> list[dict[str, Any]]:
        """Lines of the access log, after so many, for which `what` holds, once there are `count` of them."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [one for line in self.gateway.log_lines()[since:] if what(one := json.loads(line))]
            return len(found) >= count

        wait_for(look, lambda: f"no such lines: {self.gateway.log_lines()[since:]}")
        return found

    def line_of(self, answer: Answer) -> dict[str, Any]:
        """What the access log says of an answer."""
        request_id = (answer.get(b"x-request-id") or b"").decode()
        (line,) = self.wait_log(lambda one: one.get("edgeq.request_id") == request_id)
        return line


def sse(*events: object) -> bytes:
    """Events as OpenAI writes them."""
    texts = ("[DONE]" if one == "[DONE]" else json.dumps(one) for one in events)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def said(text: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk of a chat completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": [choice]}


STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BEGIN_ANTHROPIC: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"a"}}\n\n'
)
"""With one word of the text."""
FLOOD_BYTES: Final = 64 * 1024 * 1024


def framed(data: bytes) -> bytes:
    """One chunk of an answer's body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def flood(connection: UpstreamConnection, request: SeenRequest) -> None:
    """Far more than anybody's buffers hold, and no end."""
    connection.send(STREAM_HEAD)
    piece = framed(sse(said("x" * 1000)) * 64)
    for _ in range(FLOOD_BYTES // len(piece)):
        connection.send(piece)
    connection.stall()


def wait_for(fact: Callable[[], bool], tell: Callable[[], str]) -> None:
    """Wait until something is so, as seen from outside: 30 s at most."""
    give_up = time.monotonic() + TIMEOUT_S
    while not fact():
        assert time.monotonic() < give_up, tell()
        kernel.select_pause(0.02)


def explained(stand: Stand, answer: Answer) -> dict[str, Any]:
    """What `edgeq explain` says of a request, once its worker has written it down."""
    what = f"/v1/explain?what={(answer.get(b'x-request-id') or b'').decode()}"
    wait_for(lambda: stand.admin("GET", what)[0] == 200, lambda: str(stand.admin("GET", what)))
    return stand.admin("GET", what)[1]


def tables(demo_port: int, scripted_port: int, dead_port: int) -> dict[str, Any]:
    """Providers, models and routes. What ends with a dialect's short name (`plain-oa`) is at the demo provider."""
    patient = {"breaker": {"min_requests": 1_000_000}, "rest_after": 0, "limit": 1000}
    providers: dict[str, Any] = {}
    models: dict[str, Any] = {}

    def provider(name: str, url: str, dialect: str = "openai", **more: object) -> None:
        providers[name] = {"url": url, "dialect": dialect, "keys": [f"sk-{name}"], **patient, **more}

    def model(name: str, *targets: str, **more: object) -> None:
        """Targets are PROVIDER BEHAVIOUR."""
        made = []
        for target in targets:
            who, _, behaviour = target.partition(" ")
            prefix = "models/mock/" if providers[who]["dialect"] == "gemini" else "mock/"
            made.append({"provider": who, "model": f"{prefix}{behaviour}"})
        models[name] = {"targets": made, **more}

    demo = f"http://127.0.0.1:{demo_port}"
    for name, (dialect, path) in DEMO.items():
        provider(name, demo + path, dialect)
        provider(f"bad-{name}", demo + path, dialect)  # a refusal may pause a whole key
        model(f"plain-{name}", f"{name} tokens=5,tag=plain")
        model(f"slow-{name}", f"{name} latency=25s,tokens=5,tag=slow")
        model(f"early-{name}", f"{name} early,latency=25s,tokens=5,tag=early")
        model(f"long-{name}", f"{name} rate=20,tokens=400,tag=long")
        model(f"calls-{name}", f"{name} think=3,tools=1,tag=calls")
    models["claude"] = {"targets": [{"provider": "an", "model": "claude-sonnet-4-5/say=show"}]}
    provider("rests", f"{demo}/v1")
    model("rests", "rests error=429,retry_after=2h,tag=rests")
    for error in ("429", "401"):
        provider(f"woken-{error}", f"{demo}/v1")
        model(f"woken-{error}", f"woken-{error} error={error},retry_after=2h,tag=woken")
    for seconds in (40, 50, 55):
        provider(f"rests-{seconds}", f"{demo}/v1")
    model("rest-both", *(f"rests-{seconds} error=429,retry_after={seconds}s,tag=both" for seconds in (50, 40)))
    for name, first in (("broke-first", 429), ("broke-last", 402)):
        for own in (402, 429):
            provider(f"{name}-{own}", f"{demo}/v1")
        asked = (402, 429) if first == 429 else (429, 402)
        model(name, *(f"{name}-{one} error={one},tag=broke" + ",retry_after=40s" * (one == 429) for one in asked))
    provider("broke", f"{demo}/v1", retry_budget={"share": 0, "reserve": 0})
    model("broke-well", "broke error=402,tag=broke", "an tokens=5,tag=broke")
    provider("locked", f"{demo}/v1", retry_budget={"share": 0, "reserve": 0})
    model("locked-well", "locked error=401", "an tokens=5,tag=locked")
    for refusal in (401, 402):
        provider(f"no-{refusal}", f"{demo}/v1")
        model(f"no-{refusal}-deaf", f"no-{refusal} error={refusal}", "an tokens=5,tag=deaf")
    model("rest-after", *(f"rests-{seconds} error=429,retry_after={seconds}s,tag=both" for seconds in (40, 55)))
    provider("dead", f"http://127.0.0.1:{dead_port}/v1")
    provider("dead-an", f"http://127.0.0.1:{dead_port}/v1", "anthropic")
    model("dead-an", "dead-an x")
    provider("untold", f"http://127.0.0.1:{dead_port}/v1")
    model("untold", "untold x")
    provider("scripted", f"http://127.0.0.1:{scripted_port}/v1")
    provider("scripted-an", f"http://127.0.0.1:{scripted_port}/v1", "anthropic")
    model("scripted", "scripted x")
    provider("azure", f"http://127.0.0.1:{scripted_port}/openai/deployments/small?api-version=2024-10-21")
    model("azure", "azure x")
    provider("mistral", f"http://127.0.0.1:{scripted_port}/api.mistral.ai:443/v1")
    model("mistral", "mistral x")
    model("scripted-an", "scripted-an x")
    model("shared-oa", "oa latency=1500ms,tokens=20,tag=shared")
    # Places where a request waits.
    provider("one", f"{demo}/v1", limit=1, queue={"max": 64, "timeout": "60s", "discipline": "fifo"})
    model("one", "one latency=55s,tag=one")
    provider("single", f"{demo}/v1", pool={"max_connections": 2, "queue_timeout": "30s"})
    model("single", "single latency=55s,tag=single")
    provider("alone", f"{demo}/v1", limits={"concurrent": 1})
    model("alone", "alone latency=55s,tag=alone")
    provider("tight", f"{demo}/v1", limits={"tokens_per_minute": 1500})
    model("tight", "tight latency=55s,tag=tight")
    model("counted", "oa tokens=5,tag=counted", limits={"concurrent": 1})
    model("hedged", "oa latency=25s,tag=first", "an latency=25s,tag=second", hedge="100ms")
    # Failures: one provider for each that is not to be met twice, as a refusal may pause its key.
    for failure, behaviour in MOVES.items():
        for kind in ("chat-whole", "chat-stream", "messages-whole", "messages-stream"):
            who = f"moves-{failure}-{kind}"
            # Streams have llm.first_token.
            times = {"first_byte": "500ms", "body": "500ms"} if kind.endswith("whole") else {}
            if failure == "refused":
                provider(who, providers["dead"]["url"])
            elif failure == "html":
                provider(who, providers["scripted"]["url"])
            elif failure == "open":
                provider(who, providers["dead"]["url"], breaker={"min_requests": 1, "open": "60s"})
            else:
                provider(who, f"{demo}/v1", timeouts=times)
            model(who, f"{who} {behaviour},tag=moves", "an tokens=5,tag=moved")
    for status in ("400", "413", "422"):
        for who in ("oa", "an"):
            model(f"stays-{status}-{who}", f"bad-{who} error={status}", "an tokens=5,tag=plain")
    for status in ("401", "403", "402", "quota"):
        for name, (dialect, path) in DEMO.items():
            provider(f"only-{status}-{name}", demo + path, dialect)
            model(f"only-{status}-{name}", f"only-{status}-{name} error={status}")
    for kind, name in product(("fail", "cut", "reset", "hang"), DEMO):
        # An error that comes with the first event, in one piece, is a status: not so soon.
        rate = 10 if kind == "fail" else 40
        model(f"broken-{kind}-{name}", f"{name} {kind}=6,tokens=50,rate={rate},tag=broken")
    model("all-fail", "bad-oa error=500,tag=all", "bad-an error=529,tag=all")
    model("fails-deaf", "bad-oa error=500,tag=deaf", "an tokens=5,tag=deaf")
    model("fails-deaf-well", "bad-oa error=500,tag=deaf", "an tokens=5,tag=deaf", "oa tokens=5,tag=deaf")
    model("counts", "bad-an error=500,tag=counts", "ge tokens=5,tag=counts")
    provider("counts-not", f"{demo}/v1", "anthropic")
    model("counts-not", "counts-not error=401", "oa tokens=5,tag=counts")
    model("fails-dropped", "bad-an error=500,tag=dropped", "oa tokens=5,tag=dropped")
    model("hedge-dropped-wins", "an latency=25s,tag=dropped", "oa tokens=5,tag=dropped", hedge="100ms")
    provider("narrow", f"{demo}/v1", retry_budget={"share": 0, "reserve": 0})
    provider("narrow-keys", f"{demo}/v1", keys=["sk-a", "sk-b", "sk-c"])
    for who in ("oa", "an", "ge", "narrow", "narrow-keys"):
        targets = (f"{who} window=50,tag=longer", "an window=500,tokens=5,tag=longer")
        model(f"longer-{who}", *targets, too_long="next")
        model(f"not-longer-{who}", *targets)
    provider("stingy", f"{demo}/v1", retry_budget={"share": 0, "reserve": 0})
    model("stingy", "stingy error=500,tag=stingy", "an tokens=5,tag=stingy")
    model("four", *(f"bad-oa error=500,tag=four{number}" for number in range(4)))
    model("late", "oa latency=25s,tag=late", "an tokens=5,tag=moved")
    model("late-all", "oa latency=25s,tag=late", "an latency=25s,tag=late")
    model("late-400", "oa latency=25s,tag=late", "bad-an error=400,tag=late")
    model("pinged", "scripted x", "an tokens=5,tag=moved")
    model("pinged-an", "scripted-an x", "an tokens=5,tag=moved")
    # Choices.
    model("hedge-wins", "oa latency=25s,tag=wins", "an tokens=5,tag=wins", hedge="100ms")
    for failure in HEDGES:
        provider(f"hedge-{failure}", f"{demo}/v1")
        model(
            f"hedge-{failure}",
            "oa latency=600ms,tokens=5,tag=hedge",
            f"hedge-{failure} {HEDGES[failure]}",
            hedge="100ms",
        )
    provider("hedge-key", f"{demo}/v1")
    model("hedge-key", "oa latency=600ms,tokens=5,tag=hedge", "hedge-key error=401,tag=hedge", hedge="100ms")
    model("hedge-alone", "oa latency=400ms,cut=0,tag=left", "an latency=1s,tokens=5,tag=left", hedge="100ms")
    fails = "an latency=700ms,cut=0,tag=lost"
    model("hedge-lost", "oa latency=400ms,cut=0,tag=lost", fails, "ge tokens=5,tag=lost", hedge="100ms")
    model("hedge-scripted", "oa latency=600ms,tokens=5,tag=hedge", "scripted plain", hedge="100ms")
    model("hedge-scripted-an", "oa latency=600ms,tokens=5,tag=hedge", "scripted-an plain", hedge="100ms")
    model("hedge-ends", "oa latency=25s,tag=ends", "scripted plain", hedge="100ms")
    model("hedge-dropped", "oa latency=500ms,tokens=5,tag=hedge", "an latency=25s,tag=hedge", hedge="100ms")
    provider("leaves", f"{demo}/v1")
    model("leaves", "leaves rate=40,tokens=60,tag=leaves")
    provider("tiny", f"{demo}/v1", limits={"tokens_per_minute": 100})
    provider("roomy", f"{demo}/v1", limits={"concurrent": 1}, wait="60s")
    model("fits-later", "tiny tokens=5,tag=later", "rests-40 error=429,retry_after=40s,tag=later")
    model("fits", "tiny tokens=5,tag=fits", "roomy rate=20,tokens=40,tag=fits")
    provider("removed", providers["scripted"]["url"])
    model("removed", "removed x")
    provider("hears", f"{demo}/v1")
    model("hedge-deaf", "oa latency=25s,tag=deaf", "an tokens=5,tag=deaf", "hears tokens=5,tag=deaf", hedge="100ms")
    model("left-second", "scripted x", "an latency=25s,tag=left", hedge="100ms")
    model("left-second-soon", "scripted x", "an latency=1s,tokens=5,tag=left", hedge="100ms")
    model("left", "scripted x", "an tokens=5,tag=left", hedge="2s")
    provider("turns", f"{demo}/v1", limits={"concurrent": 1})
    model("turns", "turns rate=40,tokens=40,tag=turns")
    provider("full", f"{demo}/v1", limit=1)
    model("big", "full latency=25s,tag=big", degrade="plain-oa")
    provider("big-alone", f"{demo}/v1", limits={"concurrent": 1})
    model("big-alone", "big-alone latency=25s,tag=big-alone", degrade="plain-oa")
    provider("big-tight", f"{demo}/v1", limits={"tokens_per_minute": 1500})
    model("big-tight", "big-tight latency=25s,tag=big-tight", degrade="plain-oa")
    keys = [{"key": "sk-heavy", "name": "heavy", "weight": 3}, {"key": "sk-light", "name": "light"}]
    provider("two", f"{demo}/v1", keys=keys)
    model("keys", "two tokens=5,tag=keys")
    model("weighted", "oa tokens=5,tag=weighted1", "an tokens=5,tag=weighted2", balance="weighted")
    models["weighted"]["targets"][0]["weight"] = 3
    provider("in-turn", providers["scripted"]["url"], limits={"concurrent": 1})
    model("in-turn", "in-turn x")
    llm: dict[str, Any] = {"keepalive": "0s"}
    routes = [
        {"name": "llm", "match": {"path": "/v1/*"}, "llm": {**llm, "limits": {"concurrent": 1000}}},
        {"name": "drain", "match": {"path": "/drain/*"}, "llm": {**llm, "disconnect": "drain", "drain": "3s"}},
        {"name": "drain-long", "match": {"path": "/drain-long/*"}, "llm": {**llm, "disconnect": "drain"}},
        {"name": "beat", "match": {"path": "/beat/*"}, "llm": {"keepalive": "100ms", "first_token": "1s"}},
        {
            "name": "quick",
            "match": {"path": "/quick/*"},
            "llm": {**llm, "first_token": "1s", "between_tokens": "1s"},
        },
        {"name": "once", "match": {"path": "/once/*"}, "llm": {**llm, "attempts": 1}},
        {"name": "cached", "match": {"path": "/cached/*"}, "llm": {**llm, "cache": {}}},
        {"name": "timed", "match": {"path": "/timed/*"}, "timeout": "1s", "llm": llm},
        {"name": "strict", "match": {"path": "/strict/*"}, "llm": {**llm, "mode": "strict"}},
        {"name": "small", "match": {"path": "/small/*"}, "llm": {**llm, "body_bytes": 1000}},
    ]
    prompt = {
        "name": "sum",
        "path": "/p/sum",
        "route": "llm",
        "model": "slow-oa",
        "messages": [{"role": "user", "text": "Summarize: {{text}}"}],
        "variables": {"text": {}},
    }
    return {
        "provider": providers,
        "model": {name: {**one, "aliases": [f"alias-{name}", f"org/{name}"]} for name, one in models.items()},
        "route": routes,
        "prompt": [
            prompt,
            *(
                {**prompt, "name": f"chat-{who}", "path": f"/p/chat-{who}", "model": f"plain-{who}", "answer": "chat"}
                for who in ("oa", "an")
            ),
        ],
    }


@contextlib.contextmanager
def standing() -> Iterator[Stand]:
    """All of it."""
    with demo_llm.running() as demo, ScriptedUpstream() as scripted, tempfile.TemporaryDirectory() as name:
        config = tables(demo.port, scripted.port, free_port())
        admin = str(Path(name) / "admin.sock")
        settings = gateway.Settings(workers=2, half_close_s=0.2, extra={"server": {"admin": admin}, **config})
        with gateway.running(demo.port, settings) as found:
            yield Stand(found, demo, scripted, config, admin)
