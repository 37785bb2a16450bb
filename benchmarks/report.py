"""From measurements to medians, ratios, spread and verdicts; as a table for people and as JSON.

A ratio is the median of the ratios of single rounds: the two proxies of one ratio were measured within seconds of each
other, so what drifts slowly (the machine's clock, its neighbours) cancels.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.rows import Row, Target

REFERENCES = ("nginx", "haproxy", "litellm", "portkey")
QUIET = 0.10
"""Share of the proxy's processor that other work may take before a figure is called doubtful."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One window: one proxy, one variant, one round. `value` is in the row's unit."""

    row: str
    proxy: str
    variant: str
    round: int
    value: float
    requests: int
    seconds: float
    busy: float
    """Share of its processor that the proxy used; 1.0 is saturated."""
    errors: int
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median with extremes."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.minimum:.{digits}f}..{self.maximum:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a row's table."""

    proxy: str
    variant: str
    value: Spread
    ratios: dict[str, Spread]
    """By reference: a proxy's name, or "self"."""
    busy: float
    rate: float
    """Median of requests per second, for orientation only."""
    errors: int
    details: dict[str, float]


def paired_ratio(ours: Iterable[Measurement], theirs: Iterable[Measurement]) -> Spread | None:
    """Ratios of the rounds that both have."""
    reference = {measurement.round: measurement.value for measurement in theirs if measurement.value > 0}
    ratios = [each.value / reference[each.round] for each in ours if each.round in reference]
    return Spread.of(ratios) if ratios else None


def lines(row: Row, measurements: Sequence[Measurement]) -> list[Line]:
    """The table of one row, in the order in which the proxies were measured."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        if measurement.row == row.id:
            groups.setdefault((measurement.proxy, measurement.variant), []).append(measurement)
    found: list[Line] = []
    for (proxy, variant), group in groups.items():
        ratios: dict[str, Spread] = {}
        others = {name: groups.get((name, variant), []) for name in REFERENCES}
        if variant != row.variants[0].name:
            others["self"] = groups.get((proxy, row.variants[0].name), [])
        for name, other in others.items():
            ratio = paired_ratio(group, other)
            if ratio is not None:
                ratios[name] = ratio
        names = {name for measurement in group for name in measurement.details}
        found.append(
            Line(
                proxy,
                variant,
                Spread.of([each.value for each in group]),
                ratios,
                statistics.median(each.busy for each in group),
                statistics.median(each.requests / each.seconds if each.seconds else 0.0 for each in group),
                sum(each.errors for each in group),
                {
                    name: statistics.median(each.details[name] for each in group if name in each.details)
                    for name in sorted(names)
                },
            )
        )
    return found


def verdict(target: Target, row: Row, table: Sequence[Line]) -> str | None:
    """One sentence on a target, or None when what it needs was not measured."""
    by_name = {(line.proxy, line.variant): line for line in table}
    line = by_name.get((target.proxy, row.variants[-1].name))
    if line is None:
        return None
    reference: Line | None = line
    if target.versus == "value":
        spread, what = line.value, f"{target.proxy} {row.unit}"
    elif target.versus in line.ratios:
        itself = target.versus == "self"
        reference = by_name.get((target.proxy if itself else target.versus, row.variants[0 if itself else -1].name))
        spread = line.ratios[target.versus]
        what = f"{target.proxy} / {row.variants[0].name if itself else target.versus}"
    else:
        return None
    reached = spread.median
    involved = [each for each in (line, reference) if each is not None]
    errors = sum(each.errors for each in involved)
    if errors:
        return f"{row.id}: {what} = {spread.text()}, NOT VALID, {errors} errors"
    outcome = "met" if round(reached, 2) <= target.limit else f"MISSED by {reached - target.limit:.2f}"
    doubt = " (the machine was busy)" if any(each.details.get("others_busy", 0.0) > QUIET for each in involved) else ""
    return f"{row.id}: {what} = {spread.text()}, aim <= {target.limit:.2f}: {outcome}{doubt}"


def verdicts(row: Row, table: Sequence[Line]) -> list[str]:
    """All verdicts of a row."""
    return [text for target in row.targets if (text := verdict(target, row, table)) is not None]


def _cells(row: Row, line: Line) -> list[str]:
    name = f"{line.proxy}, {line.variant}" if line.variant else line.proxy
    cells = [name, line.value.text()]
    cells += [line.ratios[reference].text() if reference in line.ratios else "" for reference in (*REFERENCES, "self")]
    memory = row.unit.startswith("KiB")
    cells += ["" if memory else f"{line.busy:.0%}", "" if memory else f"{line.rate:,.0f}", str(line.errors)]
    cells.append(" ".join(f"{name}={value:.4g}" for name, value in line.details.items()))
    return cells


def rendered_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown that reads well unrendered, too. A column that nobody filled says nothing and is left out."""
    everything = [header, *cells]
    kept = [index for index in range(len(header)) if any(line[index] for line in cells)]
    widths = {index: max(len(line[index]) for line in everything) for index in kept}

    def rendered(line: Sequence[str]) -> str:
        return "| " + " | ".join(line[index].ljust(widths[index]) for index in kept) + " |"

    ruler = "|" + "|".join("-" * (widths[index] + 2) for index in kept) + "|"
    return [rendered(header), ruler, *map(rendered, cells)]


def markdown(row: Row, table: Sequence[Line]) -> str:
    """One row as a section with a table."""
    references = [f"/ {name}" for name in REFERENCES]
    header = ["proxy", row.unit, *references, "/ itself", "busy", "per s", "errors", "medians of details"]
    text = [f"## {row.id}", "", f"{row.title}", "", *rendered_table(header, [_cells(row, line) for line in table]), ""]
    text += [f"- {sentence}" for sentence in verdicts(row, table)]
    return "\n".join(text).rstrip() + "\n"
