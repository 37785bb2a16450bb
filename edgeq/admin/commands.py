"""Everything that the admin socket can do: one table, from which HTTP, text commands, `edgeq show`, help, the man page
and docs/admin.md are made (`reference.py`).

A command has a level: "viewer" reads, "admin" changes something and is logged with who asked. Levels stand in the table
and not in the handlers, where one is easily forgotten (CVE-2026-6667: PgBouncer's KILL_CLIENT).

    text    WORDS [ARGUMENT ..] [--OPTION ..] [json]   echo "show queues upstream/api" | socat - /run/edgeq/admin.sock
    HTTP    METHOD PATH[?ARGUMENT=..&OPTION=..]        curl --unix-socket /run/edgeq/admin.sock http://edgeq/v1/queues

In a text command words go together within quotes, as in a shell.
"""

from __future__ import annotations

import contextlib
import difflib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl

from edgeq.admin import accounts
from edgeq.admin.command import STREAM, Answer, Argument, Arguments, Command, Found, Run
from edgeq.admin.control import Client, Control, Wish
from edgeq.admin.render import Column, Record, render_text
from edgeq.config.change import LIVE, NAMED, TABLES, parse_value
from edgeq.config.findings import did_you_mean
from edgeq.config.lines import show_path
from edgeq.config.units import parse_duration
from edgeq.explain import verdict
from edgeq.observe.history import ALL, EVERY_S

MAX_COMMENT: Final = 200
_EVENT: Final = (Column("timestamp"), Column("level"), Column("event"), Column("more"))
MAX_NAMES: Final = 8
"""So many are named to who has named none of them."""
_MOST_EVENTS: Final = 1000
_HISTORY_ROWS: Final = 3600
"""An hour in seconds, six minutes in tenths: the supervisor makes them at one go."""


def _subject(name: str, keys: tuple[str, ...] = (), is_tagged: bool = False) -> Run:
    """The handler of a subject; `keys` are those in which its filter looks. `is_tagged`: it tells of the configuration,
    whose ETag it has."""

    async def run(control: Control, arguments: Arguments, _client: Client) -> Answer:
        records = accounts.with_owners(control.show(name), control.accounts)
        text = arguments.get("match", "")
        if text:
            texts = (text, _in_full(text))
            records = [one for one in records if any(each in str(one.get(key, "")) for key in keys for each in texts)]
        if arguments.get("diff", "false") == "true":
            records = [one for one in records if one["source"] == LIVE]
        return Answer(200, records, etag=control.etag if is_tagged else "")

    return run


def _in_full(text: str) -> str:
    """What `set` calls KIND/NAME, as the names of keys begin with it."""
    kind, _, name = text.partition("/")
    return show_path((kind, name)) if kind in NAMED and name else text


def history_of(arguments: Arguments) -> tuple[str, float, float]:
    """The name, the seconds, and those of a row: all of them where all names are asked for."""
    resource = arguments.get("resource", ALL)
    seconds = float(arguments.get("seconds", "10" if resource == ALL else "60"))
    step_s = max(float(arguments.get("step", "1")), seconds / _HISTORY_ROWS)
    return resource, seconds, seconds if resource == ALL else step_s


async def _history(control: Control, arguments: Arguments, _client: Client) -> Answer:
    found = await control.history(*history_of(arguments))
    return Answer(404, {"ok": False, "error": found}) if isinstance(found, str) else Answer(200, found)


async def _events(control: Control, arguments: Arguments, _client: Client) -> Answer:
    text = arguments.get("match", "")
    if not text or text.isdigit():
        return Answer(200, control.events(int(arguments.get("count", text or "50"))))
    last = control.events(int(arguments.get("count", str(_MOST_EVENTS))))
    return Answer(200, [one for one in last if any(text in str(value) for value in one.values())])


async def _connections(control: Control, arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, await control.connections(int(arguments.get("count", "50"))))


def _event_line(event: Record) -> str:
    """For people."""
    known = ("timestamp", "level", "event")
    more = {key: value for key, value in event.items() if key not in known}
    return render_text([{**{key: event.get(key) for key in known}, "more": more}], _EVENT, 0).partition("\n")[2]


async def _follow_events(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, (), media=STREAM, stream=control.follow_events())


async def _metrics(control: Control, _arguments: Arguments, client: Client) -> Answer:
    media, text = control.metrics(client.accept)
    return Answer(200, (), text, media)


async def _explain(control: Control, arguments: Arguments, _client: Client) -> Answer:
    what = arguments.get("what", "")
    found = control.explain(what)
    if found is None:
        return Answer(404, {"ok": False, "error": f"no resource and no remembered request is called {what[:200]!r}"})
    return Answer(200, found)


async def _version(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, control.version())


async def _reload(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    result = await control.reload()
    return Answer(200 if result.ok else 422, result._asdict())


async def _change(control: Control, wish: Wish, arguments: Arguments, client: Client) -> Answer:
    """Ask for a change, with what the options say of it."""
    wish = replace(
        wish,
        ttl_s=_ttl_s(arguments.get("ttl", "")),
        comment=arguments.get("comment", ""),
        persists=arguments.get("persist", "false") == "true",
        if_match=arguments.get("if-match", "") or client.if_match,
        uid=client.uid,
        pid=client.pid,
    )
    done = await control.change(wish)
    if done.error:
        return Answer(done.status, {"ok": False, "error": done.error, "etag": done.etag}, etag=done.etag)
    said: dict[str, Any] = {"ok": True, "generation": done.generation, "etag": done.etag}
    if done.behind:
        said["behind"] = list(done.behind)
        slots = ", ".join(map(str, done.behind))
        said["note"] = f"not confirmed by worker {slots}: it holds there once that goes on"
    if done.idle:
        said["warning"] = f"without effect as it is: {'; '.join(done.idle)}"
    return Answer(done.status, said, etag=done.etag)


async def _set(control: Control, arguments: Arguments, client: Client) -> Answer:
    resource, key, value = (arguments[one] for one in ("resource", "key", "value"))
    answer = await _change(control, Wish(resource, key, value), arguments, client)
    if key == "limit" and value == "0" and answer.status == 200 and isinstance(answer.body, dict):
        more = f"; to send nobody there: disable {resource}" if resource.startswith("provider/") else ""
        answer.body.setdefault("note", f"0 is no limit{more}")
    return answer


async def _unset(control: Control, arguments: Arguments, client: Client) -> Answer:
    return await _change(control, Wish(arguments["resource"], arguments["key"], None), arguments, client)


def _endpoint(key: str, value: str, undoes: str | None = None, state: str = "") -> Run:
    """The handler of a change of an endpoint; one that `undoes` something takes it out of a state."""

    async def run(control: Control, arguments: Arguments, client: Client) -> Answer:
        text = arguments["endpoint"]
        found = control.endpoints(text)
        if len(found) != 1:
            several = "several upstreams have it: " + ", ".join(f"{upstream}#{url}" for upstream, url in found)
            error = several if found else _no_endpoint(text, control.endpoint_names())
            return Answer(422, {"ok": False, "error": error})
        ((upstream, url),) = found
        in_vain = f"{url} of {upstream} is not {state}" if state else ""
        wish = Wish(f"upstream/{upstream}", f"endpoints.{url}.{key}", value, undoes, in_vain)
        return await _change(control, wish, arguments, client)

    return run


def _switch(is_on: bool) -> Run:
    """The handler of `enable` and `disable`: an endpoint; or a provider, one of its keys, or a model there."""
    of_endpoint = _endpoint("enabled", "true", "false", "disabled") if is_on else _endpoint("enabled", "false")

    async def run(control: Control, arguments: Arguments, client: Client) -> Answer:
        text = arguments["endpoint"]
        parts = control.parts()
        is_part = text.startswith(("provider/", "target/"))
        if text not in parts or (not is_part and control.endpoints(text)):
            if is_part:
                error = f"there is no {text[:200]}{did_you_mean(text, list(parts))}: show targets"
                return Answer(422, {"ok": False, "error": error})
            return await of_endpoint(control, arguments, client)
        provider, part = parts[text]
        key, on, off = (f"disabled.{part}", "false", "true") if part else ("enabled", "true", "false")
        wish = Wish(f"provider/{provider}", key, off)
        if is_on:
            wish = replace(wish, value=on, undoes=off, in_vain=f"{text} is not disabled")
        return await _change(control, wish, arguments, client)

    return run


def _no_endpoint(text: str, names: Sequence[str]) -> str:
    said = f"there is no endpoint {text[:200]}"
    if near := difflib.get_close_matches(text, names):
        return f"{said}; did you mean {' or '.join(near)}?"
    of_provider = (
        "disable provider/NAME takes a provider out;"
        " of several endpoints of one, set provider/NAME endpoints leaves one out"
    )
    if not names:
        return f"{said}; all upstreams are made of providers' keys, whose endpoints cannot be drained ({of_provider})"
    some = ", ".join((*names[:MAX_NAMES], *(["..."] if len(names) > MAX_NAMES else [])))
    return f"{said}; there are {some} (what a name stands for is drained as a whole; {of_provider})"


def _route(key: str, value: str, undoes: str | None = None, state: str = "") -> Run:
    """The handler of a change of a route."""

    async def run(control: Control, arguments: Arguments, client: Client) -> Answer:
        resource = "route/" + arguments["route"].removeprefix("route/")
        in_vain = f"{resource} is not {state}" if state else ""
        return await _change(control, Wish(resource, key, value, undoes, in_vain), arguments, client)

    return run


_drain_endpoint: Final = _endpoint("weight", "0")


async def _drain(control: Control, arguments: Arguments, client: Client) -> Answer:
    if arguments.get("endpoint"):
        return await _drain_endpoint(control, arguments, client)
    if arguments:  # an endpoint's name that was lost must not end it all
        return Answer(400, {"ok": False, "error": "an option without an endpoint: drain ENDPOINT"})
    control.drain()
    return Answer(202, {"ok": True, "draining": True})


async def _wake(control: Control, arguments: Arguments, _client: Client) -> Answer:
    name = arguments["name"]
    ended = control.wake(name)
    if ended is None:
        near = did_you_mean(name, list(control.wake_names()))
        error = f"no provider, no key of one and no model at one is called {name[:200]}{near}: show targets"
        return Answer(404, {"ok": False, "error": error})
    if not ended:
        return Answer(422, {"ok": False, "error": f"nothing rests at {name}: show upstreams"})
    return Answer(200, {"ok": True, "ended": ended})


async def _reset(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    control.begin_highs()
    return Answer(200, {"ok": True})


async def _live(_control: Control, _arguments: Arguments, _client: Client) -> Answer:
    return Answer(200, {"ok": True})


async def _ready(control: Control, _arguments: Arguments, _client: Client) -> Answer:
    if control.is_ready():
        return Answer(200, {"ok": True})
    return Answer(503, {"ok": False, "error": "not ready: edgeq starts or drains, or every worker hangs"})


async def _help(_control: Control, arguments: Arguments, _client: Client) -> Answer:
    rows = [
        {"words": one.words, "command": one.usage, "http": one.http, "level": one.level, "help": one.help}
        for one in COMMANDS
        if arguments.get("match", "") in one.words
    ]
    return Answer(200, rows)


def _count(text: str) -> str:
    is_right = text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_EVENTS
    return "" if is_right else f"a number from 1 to {_MOST_EVENTS}"


def _text_or_count(text: str) -> str:
    return _count(text) if text.isdigit() else ""


def _ttl_s(text: str) -> float:
    """Seconds; 0 for none. Raises ValueError."""
    return float(parse_duration(parse_value(text))) if text else 0.0


def _is_ttl(text: str) -> str:
    with contextlib.suppress(ValueError):
        if _ttl_s(text) > 0:
            return ""
    return 'a duration such as "10m", "90s" or "1h", a year at most'


def _is_comment(text: str) -> str:
    return "" if len(text) <= MAX_COMMENT and text.isprintable() else f"{MAX_COMMENT} printable characters at most"


def _is_flag(text: str) -> str:
    return "" if text in ("true", "false") else "true or false"


def _seconds(text: str) -> str:
    return "" if text.isascii() and text.isdigit() and 0 < int(text) <= 3600 else "a number from 1 to 3600"


def _step(text: str) -> str:
    is_number = text.isascii() and text.replace(".", "", 1).isdigit()
    return "" if is_number and EVERY_S <= float(text) <= 3600 else f"a number from {EVERY_S} to 3600"


def _is_etag(text: str) -> str:
    """Nothing would be no condition: of a script, a variable that is empty."""
    return "" if text.strip() else "an ETag, or *"


def _match(what: str) -> tuple[Argument, ...]:
    return (Argument("match", f"only those that have this text in their {what}"),)


_IF_MATCH: Final = Argument("if-match", "only if the configuration is still the one with this ETag, else 412", _is_etag)
_COMMENT: Final = Argument("comment", f"why, for whoever looks later; {MAX_COMMENT} characters at most", _is_comment)
_TAKE_BACK: Final = (_COMMENT, _IF_MATCH)
_CHANGE: Final = (
    Argument("ttl", "for how long; then what is kept by --persist, or in the file, holds again", _is_ttl),
    _COMMENT,
    Argument("persist", "write it to server.changes, so that it outlives a restart", _is_flag, is_flag=True),
    _IF_MATCH,
)
_RESOURCE: Final = (
    Argument(
        "resource",
        ", ".join((*(f"{one}/NAME" for one in NAMED), *TABLES)),
        required=True,
    ),
    Argument("key", "as in its table: limit, queue.max, endpoints.URL.weight", required=True),
)
_OF_ENDPOINT: Final = (
    Argument("endpoint", "URL, or host and port; UPSTREAM#URL where several have it", required=True),
)
_OF_PART: Final = (
    replace(
        _OF_ENDPOINT[0],
        help=f"{_OF_ENDPOINT[0].help}; or provider/NAME, a key of one as in `show upstreams`, a model as in"
        " `show targets`",
    ),
)
_OF_ROUTE: Final = (Argument("route", "its name", required=True),)
_N: Final = "count"
COMMANDS: Final = (
    Command(
        "show queues",
        "GET",
        "/v1/queues",
        "viewer",
        "every place where something can wait: accept queues of the kernel, queues before limits, pools, connections "
        "being opened, tenants, tokens of models, bytes of bodies for models, logs, spans",
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
        "upstreams with their limit in force (obs, what observe would set), breaker, times of service; of a provider's "
        "key what rests for how many seconds, because the provider has refused it: all, by the reason, or a model",
        _subject("upstreams", ("upstream",)),
        _match("name"),
        (
            Column("upstream", gives_way=True),
            Column("in_flight", "busy", _N),
            Column("limit", "", _N),
            Column("limit_source", "by"),
            Column("observed_limit", "obs", _N),
            Column("queued", "wait", _N),
            Column("in_use", "use", _N),
            Column("endpoints", "of", _N),
            Column("breaker"),
            Column("service_ms.p50", "p50", "ms"),
            Column("service_ms.p99", "p99", "ms"),
            Column("answers_per_s", "out/s", "rate"),
            Column("refused_per_s", "ref/s", "rate"),
            Column("rests", gives_way=True, is_rare=True),
        ),
    ),
    Command(
        "show endpoints",
        "GET",
        "/v1/endpoints",
        "viewer",
        "addresses of upstreams with their connections, what their answers cost, how many were good (counted where "
        "there are several to choose from, checks or a breaker), which are left out, and how many requests engines of "
        "models tell of, beside ours, those that wait there fourfold",
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
            Column("engine_load", "engine", "rate"),
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
        "show rates",
        "GET",
        "/v1/rates",
        "viewer",
        "each [[rate]] with what it has refused, and what it would have refused if it were enforced",
        _subject("rates", ("rate", "by")),
        _match("name, or whom it counts"),
        (
            Column("rate", gives_way=True),
            Column("by"),
            Column("limits", gives_way=True),
            Column("routes", gives_way=True),
            Column("enforce"),
            Column("refused", "", _N),
            Column("would_refuse", "would", _N),
        ),
        "show rates plan",
    ),
    Command(
        "show retries",
        "GET",
        "/v1/retries",
        "viewer",
        "requests that were sent to an upstream again, since the start, hedges among them (and how many of these "
        "answered first); those that its retry budget has denied; how many run, and were begun in the last ten seconds "
        "(10s) of those that the budget allows in that time",
        _subject("retries", ("upstream",)),
        _match("upstream"),
        (
            Column("upstream", gives_way=True),
            Column("retried", "", _N),
            Column("denied", "", _N),
            Column("hedges", "", _N),
            Column("hedges_won", "won", _N),
            Column("running", "busy", _N),
            Column("recent", "10s", _N),
            Column("allowed", "of", _N),
        ),
        "show retries api",
    ),
    Command(
        "show caches",
        "GET",
        "/v1/caches",
        "viewer",
        "the caches of routes and prompts, of all workers: requests that were answered from what is stored, waited for "
        "the answer to another one (joined), or went on (misses); what is stored, and who waits now",
        _subject("caches", ("route",)),
        _match("route"),
        (
            Column("route", gives_way=True),
            Column("hits", "", _N),
            Column("joined", "", _N),
            Column("stale", "", _N),
            Column("misses", "", _N),
            Column("entries", "", _N),
            Column("bytes", "", "bytes"),
            Column("max_bytes", "of", "bytes"),
            Column("waiting", "wait", _N),
        ),
        "show caches catalogue",
    ),
    Command(
        "show models",
        "GET",
        "/v1/models",
        "viewer",
        "who answers for each model: targets at each key in the order in which they are asked, whether they are ready "
        "(short: somebody waits there, or less than a twentieth of a limit is left), for how long they rest, what runs "
        "and waits there, what is left of their limits and the model's, the price of a million tokens (input/output)",
        _subject("models", ("model", "target", "state")),
        _match("model, target or state"),
        (
            Column("model", gives_way=True),
            Column("number", "no", _N),
            Column("weight", "", _N),
            Column("target", gives_way=True),
            Column("state", gives_way=True),
            Column("paused_s", "rests", "s"),
            Column("in_flight", "busy", _N),
            Column("queued", "", _N),
            Column("remaining", "left", gives_way=True),
            Column("price", gives_way=True),
        ),
        "show models smart",
    ),
    Command(
        "show targets",
        "GET",
        "/v1/targets",
        "viewer",
        "models at providers' keys: requests that run, those that wait for tokens, what is left of each limit, and "
        "pauses that the provider asked for, or that follow its failures (circuit_open)",
        _subject("targets", ("target", "paused_for")),
        _match("name, or why it is paused"),
        (
            Column("target", gives_way=True),
            Column("in_flight", "busy", _N),
            Column("queued", "", _N),
            Column("oldest_ms", "oldest", "ms"),
            Column("limits", gives_way=True),
            Column("remaining", "left", gives_way=True),
            Column("paused_s", "paused", "s"),
            Column("paused_for", "for", gives_way=True),
        ),
        "show targets openai",
    ),
    Command(
        "show meters",
        "GET",
        "/v1/meters",
        "viewer",
        "the 64 tenants, keys, teams, models and prompts with limits of tokens or money that have the most requests "
        "running: what is left, what was spent, and how many were refused (since a minute in which nobody asked)",
        _subject("meters", ("meter", "name", "tenant", "key_name")),
        _match("kind or name, or a key's in its tenant or name"),
        (
            Column("meter"),
            Column("name", gives_way=True),
            Column("tenant", gives_way=True, is_rare=True),
            Column("key_name", "key", gives_way=True, is_rare=True),
            Column("in_flight", "busy", _N),
            Column("limits", gives_way=True),
            Column("remaining", "left", gives_way=True),
            Column("spent_day", "today", gives_way=True),
            Column("refused", "", _N),
        ),
        "show meters tenant",
    ),
    Command(
        "show limits",
        "GET",
        "/v1/limits",
        "viewer",
        "every limit with the value in force, and where it comes from: file, default, live (who has set it, and until "
        "when), learned, or the kernel",
        _subject("limits", ("limit", "source"), True),
        _match("key or source"),
        (
            Column("limit", gives_way=True),
            Column("value"),
            Column("source"),
            Column("configured", gives_way=True),
            Column("uid", "", _N),
            Column("left_s", "left", "s"),
        ),
        "show limits learned",
        (Argument("diff", "only what is set live, beside what the file says", _is_flag, is_flag=True),),
    ),
    Command(
        "show changes",
        "GET",
        "/v1/changes",
        "viewer",
        "what is set live: value, that of the file, who did it, until when it holds, and whether it is kept over a "
        "restart (--persist)",
        _subject("changes", ("resource", "key"), True),
        _match("resource or key"),
        (
            Column("resource", gives_way=True),
            Column("key", gives_way=True),
            Column("value", gives_way=True),
            Column("file", gives_way=True),
            Column("uid", "", _N),
            Column("left_s", "left", "s"),
            Column("persisted", "kept"),
            Column("comment", gives_way=True),
        ),
        "show changes upstream/api",
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
        "the configuration that runs, each value with whether it is the default, and whether it waits for a restart; "
        "secrets are masked",
        _subject("config", ("key",), True),
        _match("key"),
        (
            Column("key", gives_way=True),
            Column("value", gives_way=True),
            Column("default"),
            Column("waits_for", "waits for"),
        ),
        "show config upstream.api",
    ),
    Command(
        "show history",
        "GET",
        "/v1/history",
        "viewer",
        "what a queue and its limit, or a worker, were in the last minutes: one row a second with the highest depth, "
        "busy, age and lag of that second, and what its rates and times were; of all of them, one row each. Ten rows a "
        "second can be had, too; rates may jump there, since workers tell what they have counted four times a second. "
        "Of a target: who waits for tokens, and is let in (out/s)",
        _history,
        (
            Argument(
                "resource",
                "an upstream, a route with a limit, a worker, or a model's target, as upstream/api, worker/0 or "
                "target/openai/gpt-4o; model/NAME for all targets of a model (all)",
            ),
            Argument("seconds", "how far back, 3600 at most (60; of all of them 10)", _seconds),
            Argument("step", f"seconds of a row, {EVERY_S} at least (1); {_HISTORY_ROWS} rows at most", _step),
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
        "the last events of all processes, or those with a text in them",
        _events,
        (
            Argument(
                "match", f"a text to look for in the last {_MOST_EVENTS}; or a number, how many (50)", _text_or_count
            ),
        ),
        example="show events provider_key_rests",
        options=(Argument("count", "how many of the last, or among how many the text is looked for", _count),),
        render=_event_line,
    ),
    Command(
        "follow events",
        "GET",
        "/v1/events/follow",
        "viewer",
        "events as they happen, each on a line, until you leave; asked for by HTTP, a JSON object a line",
        _follow_events,
        also="follow",
        render=_event_line,
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
        render=verdict.render,
    ),
    Command("show version", "GET", "/v1/version", "viewer", "version of the running program", _version),
    Command("reload", "POST", "/v1/reload", "admin", "read the configuration again and apply the difference", _reload),
    Command(
        "set",
        "PUT",
        "/v1/changes",
        "admin",
        "change a key of the configuration in all workers, on top of what the file says",
        _set,
        (*_RESOURCE, Argument("value", "as in the file, quotes may be left out", required=True)),
        (),
        'set upstream/api limit 64 --ttl 10m --comment "sale"',
        _CHANGE,
    ),
    Command(
        "unset",
        "DELETE",
        "/v1/changes",
        "admin",
        "take a change back: what the file says holds again",
        _unset,
        _RESOURCE,
        (),
        "unset upstream/api limit",
        _TAKE_BACK,
    ),
    Command(
        "drain",
        "POST",
        "/v1/drain",
        "admin",
        "finish what runs, then stop; with an endpoint: send it nobody new but clients that stick to it (weight 0)",
        _drain,
        (replace(_OF_ENDPOINT[0], required=False),),
        (),
        "drain 10.0.0.7:9000",
        _CHANGE,
    ),
    Command(
        "undrain",
        "POST",
        "/v1/undrain",
        "admin",
        "give an endpoint its weight again",
        _endpoint("weight", "1", "0", "drained"),
        _OF_ENDPOINT,
        (),
        "undrain 10.0.0.7:9000",
        _TAKE_BACK,
    ),
    Command(
        "disable",
        "POST",
        "/v1/disable",
        "admin",
        "treat an endpoint, a provider, one of its keys or a model there as if there were none; what runs is finished",
        _switch(False),
        _OF_PART,
        (),
        "disable provider/anthropic --ttl 1h",
        _CHANGE,
    ),
    Command(
        "enable",
        "POST",
        "/v1/enable",
        "admin",
        "use again what was disabled",
        _switch(True),
        _OF_PART,
        (),
        "enable provider/anthropic",
        _TAKE_BACK,
    ),
    Command(
        "pause",
        "POST",
        "/v1/pause",
        "admin",
        "have a route's requests wait in its queue; who waits for longer than queue.timeout (30 s if that is 0) is "
        "refused, as is who finds the queue full",
        _route("paused", "true"),
        _OF_ROUTE,
        (),
        "pause route/checkout --ttl 30s",
        _CHANGE,
    ),
    Command(
        "resume",
        "POST",
        "/v1/resume",
        "admin",
        "send a paused route's requests on",
        _route("paused", "false", "true", "paused"),
        _OF_ROUTE,
        (),
        "resume route/checkout",
        _TAKE_BACK,
    ),
    Command(
        "wake",
        "POST",
        "/v1/wake",
        "admin",
        "ask a provider's key again, or a model at it, which rests as the provider has refused it: once its account "
        "has credit, or its limit is another one",
        _wake,
        (
            Argument(
                "name",
                "provider/NAME for all its keys; a key as in `show upstreams`, or a model at it as in `show targets`",
                required=True,
            ),
        ),
        (),
        "wake openai",
    ),
    Command(
        "reset high-water",
        "POST",
        "/v1/queues/reset",
        "admin",
        "begin the high-water of all queues anew, at what waits now; nothing else changes",
        _reset,
    ),
    *accounts.COMMANDS,
    Command("live", "GET", "/livez", "viewer", "is the supervisor alive", _live),
    Command(
        "ready",
        "GET",
        "/readyz",
        "viewer",
        "are new connections served (503 while starting and draining, and when every worker hangs)",
        _ready,
    ),
    Command(
        "help",
        "GET",
        "/v1/commands",
        "viewer",
        "this table; as JSON with how each is said in full",
        _help,
        _match("words"),
        (Column("words", "command"), Column("level"), Column("help", gives_way=True)),
    ),
)


def find_text(line: str) -> Found | str:
    """The command of a line with its arguments, or what is wrong with it."""
    try:
        words = shlex.split(line)
    except ValueError:  # a lonely quote is a part of a name
        words = line.split()
    for size in range(min(len(words), 3), 0, -1):
        name = " ".join(words[:size]).lower()
        for command in COMMANDS:
            if name in (command.words, command.also):
                return _with_values(command, words[size:])
    said = " ".join(words).lower().removesuffix(" json")
    if said and (whole := [command.words for command in COMMANDS if command.words.startswith(f"{said} ")]):
        return f"{said!r} goes on: {', '.join(whole)}"
    near = difflib.get_close_matches(said, [command.words for command in COMMANDS])
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else "try 'help'"
    return f"unknown command {said[:100]!r}; {advice}"


def _with_values(command: Command, words: Sequence[str]) -> Found | str:
    values: list[str] = []
    arguments: dict[str, str] = {}
    options = {f"--{one.name}": one for one in command.options}
    rest = iter(words)
    for word in rest:
        name, sign, value = word.partition("=")
        option = options.get(name)
        if option is None:
            values.append(word)
        elif option.name in arguments:
            return f"{name} is given twice: {command.usage}"
        elif option.is_flag or sign:
            arguments[option.name] = value if sign else "true"
        else:
            arguments[option.name] = next(rest, "")
    # The word may be a value, too: set access_log format json.
    least = sum(one.required for one in command.arguments)
    as_json = len(values) > least and values[-1].lower() == "json"
    if as_json:
        values.pop()
    if unknown := next((word for word in values if word.startswith("--")), ""):
        return f"unknown option {unknown[:100]!r}: {command.usage}"
    if len(values) > len(command.arguments):
        return f"too many words: {command.usage}"
    arguments |= {one.name: value for one, value in zip(command.arguments, values, strict=False)}
    wrong = problem(command, arguments, command.usage)
    return wrong or Found(command, arguments, as_json)


def find_http(method: str, target: str) -> Found | Answer:
    """The command of a request with its arguments, or the refusal. HEAD is GET to it."""
    path, _, query = target.partition("?")
    at_path = [command for command in COMMANDS if command.path == path]
    for command in at_path:
        if command.method == method or (command.method, method) == ("GET", "HEAD"):
            given = parse_qsl(query, keep_blank_values=True)
            arguments = dict(given)
            wrong = problem(command, arguments, command.http)
            if not wrong and len(given) > len(arguments):
                wrong = f"an argument is given twice: {command.http}"
            return Answer(400, {"ok": False, "error": wrong}) if wrong else Found(command, arguments)
    if at_path:
        methods = ", ".join(command.method for command in at_path)
        return Answer(405, {"ok": False, "error": f"{path} takes {methods}"})
    return Answer(404, {"ok": False, "error": "nothing here; GET /v1/commands lists all"})


def problem(command: Command, arguments: Arguments, usage: str) -> str:
    """What is wrong with the values of arguments, by name; empty if nothing is. `usage`: as it should be."""
    known = {one.name: one for one in (*command.arguments, *command.options)}
    for name, value in arguments.items():
        if name not in known:
            return f"unknown argument {name[:100]!r}: {usage}"
        check = known[name].check
        if check is not None and (wrong := check(value)):
            return f"{name}: expected {wrong}"
    missing = command.missing(arguments)
    return f"{missing} is missing: {usage}" if missing else ""
