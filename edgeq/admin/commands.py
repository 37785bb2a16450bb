"""Everything that the admin socket can do: one table, from which HTTP, text commands, `edgeq show`, help, the man page
and docs/admin.md are made (`reference.py`).

A command has a level: "viewer" reads, "admin" changes something and is logged with who asked. Levels stand in the table
and not in the handlers, where one is easily forgotten (CVE-2026-6667: PgBouncer's KILL_CLIENT).

    text    WORDS [ARGUMENT ..] [json]         echo "show queues upstream/api" | socat - /run/edgeq/admin.sock
    HTTP    METHOD PATH[?ARGUMENT=..]          curl --unix-socket /run/edgeq/admin.sock http://edgeq/v1/queues
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias
from urllib.parse import parse_qsl

from edgeq.admin.render import WIDTH, Body, Column, Record, render_text
from edgeq.admin.rights import Level
from edgeq.explain import verdict
from edgeq.observe.history import ALL

Arguments: TypeAlias = Mapping[str, str]

STREAM: Final = "application/x-ndjson"
"""The media type of an answer that goes on until the client leaves."""


class Reloaded(NamedTuple):
    """What came of a reload. `generation` is what runs now; `error` is empty if all went well."""

    ok: bool
    generation: int
    error: str


class Control(Protocol):
    """What commands act on: the supervisor."""

    def show(self, subject: str) -> Sequence[Record]:
        """The records of one subject of `observe.overview`."""

    def history(self, resource: str, seconds: float) -> Sequence[Record] | str:
        """The records of `observe.history`, or what is wrong with the name."""

    def events(self, count: int) -> Sequence[Record]:
        """The last events."""

    def follow_events(self) -> AsyncIterator[Record]:
        """Events as they happen."""

    async def connections(self, count: int) -> Sequence[Record]:
        """So many connections of clients, those with a request first; who does not answer in time is named."""

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Media type and text for Prometheus; `accept` is what the client takes."""

    def version(self) -> Record:
        """Of this program."""

    def explain(self, what: str) -> Record | None:
        """Why something is short, or a request was refused or slow; None if there is no such resource or request."""

    def is_ready(self) -> bool:
        """New connections are served."""

    async def reload(self) -> Reloaded:
        """Read the configuration again; returns when all workers run it, or it was refused."""

    def drain(self) -> None:
        """Begin to stop."""


class Answer(NamedTuple):
    """An HTTP status and what is printed either way: records, a text of its own media type, or records as they come."""

    status: int
    body: Body
    text: bytes = b""
    media: str = ""
    stream: AsyncIterator[Record] | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: by place in a text command, by name in a query. All of them may be left out."""

    name: str
    help: str
    check: Callable[[str], str] | None = None
    """Says what is wrong with a value; empty if nothing is."""


Run: TypeAlias = Callable[[Control, Arguments, str], Awaitable[Answer]]
"""Control, arguments, and what the client accepts ("" for a text command)."""


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table."""

    words: str
    method: Literal["GET", "POST"]
    path: str
    level: Level
    help: str
    run: Run
    arguments: tuple[Argument, ...] = ()
    columns: tuple[Column, ...] = ()
    """For people; empty: all keys."""
    example: str = ""
    """As it is typed; empty: the words."""
    render: Callable[[Record], str] | None = None
    """For people, if not as a table."""

    def text(self, body: Body, width: int = WIDTH) -> str:
        """An answer for people; `width` 0: as wide as it gets."""
        if self.render is not None and isinstance(body, Mapping):
            return self.render(body)
        return render_text(body, self.columns, width)

    @property
    def usage(self) -> str:
        """The words with their arguments."""
        return " ".join([self.words, *(f"[{one.name.upper()}]" for one in self.arguments)])

    @property
    def http(self) -> str:
        """Method and path with the arguments."""
        query = "&".join(f"{one.name}={one.name.upper()}" for one in self.arguments)
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")


class Found(NamedTuple):
    """A command with its arguments, and whether a text command wants JSON."""

    command: Command
    arguments: Arguments
    json: bool = False


def _subject(name: str, keys: tuple[str, ...] = ()) -> Run:
    """The handler of a subject; `keys` are those in which its filter looks."""

    async def run(control: Control, arguments: Arguments, _accept: str) -> Answer:
        records = control.show(name)
        text = arguments.get("match", "")
        if text:
            records = [one for one in records if any(text in str(one.get(key, "")) for key in keys)]
        return Answer(200, records)

    return run


def history_of(arguments: Arguments) -> tuple[str, float]:
    """The name and the seconds that are asked for."""
    resource = arguments.get("resource", ALL)
    return resource, float(arguments.get("seconds", "10" if resource == ALL else "60"))


async def _history(control: Control, arguments: Arguments, _accept: str) -> Answer:
    found = control.history(*history_of(arguments))
    return Answer(404, {"ok": False, "error": found}) if isinstance(found, str) else Answer(200, found)


async def _events(control: Control, arguments: Arguments, _accept: str) -> Answer:
    return Answer(200, control.events(int(arguments.get("count", "50"))))


async def _connections(control: Control, arguments: Arguments, _accept: str) -> Answer:
    return Answer(200, await control.connections(int(arguments.get("count", "50"))))


async def _follow_events(control: Control, _arguments: Arguments, _accept: str) -> Answer:
    return Answer(200, (), media=STREAM, stream=control.follow_events())


async def _metrics(control: Control, _arguments: Arguments, accept: str) -> Answer:
    media, text = control.metrics(accept)
    return Answer(200, (), text, media)


async def _explain(control: Control, arguments: Arguments, _accept: str) -> Answer:
    what = arguments.get("what", "")
    found = control.explain(what)
    if found is None:
        return Answer(404, {"ok": False, "error": f"no resource and no remembered request is called {what[:200]!r}"})
    return Answer(200, found)


async def _version(control: Control, _arguments: Arguments, _accept: str) -> Answer:
    return Answer(200, control.version())


async def _reload(control: Control, _arguments: Arguments, _accept: str) -> Answer:
    result = await control.reload()
    return Answer(200 if result.ok else 422, result._asdict())


async def _drain(control: Control, _arguments: Arguments, _accept: str) -> Answer:
    control.drain()
    return Answer(202, {"ok": True, "draining": True})


async def _live(_control: Control, _arguments: Arguments, _accept: str) -> Answer:
    return Answer(200, {"ok": True})


async def _ready(control: Control, _arguments: Arguments, _accept: str) -> Answer:
    ready = control.is_ready()
    return Answer(200 if ready else 503, {"ok": ready})


async def _help(_control: Control, _arguments: Arguments, _accept: str) -> Answer:
    rows = [{"command": one.usage, "http": one.http, "level": one.level, "help": one.help} for one in COMMANDS]
    return Answer(200, rows)


def _count(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and 0 < int(text) <= 1000 else "a number from 1 to 1000"


def _seconds(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and 0 < int(text) <= 3600 else "a number from 1 to 3600"


def _match(what: str) -> tuple[Argument, ...]:
    return (Argument("match", f"only those that have this text in their {what}"),)


_N: Final = "count"
COMMANDS: Final = (
    Command(
        "show queues",
        "GET",
        "/v1/queues",
        "viewer",
        "every place where something can wait: accept queues of the kernel, queues before limits, pools, connections "
        "being opened, tenants, logs, spans",
        _subject("queues", ("queue", "kind")),
        _match("name or kind"),
        (
            Column("queue", gives_way=True),
            Column("worker", "w", _N),
            Column("depth", "", _N),
            Column("limit", "", _N),
            Column("oldest_ms", "oldest", "ms"),
            Column("wait_ms.p99", "p99", "ms"),
            Column("arrival_per_s", "in/s", "rate"),
            Column("drain_per_s", "out/s", "rate"),
            Column("refused_per_s", "ref/s", "rate"),
            Column("high_water", "high", _N),
        ),
        "show queues upstream/api",
    ),
    Command(
        "show upstreams",
        "GET",
        "/v1/upstreams",
        "viewer",
        "upstreams with their limit in force, breaker and times of service",
        _subject("upstreams", ("upstream",)),
        _match("name"),
        (
            Column("upstream", gives_way=True),
            Column("in_flight", "busy", _N),
            Column("limit", "", _N),
            Column("limit_source", "by"),
            Column("queued", "", _N),
            Column("in_use", "use", _N),
            Column("endpoints", "of", _N),
            Column("breaker"),
            Column("service_ms.p50", "p50", "ms"),
            Column("service_ms.p99", "p99", "ms"),
            Column("answers_per_s", "out/s", "rate"),
            Column("refused_per_s", "ref/s", "rate"),
        ),
    ),
    Command(
        "show endpoints",
        "GET",
        "/v1/endpoints",
        "viewer",
        "addresses of upstreams with their connections, what their answers cost, and which are left out",
        _subject("endpoints", ("upstream", "endpoint", "state")),
        _match("upstream, address or state"),
        (
            Column("upstream", gives_way=True),
            Column("endpoint", gives_way=True),
            Column("state"),
            Column("active", "act", _N),
            Column("idle", "", _N),
            Column("connecting", "open", _N),
            Column("waiting", "wait", _N),
            Column("oldest_ms", "oldest", "ms"),
            Column("cost_ms", "cost", "ms"),
            Column("answered", "good", _N),
            Column("failed", "bad", _N),
        ),
        "show endpoints ejected",
    ),
    Command(
        "show routes",
        "GET",
        "/v1/routes",
        "viewer",
        "routes with their limits",
        _subject("routes", ("route", "host", "path", "upstream")),
        _match("name, host, path or upstream"),
        (
            Column("route", gives_way=True),
            Column("host", gives_way=True),
            Column("path", gives_way=True),
            Column("upstream", gives_way=True),
            Column("in_flight", "busy", _N),
            Column("limit", "", _N),
            Column("queued", "", _N),
            Column("refused_per_s", "ref/s", "rate"),
        ),
    ),
    Command(
        "show tenants",
        "GET",
        "/v1/tenants",
        "viewer",
        "the 64 tenants that have the most requests running or waiting, where tenants have a limit",
        _subject("tenants", ("tenant",)),
        _match("name"),
        (
            Column("tenant", gives_way=True),
            Column("in_flight", "busy", _N),
            Column("limit", "", _N),
            Column("queued", "", _N),
            Column("oldest_ms", "oldest", "ms"),
            Column("refused", gives_way=True),
        ),
    ),
    Command(
        "show limits",
        "GET",
        "/v1/limits",
        "viewer",
        "every limit with the value in force, and where it comes from: file, default, learned, or the kernel",
        _subject("limits", ("limit", "source")),
        _match("key or source"),
        (Column("limit", gives_way=True), Column("value"), Column("source"), Column("configured", gives_way=True)),
        "show limits learned",
    ),
    Command(
        "show workers",
        "GET",
        "/v1/workers",
        "viewer",
        "worker processes with their state, load and memory",
        _subject("workers"),
        (),
        (
            Column("slot", "", _N),
            Column("pid", "", _N),
            Column("state"),
            Column("generation", "gen", _N),
            Column("connections", "conn", _N),
            Column("in_flight", "busy", _N),
            Column("requests", "", _N),
            Column("requests_per_s", "req/s", "rate"),
            Column("lag_us", "lag", "us"),
            Column("max_lag_us", "worst", "us"),
            Column("beat_age_ms", "beat", "ms"),
            Column("memory_bytes", "mem", "bytes"),
        ),
    ),
    Command(
        "show connections",
        "GET",
        "/v1/connections",
        "viewer",
        "connections of clients, those with the longest request first: what each does or waits for, bytes on the wire, "
        "request and endpoint; the workers are asked, and one that does not answer within a second is named",
        _connections,
        (Argument("count", "how many, 1000 at most (50)", _count),),
        (
            Column("worker", "w", _N),
            Column("client", gives_way=True),
            Column("state"),
            Column("request_ms", "for", "ms"),
            Column("age_ms", "age", "ms"),
            Column("requests", "req", _N),
            Column("received_bytes", "in", "bytes"),
            Column("sent_bytes", "out", "bytes"),
            Column("resource", gives_way=True),
            Column("path", gives_way=True),
        ),
        "show connections 10",
    ),
    Command(
        "show reasons",
        "GET",
        "/v1/reasons",
        "viewer",
        "refusals and failures by reason and resource, of all workers since the start (docs/reasons.md)",
        _subject("reasons", ("reason", "resource")),
        _match("reason or resource"),
        (
            Column("reason", gives_way=True),
            Column("resource", gives_way=True),
            Column("status", "", _N),
            Column("count", "", _N),
            Column("per_s", "/s", "rate"),
        ),
        "show reasons queue",
    ),
    Command(
        "show config",
        "GET",
        "/v1/config",
        "viewer",
        "the configuration that runs, each value with whether it is the default; secrets are masked",
        _subject("config", ("key",)),
        _match("key"),
        (Column("key", gives_way=True), Column("value", gives_way=True), Column("default")),
        "show config upstream.api",
    ),
    Command(
        "show history",
        "GET",
        "/v1/history",
        "viewer",
        "what a queue and its limit, or a worker, were in the last minutes: one row a second with the highest depth, "
        "busy, age and lag of that second, and what its rates and times were; of all of them, one row each",
        _history,
        (
            Argument("resource", "an upstream, a route with a limit, or a worker, as upstream/api or worker/0 (all)"),
            Argument("seconds", "how far back, 3600 at most (60; of all of them 10)", _seconds),
        ),
        (
            Column("at", "UTC", "clock"),
            Column("resource", gives_way=True),
            Column("depth", "", _N),
            Column("limit", "", _N),
            Column("in_flight", "busy", _N),
            Column("arrivals_per_s", "in/s", "rate"),
            Column("departures_per_s", "out/s", "rate"),
            Column("refused_per_s", "ref/s", "rate"),
            Column("oldest_ms", "oldest", "ms"),
            Column("service_ms", "took", "ms"),
            Column("lag_ms", "lag", "ms"),
        ),
        "show history upstream/api 120",
    ),
    Command(
        "show events",
        "GET",
        "/v1/events",
        "viewer",
        "the last events of all processes",
        _events,
        (Argument("count", "how many, 1000 at most (50)", _count),),
        (Column("timestamp"), Column("level"), Column("event", gives_way=True), Column("resource", gives_way=True)),
        "show events 100",
    ),
    Command(
        "follow events",
        "GET",
        "/v1/events/follow",
        "viewer",
        "events as they happen, one JSON object a line, until you leave",
        _follow_events,
    ),
    Command(
        "show metrics",
        "GET",
        "/metrics",
        "viewer",
        "all numbers as text for Prometheus, or OpenMetrics when Accept asks for it",
        _metrics,
    ),
    Command(
        "explain",
        "GET",
        "/v1/explain",
        "viewer",
        "the one thing that is short now: why, since when, the evidence, and what to do next (docs/explain.md)",
        _explain,
        (Argument("what", "a resource (upstream/api, route/checkout, listener/:8080, worker/0) or a request's id"),),
        (),
        "explain upstream/api",
        verdict.render,
    ),
    Command("show version", "GET", "/v1/version", "viewer", "version of the running program", _version),
    Command("reload", "POST", "/v1/reload", "admin", "read the configuration again and apply the difference", _reload),
    Command("drain", "POST", "/v1/drain", "admin", "finish what runs, then stop", _drain),
    Command("live", "GET", "/livez", "viewer", "is the supervisor alive", _live),
    Command(
        "ready", "GET", "/readyz", "viewer", "are new connections served (503 while starting and draining)", _ready
    ),
    Command(
        "help",
        "GET",
        "/v1/commands",
        "viewer",
        "this table",
        _help,
        (),
        (Column("command"), Column("level"), Column("help", gives_way=True)),
    ),
)


def find_text(line: str) -> Found | str:
    """The command of a line with its arguments, or what is wrong with it."""
    words = line.split()
    as_json = len(words) > 1 and words[-1].lower() == "json"
    if as_json:
        words.pop()
    for size in range(min(len(words), 3), 0, -1):
        name = " ".join(words[:size]).lower()
        for command in COMMANDS:
            if command.words == name:
                return _with_values(command, words[size:], as_json)
    said = " ".join(words).lower()
    near = difflib.get_close_matches(said, [command.words for command in COMMANDS])
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "try 'help'"
    return f"unknown command {said[:100]!r}; {advice}"


def _with_values(command: Command, values: Sequence[str], as_json: bool) -> Found | str:
    if len(values) > len(command.arguments):
        return f"too many words: {command.usage}"
    arguments = {one.name: value for one, value in zip(command.arguments, values, strict=False)}
    wrong = problem(command, arguments)
    return wrong or Found(command, arguments, as_json)


def find_http(method: str, target: str) -> Found | Answer:
    """The command of a request with its arguments, or the refusal."""
    path, _, query = target.partition("?")
    at_path = [command for command in COMMANDS if command.path == path]
    for command in at_path:
        if command.method == method:
            arguments = dict(parse_qsl(query, keep_blank_values=True))
            wrong = problem(command, arguments)
            return Answer(400, {"ok": False, "error": wrong}) if wrong else Found(command, arguments)
    if at_path:
        return Answer(405, {"ok": False, "error": f"{path} takes {at_path[0].method}"})
    return Answer(404, {"ok": False, "error": "nothing here; GET /v1/commands lists all"})


def problem(command: Command, arguments: Arguments) -> str:
    """What is wrong with the values of arguments, by name; empty if nothing is."""
    known = {one.name: one for one in command.arguments}
    for name, value in arguments.items():
        if name not in known:
            return f"unknown argument {name[:100]!r}: {command.http}"
        check = known[name].check
        if check is not None and (wrong := check(value)):
            return f"{name}: expected {wrong}"
    return ""
