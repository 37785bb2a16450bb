"""Put more load on gateways than their upstream can take, in open loop, and see how many answers are still in time.

Each row starts one gateway after the other, each with one worker on processor 0 and a fresh upstream of a fixed number
of slots; load and upstream share processor 1. The rows are in overload_rows.py, the configurations in gateways.py, and
README.md beside explains the figures.

Example:
    python -m benchmarks.overload --rows usual-2x,tenant --gateways envoy-adaptive,edgeq --quick
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import accounting_io, environment_io, loads_io, overload_report, processes_io
from benchmarks.arrivals import Outcome, Record
from benchmarks.compare import DESCRIPTORS, chosen, interrupt, say
from benchmarks.gateways import DIRECT, EVERYTHING, GATEWAYS, ONLY_WHERE_NAMED, TENANT_FIELD, Setup, takes_part
from benchmarks.overload_report import FIGURES, Run
from benchmarks.overload_rows import DEADLINE_S, Row, rows
from benchmarks.processes_io import LOAD_CORE, PROXY_CORE, DidNotStart, free_port
from benchmarks.proxies import Plan, Programs

SECONDS, QUICK_SECONDS = 8.0, 3.0
WARM_S, QUICK_WARM_S = 3.0, 1.0
SHOWN = ("in_time", "p50_ms", "refused", "refusal_p99_ms", "late")
"""What is said of a run while the others still run."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Of one run: the upstreams' endpoints, and where the load goes."""

    upstreams: tuple[tuple[int, ...], ...]
    gateway: int

    @property
    def endpoints(self) -> tuple[int, ...]:
        """Those of the upstream that is judged."""
        return self.upstreams[0]


class Overload:
    """One run of the benchmark: what is there, what was measured, what was left out."""

    def __init__(self, programs: Programs, directory: str, seed: int) -> None:
        self.programs = programs
        self.directory = directory
        self.seed = seed
        self.python = environment_io.peer_python()
        self.runs: list[Run] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        say(text)
        if text not in self.notes:
            self.notes.append(text)

    def run(self, row: Row, gateways: Sequence[str]) -> None:
        """Measure one row with all gateways."""
        say(f"row {row.id}: {row.title}")
        for gateway in gateways:
            if not takes_part(gateway, row.upstreams, row.offered):
                continue
            directory = tempfile.mkdtemp(prefix=f"{gateway}-", dir=self.directory)
            try:
                run = self._run(row, gateway, directory)
            except (DidNotStart, loads_io.LoadFailed, OSError) as error:
                self.note(f"{row.id}: {gateway} left out: {error}")
                continue
            finally:
                shutil.rmtree(directory, ignore_errors=True)
            self.runs.append(run)
            shown = (f"{FIGURES[name].heading} {FIGURES[name].text(run.figures.get(name, 0.0))}" for name in SHOWN)
            say(f"  {gateway:<16} {'  '.join(shown)}")
            for doubt in overload_report.doubts(run):
                self.note(doubt)

    def _run(self, row: Row, gateway: str, directory: str) -> Run:
        """Start upstreams and gateway, put the load on it; raises DidNotStart or LoadFailed."""
        with contextlib.ExitStack() as stack:
            endpoints = tuple(tuple(free_port() for _ in upstream.endpoints) for upstream in row.upstreams)
            upstream = upstream_plan(self.python, row, endpoints)
            peer = stack.enter_context(
                processes_io.running("upstream", upstream, LOAD_CORE, directory, endpoints[0][0])
            )
            # Load and upstream must keep their schedules, and every gateway is to have its processor when it needs it.
            processes_io.prefer(peer.pid)
            if gateway == DIRECT:
                return self._measured(row, gateway, Ports(endpoints, endpoints[0][0]), None)
            setup = Setup(free_port(), directory, row.upstreams, endpoints, row.tenants)
            plan = GATEWAYS[gateway](setup, self.programs)
            if not plan.command[0]:
                raise DidNotStart(f"{gateway} is not installed")
            process = stack.enter_context(processes_io.running(gateway, plan, PROXY_CORE, directory, setup.port))
            processes_io.prefer(process.pid)
            return self._measured(row, gateway, Ports(endpoints, setup.port), process.pid)

    def _measured(self, row: Row, gateway: str, ports: Ports, pid: int | None) -> Run:
        started, core = time.monotonic(), accounting_io.core(PROXY_CORE)
        used = accounting_io.processor_time(pid).schedstat_s if pid else 0.0
        plan = load_plan(row, ports, self.seed)
        answer = loads_io.run_tool(
            [self.python, "-m", "benchmarks.peer_arrivals_io", json.dumps(plan)], sum(row.phases) + 60
        )
        elapsed = time.monotonic() - started
        used = accounting_io.processor_time(pid).schedstat_s - used if pid else 0.0
        others = accounting_io.core(PROXY_CORE).busy_s - core.busy_s - used
        everywhere: list[list[dict[str, Any]]] = [
            [loads_io.get_json(port, "/_status") for port in mine] for mine in ports.upstreams
        ]
        seen = everywhere[0]
        texts = answer["refusals"]
        records = [
            Record(at, stream, Outcome(outcome), latency, texts[text], explained)
            for at, stream, outcome, latency, text, explained in answer["records"]
        ]
        found = overload_report.figures(row, records)
        if row.changes and len(ports.endpoints) > 1:
            arrived = [{int(bucket): count for bucket, count in each["arrived"].items()} for each in seen]
            begin, end = (answer["start"] + at for at in row.interval)
            # What happens within the first second is what it takes to notice.
            found["bad_share"] = overload_report.bad_share(arrived, row.changes[0].endpoint, begin + 1, end)
        worked = sum(each["finished"] for upstream in everywhere for each in upstream)
        found["in_vain"] = 1 - sum(record.outcome is Outcome.GOOD for record in records) / max(1, worked)
        if pid:
            found["busy"] = used / elapsed
        found["others_busy"] = max(0.0, others / elapsed)
        found["connections"] = float(answer["opened"])
        found["lag_p99_ms"], found["lag_max_ms"] = answer["lag_p99_s"] * 1000, answer["lag_max_s"] * 1000
        found["upstream_lag_p99_ms"] = max(each["lag_p99_s"] for each in seen) * 1000
        return Run(row.id, gateway, found, overload_report.refusals(row, records))


def upstream_plan(python: str, row: Row, ports: Sequence[Sequence[int]]) -> Plan:
    """One process for all endpoints of all upstreams."""
    described = [
        {"port": port, **asdict(service)}
        for upstream, mine in zip(row.upstreams, ports, strict=True)
        for service, port in zip(upstream.endpoints, mine, strict=True)
    ]
    return Plan({}, (python, "-m", "benchmarks.peer_slots_io", json.dumps(described)))


def load_plan(row: Row, ports: Ports, seed: int) -> dict[str, Any]:
    """What the clients are told (peer_arrivals_io.py); the same seed gives each gateway the same load."""
    streams = [
        {
            "path": stream.path,
            "fields": f"{TENANT_FIELD}: {stream.tenant}\r\n" if stream.tenant else "",
            "rates": list(zip(row.phases, stream.rates, strict=True)),
        }
        for stream in row.streams
    ]
    changes = [
        {
            "at_s": row.begin_of(change.phase),
            "port": ports.endpoints[change.endpoint],
            "path": f"/_set?{change.settings}",
        }
        for change in row.changes
    ]
    return {"port": ports.gateway, "seed": seed, "deadline_s": DEADLINE_S, "streams": streams, "changes": changes}


def write_results(path: Path, overload: Overload, measured: Sequence[Row], facts: dict[str, dict[str, str]]) -> None:
    """Keep the run: all figures as JSON, and the tables beside it as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    judged = [text for row in measured for text in overload_report.verdicts(row, overload.runs)]
    # JSON has no infinity: what never happened is null.
    shown = [
        {
            **asdict(run),
            "figures": {name: value if math.isfinite(value) else None for name, value in run.figures.items()},
        }
        for run in overload.runs
    ]
    document = {**facts, "verdicts": judged, "notes": overload.notes, "runs": shown}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = [f"# Overload, {facts['run']['date']}", ""]
    for title in ("run", "machine", "versions"):
        text += [f"- {title}: " + "; ".join(f"{name} {value}" for name, value in facts[title].items())]
    text += ["", "## Summary", "", overload_report.summary(measured, overload.runs)]
    text += [overload_report.markdown(row, overload.runs) for row in measured]
    if overload.notes:
        text += ["## Notes", "", *(f"- {note}" for note in overload.notes)]
    path.with_suffix(".md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def arguments(argv: Sequence[str] | None, ids: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(ids), help="rows to measure (all): %(default)s")
    parser.add_argument(
        "--gateways", default="", help=f"of {','.join(EVERYTHING)}; without it all but {', '.join(ONLY_WHERE_NAMED)}"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a judged phase (default: %(default)s)")
    parser.add_argument("--warm", type=float, default=WARM_S, help="of the quiet phase before it (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="short phases: a look, not a measurement")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file; Markdown goes beside it (results/overload-DATE.json)")
    parser.add_argument("--install", action="store_true", help="first install edgeq from this tree, compiled")
    parser.add_argument(
        "--edgeq-python", default=str(environment_io.BENCH / "bin/python"), help="has edgeq (%(default)s)"
    )
    options = parser.parse_args(argv)
    if options.quick:
        options.seconds, options.warm = QUICK_SECONDS, QUICK_WARM_S
    if options.seconds < 1 or options.warm <= 0:
        parser.error("--seconds must be at least 1, and --warm more than 0")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    ids = [row.id for row in rows(SECONDS, WARM_S)]
    options = arguments(argv, ids)
    names = chosen(options.rows, ids, "row")
    measured = [row for row in rows(options.seconds, options.warm) if row.id in names]
    gateways = [name for name in EVERYTHING if name not in ONLY_WHERE_NAMED]
    if options.gateways:
        gateways = chosen(options.gateways, EVERYTHING, "gateway")
    if (os.cpu_count() or 1) < 2:
        sys.exit("overload: two processors are needed, one for the gateway and one for load and upstream")
    if shutil.which("taskset") is None:
        sys.exit("overload: install util-linux first, it has taskset")
    signal.signal(signal.SIGTERM, interrupt)  # both ways to stop end in the same orderly way
    environment_io.isolate()
    environment_io.ensure_environment()
    if options.install and any(name.startswith("edgeq") for name in gateways):
        environment_io.install_edgeq(pure=False)
    programs = environment_io.programs(options.edgeq_python, "")
    os.sched_setaffinity(0, {LOAD_CORE})
    started = datetime.datetime.now().astimezone()
    out: Path = options.out or processes_io.ROOT / f"benchmarks/results/overload-{started:%Y-%m-%d-%H%M}.json"
    facts = {
        "run": {
            "date": f"{started:%Y-%m-%d %H:%M %z}",
            "seconds": f"{options.seconds:g}",
            "warm": f"{options.warm:g}",
            "deadline": f"{DEADLINE_S:g} s",
            "seed": str(options.seed),
        },
        "machine": environment_io.machine(),
        "versions": environment_io.versions(programs, ["nginx", "haproxy", "envoy", "edgeq"]),
    }
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="edgeq-overload-") as directory:
        overload = Overload(programs, directory, options.seed)
        if processes_io.raise_descriptor_limit(DESCRIPTORS) < DESCRIPTORS:
            overload.note(f"fewer than {DESCRIPTORS} open files are allowed; clients may fail to connect")
        try:
            for row in measured:
                overload.run(row, gateways)
                print("\n" + overload_report.markdown(row, overload.runs), flush=True)
        except KeyboardInterrupt:
            interrupted = True
            overload.note("interrupted: what follows was not measured")
    if overload.runs:
        kept = [row for row in measured if any(run.row == row.id for run in overload.runs)]
        write_results(out, overload, kept, facts)
        say(f"written: {out} and {out.with_suffix('.md').name}")
    return 130 if interrupted else 0 if overload.runs else 1


if __name__ == "__main__":
    sys.exit(main())
