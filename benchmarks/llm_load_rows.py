"""The rows of llm_load.py: limits of tokens, a provider's own limit, many streams, and clients that leave."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import accounting_io
from benchmarks.arrivals import poisson
from benchmarks.llm_load_report import (
    GOOD,
    Asked,
    Result,
    between,
    counts,
    left_of,
    most_above,
    most_at_once,
    refusals,
    running_tokens,
    waits,
)
from benchmarks.llm_load_stage import LOOK_EVERY_S, Seen, Settings, Stage, demo_plan, request, staged
from benchmarks.llm_rows import LARGE_MODEL, PLAIN_MODEL
from benchmarks.overload_report import quantile
from benchmarks.overload_rows import Aim
from benchmarks.proxies import Plan

LIMIT = 120_000
"""Tokens a minute of a tenant or model."""
PARALLEL = 200
WORKERS = 4
VARIETY = 64
"""Different requests of a group."""
PROVIDER_LIMIT = 600_000
FLOOD, SMALL = 3.6, 0.1
"""Shares of the provider's limit that tenants ask for."""
SMALL_TOKENS = {"small-a": 100, "small-b": 200, "small-c": 400, "small-d": 800}
"""Of a request, on average, by tenant."""
FLOOD_TOKENS = 400
STREAM_TOKENS, STREAM_GAP_S = 64, 0.1
WARM_STREAMS = 20
LARGE_BYTES = 16 * 1024
MANY = "limit = 10_000\npool = { max_connections = 10_000 }"
"""Of a provider: more at once than any row asks for. What is learned of a provider does not begin with thousands."""
PATIENCE_S = 0.5
"""How long clients wait that are told to come again later: pressure does not cease."""
LEAVERS = 500
READS, READ_EVERY_S = 30, 0.07


@dataclass(frozen=True, slots=True)
class Programs:
    """Who plays."""

    python: str
    """Has edgeq."""
    peer: str
    """Runs the clients."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how much."""

    seconds: float
    """Of what is judged."""
    warm_s: float
    """Of what a provider's bucket holds in the beginning, before that."""
    streams: int
    slow: int


@dataclass(frozen=True, slots=True)
class LoadRow:
    """A row; `play` yields a result for each way in which it is played."""

    id: str
    title: str
    aims: tuple[Aim, ...]
    play: Callable[[Programs, Scale], Iterator[Result]]


def asked_of(seen: Seen) -> list[Asked]:
    """The clients' records."""
    return [
        Asked(group, at_s, first_s, ended_s, status, used, wait_ms, seen.said[said])
        for group, at_s, first_s, ended_s, status, used, wait_ms, said in seen.records
    ]


# -- limits -----------------------------------------------------------------------------------------------------------


def bodies(mean_tokens: int, seed: str, streams: bool) -> list[dict[str, Any]]:
    """Requests that a provider who echoes answers with as many words as they have, more or less tokens than anybody
    expects: lengths are exponential, half of them allow far more than comes of it, the others do not say."""
    chance = random.Random(seed)
    made = []
    for number in range(VARIETY):
        # A word of four letters and its space are 1.25 tokens of the request and one of the answer.
        words = 1 + int(chance.expovariate(2.25 / mean_tokens))
        body: dict[str, Any] = {
            "model": PLAIN_MODEL,
            "messages": [{"role": "user", "content": " ".join(["word"] * words)}],
        }
        if number % 2:
            body["max_tokens"] = words + chance.randrange(1, 1000)
        if streams and number % 4 > 1:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        made.append(body)
    return made


def limits(programs: Programs, scale: Scale) -> Iterator[Result]:
    """More than a tenant, or a model, may use; the last time, a worker is killed in the middle."""
    limit = f"limits = {{ tokens_per_minute = {LIMIT} }}"
    for variant, meter, settings in (
        ("key", "key", Settings(WORKERS, tenants={"bench": ("--tpm", str(LIMIT))})),
        ("model", "model", Settings(WORKERS, model=limit)),
        ("model, a worker killed", "model", Settings(WORKERS, model=limit)),
    ):
        demo = demo_of(programs, "say=echo,latency=100ms,jitter=200ms,rate=400")
        with staged(programs.python, programs.peer, demo, settings) as stage:
            yield _limits(stage, variant, meter, scale)


def _limits(stage: Stage, variant: str, meter: str, scale: Scale) -> Result:
    key = stage.keys["bench"]
    group = {
        "name": "all",
        "requests": [request(body, key) for body in bodies(150, "limits", streams=True)],
        "arrivals": [0.0] * PARALLEL,
        "again": True,
        "patience_s": PATIENCE_S,
    }
    killing = threading.Timer(scale.seconds / 2, kill_worker, (stage,))
    if "killed" in variant:
        killing.start()
    try:
        seen = stage.play([group], scale.seconds, 30.0, stage.provider_tells)
    finally:
        killing.cancel()
    left = stage.settled()
    # Until the clients begin, the bucket is full.
    looks = [(seen.start, 0), *((at, tokens(told)) for at, told in seen.looks if at > seen.start)]
    looks.append((time.monotonic(), tokens(stage.provider_tells())))
    asked = asked_of(seen)
    over, at = most_above(looks, LIMIT)
    end_s = seen.start + scale.seconds
    figures = {
        **counts(asked),
        **waits(asked),
        "tokens": tokens(seen.looks[-1][1]),
        "used": between(looks, seen.start, end_s) / (LIMIT * (1 + scale.seconds / 60)),
        "above": over,
        "running": running_tokens(asked, at - seen.start, LOOK_EVERY_S),
        "left_behind": len(left),
    }
    figures["beyond_running"] = max(0.0, figures["above"] - figures["running"])
    # What a dead worker has reserved stays charged until the bucket has refilled.
    figures["lost" if "killed" in variant else "leaked"] = max(0.0, not_paid_back(stage, meter, looks) / LIMIT)
    return Result("limits", variant, figures, refusals(asked), left)


def not_paid_back(stage: Stage, meter: str, looks: Sequence[tuple[float, int]]) -> float:
    """Tokens that edgeq says are gone, although nobody has used them. What workers tell is up to half a second old, in
    which the bucket has grown: the best of many times is the most recent."""
    missing: list[float] = []
    _, used = looks[-1]
    with contextlib.closing(stage.admin()) as admin:
        for _ in range(READS):
            told = next(each for each in admin.show("meters") if each["meter"] == meter)
            missing.append(left_of([*looks, (time.monotonic(), used)], LIMIT) - told["remaining"]["tokens"])
            time.sleep(READ_EVERY_S)
    return min(missing)


def tokens(told: dict[str, Any]) -> int:
    """All that the demo provider has counted."""
    return sum(int(each["tokens"]) for each in told.values())


def kill_worker(stage: Stage) -> None:
    """The first one, with a signal that nobody catches."""
    with contextlib.closing(stage.admin()) as admin:
        os.kill(int(admin.show("workers")[0]["pid"]), signal.SIGKILL)


def demo_of(programs: Programs, behave: str, *options: str) -> Callable[[int], Plan]:
    """A demo provider on whatever port."""
    return lambda port: demo_plan(programs.python, port, "--behave", behave, *options)


# -- a provider's own limit -------------------------------------------------------------------------------------------


def provider(programs: Programs, scale: Scale) -> Iterator[Result]:
    """Four times what a provider grants, most of it by one tenant."""
    names = ("flood", *SMALL_TOKENS)
    known = f"limits = {{ tokens_per_minute = {PROVIDER_LIMIT} }}"
    for variant, lines in (("limits configured", known), ("only heard", "")):
        demo = demo_of(programs, "say=echo,latency=100ms", "--tokens-per-minute", str(PROVIDER_LIMIT))
        settings = Settings(1, provider=lines, tenants=dict.fromkeys(names, ()))
        with staged(programs.python, programs.peer, demo, settings) as stage:
            yield _provider(stage, variant, scale)


def _provider(stage: Stage, variant: str, scale: Scale) -> Result:
    end_s = scale.warm_s + scale.seconds
    groups = []
    for name, mean, share in (
        ("flood", FLOOD_TOKENS, FLOOD),
        *((name, mean, SMALL) for name, mean in SMALL_TOKENS.items()),
    ):
        rate = PROVIDER_LIMIT * share / 60 / mean
        groups.append(
            {
                "name": name,
                "requests": [request(body, stage.keys[name]) for body in bodies(mean, name, streams=False)],
                "arrivals": poisson([(end_s, rate)], random.Random(name)),
            }
        )
    seen = stage.play(groups, end_s, 40.0, stage.provider_tells)
    left = stage.settled()
    looks = [(at, tokens(told)) for at, told in seen.looks]
    judged = [one for one in asked_of(seen) if one.at_s >= scale.warm_s]
    flood = [one for one in judged if one.group == 0]
    small = [one for one in judged if one.group > 0]
    used = between(looks, seen.start + scale.warm_s, seen.start + end_s)
    figures = {
        **counts(judged),
        **waits(judged),
        "tokens": used,
        "used": used / (PROVIDER_LIMIT * scale.seconds / 60),
        "provider_429": sum(each["refused_429"] for each in seen.looks[-1][1].values()),
        "passed_429": sum("upstream_rate_limit" in one.said for one in judged),
        "left_behind": len(left),
    }
    for name, mine in (("small", small), ("flood", flood)):
        took = [one.ended_s - one.at_s for one in mine if one.status == GOOD]
        figures[f"{name}_served"] = len(took) / max(1, len(mine))
        figures[f"{name}_p50_s"], figures[f"{name}_p99_s"] = quantile(took, 0.5), quantile(took, 0.99)
    return Result("provider", variant, figures, refusals(judged), left)


# -- streams ----------------------------------------------------------------------------------------------------------


def streams(programs: Programs, scale: Scale) -> Iterator[Result]:
    """Many streams at once, some of them read slowly; without a gateway first."""

    def stamps(port: int) -> Plan:
        words = (str(port), str(STREAM_TOKENS), f"{STREAM_GAP_S * 1000:g}", str(LARGE_BYTES))
        return Plan({}, (programs.peer, "-m", "benchmarks.peer_stamps_io", *words))

    direct: Result | None = None
    for variant, settings in (
        ("direct", None),
        ("edgeq", Settings(1, provider=MANY, models=(PLAIN_MODEL, LARGE_MODEL))),
    ):
        with staged(programs.python, programs.peer, stamps, settings) as stage:
            result = _streams(stage, variant, scale)
        if direct is not None:
            for name, of in (("added_ms", "late_p99_ms"), ("first_added_ms", "first_p99_ms")):
                result.figures[name] = result.figures[of] - direct.figures[of]
        direct = result
        yield result


def _streams(stage: Stage, variant: str, scale: Scale) -> Result:
    key = stage.keys["bench"]
    fast = scale.streams - scale.slow
    body = {"stream": True, "max_tokens": STREAM_TOKENS, "messages": [{"role": "user", "content": "Count the ways."}]}
    ramp_s = STREAM_TOKENS * STREAM_GAP_S / 2

    def group(name: str, model: str, count: int, **more: Any) -> dict[str, Any]:
        arrivals = [ramp_s * index / count for index in range(count)]
        return {"name": name, "requests": [request({**body, "model": model}, key)], "arrivals": arrivals, **more}

    groups = [
        group("fast", PLAIN_MODEL, fast, again=True, patience_s=PATIENCE_S),
        group("slow", LARGE_MODEL, scale.slow, slow=True),
    ]
    edgeq = stage.edgeq
    # What is imported and made once is no stream's.
    stage.play([group("warm", PLAIN_MODEL, WARM_STREAMS)], ramp_s, STREAM_TOKENS * STREAM_GAP_S + 5, lambda: 0)
    memory = (lambda: accounting_io.memory(edgeq.pid).pss_bytes) if edgeq else lambda: 0
    seen = stage.play(groups, ramp_s + scale.seconds, STREAM_TOKENS * STREAM_GAP_S + 5, memory)
    left = stage.settled() if edgeq else []
    asked = asked_of(seen)
    mine = [one for one in asked if one.group == 0]
    first = [one.first_s - one.at_s for one in mine if one.first_s >= 0 and one.at_s >= ramp_s]
    late = seen.events.get("fast", {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0})
    figures = {
        **counts(mine),
        "streams": most_at_once(asked),
        "events": late["count"],
        **{f"late_{name}": late[name] for name in ("p50_ms", "p99_ms", "max_ms")},
        "first_p50_ms": quantile(first, 0.5) * 1000,
        "first_p99_ms": quantile(first, 0.99) * 1000,
    }
    if edgeq:
        used = [each for _, each in seen.looks]
        figures["stream_kib"] = (max(used) - used[0]) / 1024 / scale.streams
        figures["memory_mib"] = max(used) / 1024**2
        figures["left_behind"] = len(left)
    return Result("streams", variant, figures, refusals(mine), left)


# -- leaving ----------------------------------------------------------------------------------------------------------


def leaving(programs: Programs, _scale: Scale) -> Iterator[Result]:
    """Clients leave at random moments: in a queue, before the first token, within a stream; half of them by a reset."""
    settings = Settings(
        2,
        provider='limit = 150\nqueue = { max = 1000, timeout = "30s" }\nlimits = { tokens_per_minute = 10_000_000 }',
        model="limits = { concurrent = 1000, tokens_per_minute = 10_000_000 }",
        tenants={"bench": ("--tpm", "10000000", "--concurrent", "1000")},
    )
    demo = demo_of(programs, "latency=500ms,rate=10,tokens=64")
    with staged(programs.python, programs.peer, demo, settings) as stage:
        chance = random.Random(5)
        body = {"model": PLAIN_MODEL, "stream": True, "messages": [{"role": "user", "content": "Go on for ever."}]}
        group = {
            "name": "leavers",
            "requests": [request(body, stage.keys["bench"])],
            "arrivals": sorted(chance.uniform(0, 5) for _ in range(LEAVERS)),
            "leave_s": [chance.uniform(0.001, 8) for _ in range(LEAVERS)],
        }
        seen = stage.play([group], 5.0, 30.0, stage.provider_tells)
        left = stage.settled()
        told = stage.provider_tells()
    asked = asked_of(seen)
    figures = {
        **counts(asked),
        "cancelled": sum(each["cancelled"] for each in told.values()),
        "left_behind": len(left),
    }
    yield Result("leaving", "edgeq", figures, refusals(asked), left)


NOTHING_LEFT = (Aim("left_behind", "<=", 0), Aim("broken", "<=", 0), Aim("unfinished", "<=", 0))
ROWS: Sequence[LoadRow] = (
    LoadRow(
        "limits",
        f"{PARALLEL} requests at once, {WORKERS} workers, {LIMIT:,} tokens a minute of a key or a model, answers "
        "that nobody expected so long or so short; half of them without max_tokens",
        (
            Aim("beyond_running", "<=", 0),
            Aim("leaked", "<=", 0.01),
            Aim("lost", "<=", 0.05),
            Aim("left_behind", "<=", 0),
        ),
        limits,
    ),
    LoadRow(
        "provider",
        f"a provider's {PROVIDER_LIMIT:,} tokens a minute; {FLOOD:g} times that by one tenant, a tenth each by four "
        "small ones in requests of 100 to 800 tokens",
        (
            Aim("used", ">=", 0.97),
            Aim("provider_429", "<=", 0),
            Aim("small_served", ">=", 0.99),
            Aim("wait_told", ">=", 1.0),
            Aim("wait_max_s", "<=", 60),
            Aim("left_behind", "<=", 0),
        ),
        provider,
    ),
    LoadRow(
        "streams",
        f"streams of {STREAM_TOKENS} tokens, one each {STREAM_GAP_S * 1000:g} ms, on one worker, all the time; some of "
        f"{LARGE_BYTES // 1024} KiB a token, read at 8 KiB a second",
        (Aim("added_ms", "<=", 50), Aim("stream_kib", "<=", 128), *NOTHING_LEFT),
        streams,
    ),
    LoadRow(
        "leaving",
        f"{LEAVERS} clients of streams that leave at random moments, 150 at the provider, the others queued; 2 workers",
        NOTHING_LEFT,
        leaving,
    ),
)
