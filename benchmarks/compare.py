"""Compare edgeq with nginx, HAProxy and Envoy, side by side, in processor time per request.

All proxies of a row run at the same time, each with one worker on processor 0; load and upstream are on processor 1.
Rounds alternate between the proxies (ABCABC...) after one warm-up each. The figures are explained in README.md beside.

Example:
    python -m benchmarks.compare --rows small,tls --proxies nginx,edgeq --rounds 3 --seconds 2
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from benchmarks import accounting_io, environment_io, loads_io, processes_io, report
from benchmarks.processes_io import LOAD_CORE, PROXY_CORE, DidNotStart, Process, free_port
from benchmarks.proxies import ONLY_WHERE_NAMED, PLANS, Plan, Programs, Scenario, upstream_plan
from benchmarks.report import QUIET, Measurement
from benchmarks.rows import KIB, MIB, ROWS, SSE_EVENTS, SSE_GAP_S, MemoryLoad, Row, StreamLoad, Variant, WrkLoad

MAX_MEMORY_ROUNDS = 3
"""Memory is nearly the same in each round, and a round takes half a minute."""
CLOCKS_AGREE = 0.02
"""How far the two clocks of the kernel may differ, beside the ticks' own resolution."""
KEPT = 0.05
"""Connections per request that a proxy may open to the upstream before it is mentioned."""
DESCRIPTORS = 20_000


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@dataclass(frozen=True, slots=True)
class Instance:
    """One running proxy."""

    proxy: str
    variant: Variant
    port: int
    upstream_port: int
    process: Process

    @property
    def name(self) -> str:
        return f"{self.proxy} ({self.variant.name})" if self.variant.name else self.proxy


class Comparison:
    """One run: what is there, what was measured, what was left out."""

    def __init__(self, programs: Programs, rounds: int, seconds: float, directory: str) -> None:
        self.programs = programs
        self.rounds = rounds
        self.seconds = seconds
        self.directory = directory
        self.python = environment_io.peer_python()
        self.certificate, self.key = environment_io.make_certificate(directory)
        self.measurements: list[Measurement] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        say(text)
        if text not in self.notes:
            self.notes.append(text)

    def run(self, row: Row, proxies: Sequence[str]) -> None:
        """Measure one row with all proxies."""
        say(f"row {row.id}: {row.title}")
        directory = os.path.join(self.directory, row.id)
        os.mkdir(directory)
        try:
            with contextlib.ExitStack() as stack:
                upstream_port = self._start_upstream(stack, row, directory)
                if isinstance(row.load, MemoryLoad):
                    self._memory_rounds(row, row.load, proxies, upstream_port, directory)
                else:
                    self._load_rounds(stack, row, proxies, upstream_port, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _start_upstream(self, stack: contextlib.ExitStack, row: Row, directory: str) -> int:
        port = free_port()
        if row.upstream == "static":
            plan = upstream_plan(port, directory, self.programs.nginx, KIB, MIB)
        else:
            arguments = (str(port), str(SSE_EVENTS), str(SSE_GAP_S * 1000))
            plan = Plan({}, (self.python, "-m", "benchmarks.peer_upstream_io", *arguments))
        stack.enter_context(processes_io.running("upstream", plan, LOAD_CORE, directory, port))
        return port

    @contextlib.contextmanager
    def _instance(self, row: Row, proxy: str, variant: Variant, upstream_port: int, parent: str) -> Iterator[Instance]:
        """Start one proxy and check that it does what is asked; raises DidNotStart or LoadFailed."""
        directory = tempfile.mkdtemp(prefix=f"{proxy}-", dir=parent)
        scenario = Scenario(
            port=free_port(),
            upstream_port=upstream_port,
            directory=directory,
            certificate=self.certificate if row.tls else "",
            key=self.key if row.tls else "",
            routes=variant.routes,
            streaming=row.streaming,
            bulk=row.bulk,
            limits=row.limits,
        )
        plan = self.plan(row, proxy, scenario)
        if not plan.command[0]:
            raise DidNotStart(f"{proxy} is not installed")
        with processes_io.running(proxy, plan, PROXY_CORE, directory, scenario.port) as process:
            instance = Instance(proxy, variant, scenario.port, upstream_port, process)
            try:
                negotiated = self.verify(row, variant, instance)
            except loads_io.LoadFailed as error:
                raise loads_io.LoadFailed(f"{error}; it wrote: {process.output_tail()}") from error
            for what, value in negotiated.items():
                self.note(f"{row.id}: {proxy} {what}: {value}")
            yield instance
            if not os.path.exists(scenario.log_path) or os.path.getsize(scenario.log_path) == 0:
                self.note(f"{row.id}: {instance.name} wrote no access log")

    def plan(self, _row: Row, proxy: str, scenario: Scenario) -> Plan:
        """How a proxy is started."""
        return PLANS[proxy](scenario, self.programs)

    def verify(self, row: Row, variant: Variant, instance: Instance) -> dict[str, str]:
        """Check that a proxy does what is asked. Returns what was negotiated; raises LoadFailed."""
        return loads_io.verify(row, variant, instance.port)

    def upstream_accepts(self, instance: Instance) -> int:
        """Connections that the upstream has accepted so far, this question's included; raises LoadFailed."""
        return loads_io.upstream_accepts(instance.upstream_port)

    @contextlib.contextmanager
    def one(self, stack: contextlib.ExitStack, row: Row, proxy: str) -> Iterator[Instance]:
        """One proxy of one row with its upstream, for a look from outside (its last variant)."""
        upstream_port = self._start_upstream(stack, row, self.directory)
        with self._instance(row, proxy, row.variants[-1], upstream_port, self.directory) as instance:
            yield instance

    def load(self, row: Row, instance: Instance, seconds: float, directory: str) -> loads_io.LoadResult:
        """Put the row's load on one proxy; raises LoadFailed."""
        if isinstance(row.load, WrkLoad):
            return loads_io.run_wrk(row, row.load, instance.port, seconds, directory)
        assert isinstance(row.load, StreamLoad)
        return loads_io.run_streams(row.load, instance.port, seconds, self.python)

    def _load_rounds(
        self, stack: contextlib.ExitStack, row: Row, proxies: Sequence[str], upstream_port: int, directory: str
    ) -> None:
        instances: list[Instance] = []
        held: list[loads_io.HeldConnections] = []
        for proxy in proxies:
            for variant in row.variants:
                try:
                    instance = stack.enter_context(self._instance(row, proxy, variant, upstream_port, directory))
                    if variant.held_connections:
                        say(f"  {instance.name}: opening {variant.held_connections} connections")
                        count = variant.held_connections
                        connections = loads_io.HeldConnections(self.python, instance.port, count, row.answer_bytes)
                        stack.callback(connections.close)
                        held.append(connections)
                except (DidNotStart, loads_io.LoadFailed, OSError) as error:
                    self.note(f"{row.id}: {proxy} left out: {error}")
                    break
                instances.append(instance)
        for instance in instances:
            self._window(row, instance, 0, max(1.0, self.seconds / 3), directory)
        for number in range(1, self.rounds + 1):
            for instance in instances:
                measurement = self._window(row, instance, number, self.seconds, directory)
                if measurement is None:
                    continue
                self.measurements.append(measurement)
                rate = measurement.requests / measurement.seconds
                say(
                    f"  round {number}/{self.rounds} {instance.name:<22} {measurement.value:8.2f} {row.unit}"
                    f"  busy {measurement.busy:4.0%}  {rate:9,.0f}/s  errors {measurement.errors}"
                )
        self._note_disturbance(row)
        closed = sum(connections.close() for connections in held)
        if closed:
            self.note(f"{row.id}: {closed} held connections were closed by a proxy")

    def _note_disturbance(self, row: Row) -> None:
        """Say once for a row what makes its figures doubtful."""
        shares = [each.details["others_busy"] for each in self.measurements if each.row == row.id]
        loud = [share for share in shares if share > QUIET]
        if loud:
            text = f"in {len(loud)} of {len(shares)} windows other work took {QUIET:.0%} to {max(loud):.0%}"
            self.note(f"{row.id}: {text} of the proxies' processor; measure again on a quiet machine")
        for line in report.lines(row, self.measurements):
            connects = line.details["upstream_connects"]
            if connects > KEPT:
                self.note(f"{row.id}: {line.proxy} {line.variant}: {connects:.2f} upstream connections per request")

    def _window(self, row: Row, instance: Instance, number: int, seconds: float, directory: str) -> Measurement | None:
        """Load on one proxy, with its processor time before and after."""
        before, load_before = accounting_io.processor_time(instance.process.pid), accounting_io.core(LOAD_CORE)
        core_before = accounting_io.core(PROXY_CORE)
        started = time.monotonic()
        try:
            accepts_before = self.upstream_accepts(instance)
            result = self.load(row, instance, seconds, directory)
            connects = self.upstream_accepts(instance) - accepts_before - 1
        except loads_io.LoadFailed as error:
            self.note(f"{row.id}: {instance.name}, round {number}: {error}")
            return None
        elapsed = time.monotonic() - started
        after, load_after = accounting_io.processor_time(instance.process.pid), accounting_io.core(LOAD_CORE)
        core_after = accounting_io.core(PROXY_CORE)
        used_s = after.schedstat_s - before.schedstat_s
        ticks_s = after.stat_s - before.stat_s
        if before.pids != after.pids:
            self.note(f"{row.id}: {instance.name}, round {number}: its processes changed, the figure is not valid")
            return None
        if abs(used_s - ticks_s) > CLOCKS_AGREE * used_s + 0.02 * len(after.pids):
            self.note(f"{row.id}: {instance.name}, round {number}: clocks differ: {used_s:.3f} s, {ticks_s:.3f} s")
        if not result.requests:
            self.note(f"{row.id}: {instance.name}, round {number}: no request was answered")
            return None
        others = max(0.0, core_after.busy_s - core_before.busy_s - used_s) / elapsed
        details = {
            **result.details,
            "stat_us": ticks_s / result.requests * 1e6,
            "load_core_busy": (load_after.busy_s - load_before.busy_s) / elapsed,
            "others_busy": others,
            "upstream_connects": connects / result.requests,
            "steal_s": core_after.steal_s - core_before.steal_s,
        }
        value = used_s / result.requests * 1e6
        busy = used_s / result.seconds
        names = (row.id, instance.proxy, instance.variant.name)
        return Measurement(*names, number, value, result.requests, result.seconds, busy, result.errors, details)

    def _memory_rounds(
        self, row: Row, load: MemoryLoad, proxies: Sequence[str], upstream_port: int, directory: str
    ) -> None:
        missing: set[str] = set()
        rounds = min(self.rounds, MAX_MEMORY_ROUNDS)
        for number in range(1, rounds + 1):
            for proxy in proxies:
                if proxy in missing:
                    continue
                try:
                    measurement = self._memory(row, load, proxy, number, upstream_port, directory)
                except (DidNotStart, loads_io.LoadFailed, OSError) as error:
                    self.note(f"{row.id}: {proxy} left out: {error}")
                    missing.add(proxy)
                    continue
                self.measurements.append(measurement)
                idle = measurement.details["pss_after_idle"]
                say(
                    f"  round {number}/{rounds} {proxy:<22} {measurement.value:8.2f} {row.unit}"
                    f"  after {load.idle_s:g} s idle {idle:.2f}  errors {measurement.errors}"
                )

    def _memory(
        self, row: Row, load: MemoryLoad, proxy: str, number: int, upstream_port: int, directory: str
    ) -> Measurement:
        """Growth of a fresh proxy's memory by `load.connections` idle connections."""
        with self._instance(row, proxy, row.variants[0], upstream_port, directory) as instance:
            # What a first few thousand requests leave behind belongs to the process, not to its connections.
            loads_io.run_wrk(row, WrkLoad("varied", 32), instance.port, 1, directory)
            time.sleep(1)
            before = accounting_io.memory(instance.process.pid)
            connections = loads_io.HeldConnections(self.python, instance.port, load.connections, row.answer_bytes)
            closed = 0
            try:
                opened = accounting_io.memory(instance.process.pid)
                time.sleep(load.idle_s)
                idle = accounting_io.memory(instance.process.pid)
            finally:
                closed = connections.close()

        def each(after: int, base: int) -> float:
            return (after - base) / load.connections / KIB

        details = {
            "pss_after_idle": each(idle.pss_bytes, before.pss_bytes),
            "rss": each(opened.rss_bytes, before.rss_bytes),
            "rss_after_idle": each(idle.rss_bytes, before.rss_bytes),
            "base_pss_mib": before.pss_bytes / MIB,
        }
        value = each(opened.pss_bytes, before.pss_bytes)
        return Measurement(row.id, proxy, "", number, value, load.connections, load.idle_s, 0.0, closed, details)


def write_results(path: Path, comparison: Comparison, rows: Sequence[Row], facts: dict[str, dict[str, str]]) -> None:
    """Keep the run: every window as JSON, and the tables beside it as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {row.id: report.lines(row, comparison.measurements) for row in rows}
    document = {
        **facts,
        "summary": {name: [asdict(line) for line in table] for name, table in tables.items()},
        "verdicts": [text for row in rows for text in report.verdicts(row, tables[row.id])],
        "notes": comparison.notes,
        "measurements": [asdict(measurement) for measurement in comparison.measurements],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = [f"# Comparison of {facts['run']['date']}", ""]
    for title in ("run", "machine", "versions"):
        text += [f"- {title}: " + "; ".join(f"{name} {value}" for name, value in facts[title].items())]
    text += ["", "Figures are medians of the rounds, with (minimum..maximum).", ""]
    text += [report.markdown(row, tables[row.id]) for row in rows if tables[row.id]]
    if comparison.notes:
        text += ["## Notes", "", *(f"- {note}" for note in comparison.notes)]
    path.with_suffix(".md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """Names of a comma-separated list, in the order of `known`; exits with a clear message for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        sys.exit(f"unknown {what} {', '.join(unknown) or '(none)'}; known: {', '.join(known)}")
    return [name for name in known if name in names]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = ",".join(PLANS)
    parser.add_argument("--rows", default=",".join(row.id for row in ROWS), help="rows to measure (all): %(default)s")
    parser.add_argument(
        "--proxies",
        "--only",
        default="",
        help=f"of {everything}; without it all; nginx-defaults only in the large-* rows, edgeq-pure only in row small",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of a window (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file; Markdown goes beside it (benchmarks/results/DATE.json)")
    parser.add_argument(
        "--install", action="store_true", help="first install edgeq from this tree, compiled and interpreted"
    )
    parser.add_argument(
        "--edgeq-python", default=str(environment_io.BENCH / "bin/python"), help="has edgeq compiled (%(default)s)"
    )
    parser.add_argument(
        "--edgeq-pure-python", default=str(environment_io.PURE / "bin/python"), help="has it interpreted (%(default)s)"
    )
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    return options


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    rows = [row for row in ROWS if row.id in chosen(options.rows, [row.id for row in ROWS], "row")]
    named = chosen(options.proxies, list(PLANS), "proxy") if options.proxies else []
    if (os.cpu_count() or 1) < 2:
        sys.exit("compare: two processors are needed, one for the proxy and one for load and upstream")
    missing = [tool for tool in ("wrk", "taskset", "openssl") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"compare: install {', '.join(missing)} first")
    signal.signal(signal.SIGTERM, interrupt)  # both ways to stop end in the same orderly way
    environment_io.isolate()
    environment_io.ensure_environment()
    if options.install:
        for variant in ("edgeq", "edgeq-pure"):
            if not named or variant in named:
                environment_io.install_edgeq(pure=variant == "edgeq-pure")
    programs = environment_io.programs(options.edgeq_python, options.edgeq_pure_python)
    if not programs.nginx:
        sys.exit("compare: nginx is needed, as the upstream at least")
    os.sched_setaffinity(0, {LOAD_CORE})
    started = datetime.datetime.now().astimezone()
    out: Path = options.out or processes_io.ROOT / f"benchmarks/results/{started:%Y-%m-%d-%H%M}.json"
    facts = {
        "run": {
            "date": f"{started:%Y-%m-%d %H:%M %z}",
            "rounds": str(options.rounds),
            "seconds": f"{options.seconds:g}",
            "proxies": ", ".join(named or PLANS),
        },
        "machine": environment_io.machine(),
        "versions": environment_io.versions(programs, named or list(PLANS)),
    }
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as directory:
        comparison = Comparison(programs, options.rounds, options.seconds, directory)
        allowed = processes_io.raise_descriptor_limit(DESCRIPTORS)
        if allowed < DESCRIPTORS:
            comparison.note(f"only {allowed} open files are allowed; rows with 10,000 connections may fail")
        try:
            for row in rows:
                usual = [name for name in PLANS if name not in ONLY_WHERE_NAMED or name in row.also]
                proxies = named or [name for name in usual if name not in row.without]
                comparison.run(row, proxies)
                table = report.lines(row, comparison.measurements)
                if table:
                    print("\n" + report.markdown(row, table), flush=True)
        except KeyboardInterrupt:
            interrupted = True
            comparison.note("interrupted: the rows that follow were not measured")
        except DidNotStart as error:
            sys.exit(f"compare: the upstream: {error}")
    if comparison.measurements:
        write_results(out, comparison, rows, facts)
        say(f"written: {out} and {out.with_suffix('.md').name}")
    valid = comparison.measurements and not any(measurement.errors for measurement in comparison.measurements)
    return 130 if interrupted else 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
