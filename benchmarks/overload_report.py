"""From single requests to the figures of a row, a table for people, and verdicts on what edgeq aims at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.arrivals import Outcome, Record
from benchmarks.gateways import DIRECT
from benchmarks.overload_rows import Aim, Row
from benchmarks.report import rendered_table
from benchmarks.slots import BUCKETS_PER_S

RECOVERED = 0.99
"""Share of a quarter of a second's requests that must be answered in time to call it good."""
RECOVERY_BUCKET_S, FOLLOW_BUCKET_S = 0.25, 1.0
FOLLOWED_RATE, FOLLOWED_MEDIAN = 0.9, 1.5
"""A changed capacity is followed when this share of it is served, with at most so many times the median of before."""
LAG_DOUBT_S = 0.010
"""When load or upstream are later than this in one of a hundred cases, the processor was not theirs."""
EDGEQ = "edgeq"


@dataclass(frozen=True, slots=True)
class Run:
    """One row with one gateway."""

    row: str
    gateway: str
    figures: dict[str, float]
    refusals: dict[str, int] = field(default_factory=dict)
    """What refusals of the judged requests said, and how often."""


@dataclass(frozen=True, slots=True)
class Figure:
    """How a figure is shown: heading, factor, digits, what follows the number."""

    heading: str
    factor: float = 1.0
    digits: int = 0
    unit: str = ""

    def text(self, value: float) -> str:
        return "never" if math.isinf(value) else f"{value * self.factor:.{self.digits}f}{self.unit}"


SHARE = (100.0, 1, " %")
FIGURES = {
    "in_time": Figure("in time", *SHARE),
    "per_s": Figure("per s"),
    "p50_ms": Figure("p50 ms", digits=1),
    "p99_ms": Figure("p99 ms", digits=1),
    "p50_to_direct": Figure("p50 / direct", digits=2),
    "p99_moved": Figure("p99 / alone", digits=2),
    "refused": Figure("refused", *SHARE),
    "refusal_p99_ms": Figure("refused p99 ms", digits=1),
    "explained": Figure("explained", *SHARE),
    "late": Figure("late", *SHARE),
    "broken": Figure("broken", *SHARE),
    "recovery_s": Figure("recovered s", digits=2),
    "follow_s": Figure("followed s", digits=0),
    "return_s": Figure("returned s", digits=0),
    "returned": Figure("in time after", *SHARE),
    "all_to_capacity": Figure("all / capacity", *SHARE),
    "bad_share": Figure("to the bad one", *SHARE),
    "at_start": Figure("in time at start", *SHARE),
    "in_vain": Figure("worked in vain", *SHARE),
    "busy": Figure("busy", 100.0, 0, " %"),
}
"""The columns, in their order. `in_time` is a share of the capacity in an overload, else of what was offered."""


def quantile(values: Iterable[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def sent(records: Iterable[Record], stream: int, interval: tuple[float, float]) -> list[Record]:
    """The requests of a stream that were due in the interval."""
    begin, end = interval
    return [record for record in records if record.stream == stream and begin <= record.at_s < end]


def answered(records: Iterable[Record], interval: tuple[float, float]) -> list[Record]:
    """Good answers of all streams that arrived in the interval, whenever they were asked for."""
    begin, end = interval
    good = (record for record in records if record.outcome is Outcome.GOOD)
    return [record for record in good if begin <= record.at_s + record.latency_s < end]


def _share(records: Sequence[Record], outcome: Outcome) -> float:
    return sum(record.outcome is outcome for record in records) / max(1, len(records))


def recovery_s(records: Iterable[Record], interval: tuple[float, float]) -> float:
    """Seconds from the interval's begin until nearly everything is answered in time for good; infinite: not in it."""
    begin, end = interval
    buckets: dict[int, list[Record]] = {}
    for record in sent(records, 0, interval):
        buckets.setdefault(int((record.at_s - begin) / RECOVERY_BUCKET_S), []).append(record)
    bad = [index for index, bucket in buckets.items() if _share(bucket, Outcome.GOOD) < RECOVERED]
    found = (max(bad, default=-1) + 1) * RECOVERY_BUCKET_S
    return found if found < end - begin else math.inf


def follow_s(records: Iterable[Record], interval: tuple[float, float], capacity: float, median_s: float) -> float:
    """Seconds until the capacity is used with medians up to `median_s` for good; infinite: not in the interval."""
    begin, end = interval
    buckets: list[list[float]] = [[] for _ in range(int((end - begin) / FOLLOW_BUCKET_S))]
    for record in answered(records, interval):
        index = int((record.at_s + record.latency_s - begin) / FOLLOW_BUCKET_S)
        if index < len(buckets):
            buckets[index].append(record.latency_s)
    enough = FOLLOWED_RATE * capacity * FOLLOW_BUCKET_S
    bad = [index for index, bucket in enumerate(buckets) if len(bucket) < enough or quantile(bucket, 0.5) > median_s]
    found = (max(bad, default=-1) + 1) * FOLLOW_BUCKET_S
    return found if found < end - begin else math.inf


def figures(row: Row, records: Sequence[Record]) -> dict[str, float]:
    """What the clients saw."""
    begin, end = row.interval
    seconds = end - begin
    judged = sent(records, 0, row.interval)
    good = [record.latency_s for record in judged if record.outcome is Outcome.GOOD]
    refused = [record for record in judged if record.outcome is Outcome.REFUSED]
    capacity = row.upstreams[0].capacity
    found = {
        "in_time": len(good) / max(1, len(judged)),
        "per_s": len(good) / seconds,
        "p50_ms": quantile(good, 0.5) * 1000,
        "p99_ms": quantile(good, 0.99) * 1000,
        "refused": _share(judged, Outcome.REFUSED),
        "late": _share(judged, Outcome.LATE),
        "broken": _share(judged, Outcome.BROKEN),
    }
    quiet = sent(records, 0, (0.0, row.begin_of(1)))
    if quiet:
        found["at_start"] = _share(quiet, Outcome.GOOD)
    if refused:
        found["refusal_p99_ms"] = quantile((record.latency_s for record in refused), 0.99) * 1000
        found["explained"] = sum(record.explained for record in refused) / len(refused)
    if row.kind == "steady" and row.offered > 1:
        found["per_s"] = len(answered(records, row.interval)) / seconds
        found["in_time"] = found["per_s"] / capacity
    elif row.kind == "burst":
        found["recovery_s"] = recovery_s(records, row.interval)
    elif row.kind == "tenant":
        found["all_to_capacity"] = len(answered(records, row.interval)) / seconds / capacity
    elif row.kind == "beside":
        alone = [each for each in sent(records, 0, (row.begin_of(1), begin)) if each.outcome is Outcome.GOOD]
        found["p99_moved"] = found["p99_ms"] / max(1e-3, quantile((each.latency_s for each in alone), 0.99) * 1000)
    elif row.kind == "halves":
        before, after = (row.begin_of(1), begin), (end, row.begin_of(4))
        median_s = FOLLOWED_MEDIAN * quantile((each.latency_s for each in answered(records, before)), 0.5)
        found["per_s"] = len(answered(records, row.interval)) / seconds
        found["in_time"] = found["per_s"] / (capacity / 2)
        found["follow_s"] = follow_s(records, row.interval, capacity / 2, median_s)
        found["return_s"] = follow_s(records, after, capacity, median_s)
        found["returned"] = len(answered(records, after)) / (after[1] - after[0]) / capacity
    return found


def bad_share(arrived: Sequence[dict[int, int]], bad: int, begin_s: float, end_s: float) -> float:
    """Share of the requests of an interval (monotonic seconds) that went to one endpoint; `arrived` by tenths."""
    first, last = math.ceil(begin_s * BUCKETS_PER_S), int(end_s * BUCKETS_PER_S)
    counts = [sum(count for bucket, count in each.items() if first <= bucket < last) for each in arrived]
    return counts[bad] / max(1, sum(counts))


def refusals(row: Row, records: Sequence[Record]) -> dict[str, int]:
    """What the refusals of the judged requests said, the most frequent first."""
    judged = sent(records, 0, row.interval)
    return dict(Counter(each.refusal for each in judged if each.outcome is Outcome.REFUSED).most_common())


def with_direct(row: Row, runs: Sequence[Run]) -> list[Run]:
    """The runs of a row; medians compared with what the load sees without a gateway, where that was measured."""
    mine = [run for run in runs if run.row == row.id]
    direct = next((run.figures["p50_ms"] for run in mine if run.gateway == DIRECT), 0.0)
    if not direct:
        return mine
    return [
        Run(run.row, run.gateway, {**run.figures, "p50_to_direct": run.figures["p50_ms"] / direct}, run.refusals)
        for run in mine
    ]


def verdicts(row: Row, runs: Sequence[Run]) -> list[str]:
    """One sentence for each aim and each edgeq that was measured."""
    found: list[str] = []
    for run in with_direct(row, runs):
        if run.gateway.startswith(EDGEQ):
            found += [_verdict(run, aim) for aim in row.aims if aim.figure in run.figures]
    return found


def _verdict(run: Run, aim: Aim) -> str:
    figure, value = FIGURES[aim.figure], run.figures[aim.figure]
    outcome = "met" if aim.met(value) else "MISSED"
    aimed = f"aim {aim.sense} {figure.text(aim.limit)}"
    return f"{run.row}: {run.gateway}: {figure.heading} {figure.text(value)}, {aimed}: {outcome}"


def doubts(run: Run) -> list[str]:
    """What makes the figures of a run doubtful."""
    late = [
        f"one in a hundred {what} was sent at least {run.figures[name]:.0f} ms late"
        for what, name in (("requests", "lag_p99_ms"), ("answers of the upstream", "upstream_lag_p99_ms"))
        if run.figures.get(name, 0.0) > LAG_DOUBT_S * 1000
    ]
    return [f"{run.row}: {run.gateway}: {text}" for text in late]


def markdown(row: Row, runs: Sequence[Run]) -> str:
    """One row as a section with a table."""
    mine = with_direct(row, runs)
    header = ["gateway", *(figure.heading for figure in FIGURES.values()), "refusals say"]
    cells = [
        [
            run.gateway,
            *(figure.text(run.figures[name]) if name in run.figures else "" for name, figure in FIGURES.items()),
            next(iter(run.refusals), ""),
        ]
        for run in mine
    ]
    text = [f"## {row.id}", "", row.title, "", *rendered_table(header, cells), ""]
    text += [f"- {sentence}" for sentence in verdicts(row, runs)]
    return "\n".join(text).rstrip() + "\n"


def summary(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """All steady rows at a glance: for each shape and gateway, good answers and their median by what is offered."""
    steady = [row for row in rows if row.kind == "steady"]
    by_name = {(run.row, run.gateway): run.figures for run in runs}
    text: list[str] = []
    for shape in dict.fromkeys(row.shape for row in steady):
        mine = [row for row in steady if row.shape == shape]
        gateways = dict.fromkeys(run.gateway for run in runs if run.row in {row.id for row in mine})
        cells: list[list[str]] = []
        for gateway in gateways:
            line = [gateway]
            for row in mine:
                found = by_name.get((row.id, gateway))
                line += [FIGURES[name].text(found[name]) if found else "" for name in ("in_time", "p50_ms")]
            cells.append(line)
        if cells:
            header = ["gateway"] + [each for row in mine for each in (f"in time at {row.offered:g}x", "p50 ms")]
            text += [f"### {shape}", "", *rendered_table(header, cells), ""]
    return "\n".join(text)
