"""The benchmark of overload without its processes: arrivals, configurations, figures, tables."""

from __future__ import annotations

import itertools
import json
import math
import random
import tomllib
from pathlib import Path

import pytest

from benchmarks.arrivals import Outcome, Record, poisson, refusal, schedule
from benchmarks.gateways import DIRECT, GATEWAYS, Setup, takes_part
from benchmarks.overload import Ports, load_plan, upstream_plan
from benchmarks.overload_report import FIGURES, Run, bad_share, figures, markdown, recovery_s, summary, verdicts
from benchmarks.overload_rows import Row, rows
from benchmarks.proxies import Plan, Programs

ROWS = {row.id: row for row in rows(8.0, 2.0)}
PROGRAMS = Programs("nginx", "haproxy", "envoy", "python", "")


def record(at_s: float, outcome: Outcome = Outcome.GOOD, latency_s: float = 0.02, stream: int = 0) -> Record:
    refused = outcome is Outcome.REFUSED
    return Record(at_s, stream, outcome, latency_s, "503 queue_full" if refused else "", refused)


def evenly(
    begin: float, end: float, per_s: float, outcome: Outcome = Outcome.GOOD, latency_s: float = 0.02
) -> list[Record]:
    count = round((end - begin) * per_s)
    return [record(begin + (end - begin) * number / count, outcome, latency_s) for number in range(count)]


def plan(gateway: str, row: Row, tmp_path: Path) -> Plan:
    ports = tuple(
        tuple(range(9000 + 100 * index, 9000 + 100 * index + len(upstream.endpoints)))
        for index, upstream in enumerate(row.upstreams)
    )
    return GATEWAYS[gateway](Setup(8080, str(tmp_path), row.upstreams, ports, row.tenants), PROGRAMS)


def test_poisson_follows_the_rate_of_each_phase() -> None:
    """Gaps of a Poisson process have their mean as their deviation; a phase without requests is empty."""
    found = poisson([(10, 1000), (5, 0), (10, 100)], random.Random(3))
    first, last = [at for at in found if at < 10], [at for at in found if at >= 15]
    assert len(first) + len(last) == len(found)
    assert len(first) == pytest.approx(10_000, rel=0.05)
    assert len(last) == pytest.approx(1000, rel=0.15)
    gaps = [after - before for before, after in itertools.pairwise(first)]
    deviation = math.sqrt(sum((gap - 0.001) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(0.001, rel=0.1)


def test_the_same_seed_gives_the_same_load() -> None:
    """Each gateway gets the same arrivals, in order, and one stream does not change another's."""
    one, two = [(2.0, 50.0)], [(2.0, 80.0)]
    both = schedule([one, two], seed=5)
    assert both == schedule([one, two], seed=5) == sorted(both)
    assert [each for each in both if each[1] == 0] == schedule([one], seed=5)
    assert both != schedule([one, two], seed=6)


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html", b"<html>502 Bad Gateway</html>", ("502", False)),
        (b"HTTP/1.1 503 x\r\ncontent-type: text/plain", b"reached limit\n", ("503 reached limit", True)),
        (
            b"HTTP/1.1 503 x\r\nProxy-Status: gw; error=connection_limit_reached; edgeq-reason=queue_full",
            b"{}",
            ("503 queue_full", True),
        ),
        (b"HTTP/1.1 504 x\r\nProxy-Status: gw; error=http_response_timeout", b"", ("504 http_response_timeout", True)),
        (b"HTTP/1.1 500 Internal Server Error", b"", ("500", False)),
    ],
)
def test_what_a_refusal_says(head: bytes, body: bytes, expected: tuple[str, bool]) -> None:
    """A machine-readable reason or a sentence explains; a status page does not."""
    assert refusal(head, body) == expected


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("row", ["usual-2x", "beside-slow", "endpoint-slow"])
def test_every_plan_knows_all_ports(gateway: str, row: str, tmp_path: Path) -> None:
    """Each endpoint of each upstream is named, with its prefix where there is one."""
    text = "\n".join(plan(gateway, ROWS[row], tmp_path).files.values())
    ports = ["8080", "9000", *(["9100", "/slow/"] if row == "beside-slow" else [])]
    ports += ["9003"] if row == "endpoint-slow" else []
    assert [port for port in ports if port not in text] == []


def test_edgeq_gets_no_limit_and_a_tenant_only_where_there_are_some(tmp_path: Path) -> None:
    """What is compared is edgeq as it comes."""
    found = tomllib.loads(*plan("edgeq", ROWS["usual-2x"], tmp_path).files.values())
    assert found["upstream"] == {"api": {"endpoints": ["http://127.0.0.1:9000"]}}
    assert "tenant" not in found
    found = tomllib.loads(*plan("edgeq", ROWS["tenant"], tmp_path).files.values())
    assert found["tenant"] == {"key": "header:x-api-key"}
    assert "tenant" not in tomllib.loads(*plan("edgeq-no-tenants", ROWS["tenant"], tmp_path).files.values())


def test_tuned_gateways_are_told_the_slots(tmp_path: Path) -> None:
    """They know what the others have to find out."""
    for gateway, word in (("nginx-max-conns", "max_conns=16"), ("haproxy-tuned", "maxconn 16")):
        (text,) = plan(gateway, ROWS["endpoint-slow"], tmp_path).files.values()
        assert text.count(word) == 4
    (text,) = plan("envoy-adaptive", ROWS["usual-2x"], tmp_path).files.values()
    listener = json.loads(text)["static_resources"]["listeners"][0]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert [each["name"].rpartition(".")[2] for each in filters] == ["adaptive_concurrency", "router"]


def test_rows_are_consistent() -> None:
    """Rates for each phase, changes of what exists, aims that are shown."""
    assert len(ROWS) == len(rows(8.0, 2.0))
    for row in ROWS.values():
        assert all(len(stream.rates) == len(row.phases) for stream in row.streams)
        assert all(0 < change.phase < len(row.phases) for change in row.changes)
        assert all(change.endpoint < len(row.upstreams[0].endpoints) for change in row.changes)
        assert {aim.figure for aim in row.aims} <= set(FIGURES)
    assert [row.id for row in ROWS.values() if takes_part(DIRECT, row.upstreams, row.offered)] == [
        row.id for row in ROWS.values() if row.offered == 0.8
    ]


def test_plans_of_upstream_and_load() -> None:
    """The peers get as many services as there are ports, and changes where and when the row says."""
    row = ROWS["endpoint-slow"]
    command = upstream_plan("python", row, [(1, 2, 3, 4)]).command
    assert [each["port"] for each in json.loads(command[-1])] == [1, 2, 3, 4]
    found = load_plan(row, Ports(((1, 2, 3, 4),), 8080), seed=1)
    assert found["changes"] == [{"at_s": 2.0, "port": 4, "path": "/_set?mean_s=0.2"}]
    assert load_plan(ROWS["tenant"], Ports(((1,),), 8080), 1)["streams"][0]["fields"] == "x-api-key: polite\r\n"


def test_overload_is_measured_against_the_capacity() -> None:
    """Twice the capacity is offered and half of it served: all of the capacity is used."""
    records = evenly(0, 2, 400) + evenly(2, 10, 800) + evenly(2, 10, 800, Outcome.REFUSED, latency_s=0.003)
    found = figures(ROWS["usual-2x"], records)
    assert found["in_time"] == pytest.approx(1.0, abs=0.01)
    assert (found["refused"], found["explained"], found["late"]) == (0.5, 1.0, 0.0)
    assert (found["p50_ms"], found["refusal_p99_ms"]) == pytest.approx((20, 3))


def test_below_the_capacity_all_that_is_offered_counts() -> None:
    """A late answer is missed there, and the quiet phase is not judged."""
    records = evenly(0, 2, 400, Outcome.LATE) + evenly(2, 10, 99) + evenly(2, 10, 1, Outcome.LATE, latency_s=1.0)
    found = figures(ROWS["usual-0.8x"], records)
    assert (found["in_time"], found["late"], found["at_start"]) == pytest.approx((0.99, 0.01, 0.0))
    assert "at_start" not in figures(ROWS["cold-0.8x"], records)


def test_recovery_ends_with_the_last_bad_quarter() -> None:
    """One failure in a hundred is none; a failure at the end means never."""
    interval = (10.0, 20.0)
    good = evenly(10, 20, 400)
    assert recovery_s(good, interval) == 0
    assert recovery_s([*good, record(10.6, Outcome.LATE)], interval) == 0
    bad = evenly(10.5, 10.75, 40, Outcome.LATE)
    assert recovery_s(good + bad, interval) == 0.75
    assert recovery_s(good + evenly(19.75, 20, 40, Outcome.REFUSED), interval) == math.inf


def test_following_a_capacity_that_halves() -> None:
    """Long medians count as not followed, and so does a returned capacity that is not used."""
    row = ROWS["halves"]
    begin, end = row.interval
    records = evenly(row.begin_of(1), begin, 800) + evenly(begin, begin + 3, 400, latency_s=0.04)
    records += evenly(begin + 3, end, 400) + evenly(end, end + 2, 600) + evenly(end + 2, row.begin_of(4), 800)
    found = figures(row, records)
    assert found["follow_s"] == pytest.approx(3, abs=1)
    assert found["return_s"] == 2
    assert found["in_time"] == pytest.approx(1, abs=0.02)
    lost = [each for each in records if each.at_s < end]
    assert figures(row, lost)["return_s"] == math.inf


def test_the_polite_tenant_is_judged_alone() -> None:
    """The noisy one's refusals are not the polite one's, its answers count for the capacity."""
    records = evenly(2, 10, 80) + [
        record(each.at_s, each.outcome, each.latency_s, stream=1)
        for each in evenly(2, 10, 720) + evenly(2, 10, 1680, Outcome.REFUSED)
    ]
    found = figures(ROWS["tenant"], records)
    assert (found["in_time"], found["refused"]) == (1.0, 0.0)
    assert found["all_to_capacity"] == pytest.approx(1.0, abs=0.01)


def test_share_of_one_endpoint_within_an_interval() -> None:
    """Only whole tenths of a second inside the interval count."""
    arrived = [{100: 50, 101: 30, 102: 30}, {100: 50, 101: 10, 102: 10}]
    assert bad_share(arrived, 1, 10.05, 10.3) == 0.25


def test_verdicts_are_edgeqs_only_and_tables_are_even() -> None:
    """Others have not set themselves these aims; what nobody has makes no column."""
    row = ROWS["usual-0.8x"]
    good = {"in_time": 1.0, "p50_ms": 20.5, "refused": 0.0}
    runs = [
        Run(row.id, DIRECT, {**good, "p50_ms": 20.0}),
        Run(row.id, "nginx", {**good, "in_time": 0.5, "recovery_s": math.inf}),
        Run(row.id, "edgeq", {**good, "refused": 0.01}, {"503 queue_full": 3}),
    ]
    found = verdicts(row, runs)
    assert len(found) == 3
    assert found[1].endswith("refused 1.0 %, aim <= 0.0 %: MISSED")
    assert "1.02, aim <= 1.05: met" in found[2]
    text = markdown(row, runs)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "never" in text
    assert "followed" not in text
    assert "50.0 %" in summary([row], runs)
