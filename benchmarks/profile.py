"""Where the time of one proxy goes during a row: the symbols that perf finds most often.

Samples all processes of the proxy while the load of a row runs, and prints the share of each symbol and of each part
(kernel, program, libraries). perf knows compiled functions by name (mypyc's begin with CPyDef_); of interpreted code it
sees only the interpreter. For Python functions use py-spy, if it is installed: --tool py-spy.

Example:
    python -m benchmarks.profile --proxy edgeq --row small --seconds 5 --top 40
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence

from benchmarks import accounting_io, environment_io, loads_io, processes_io
from benchmarks.compare import DESCRIPTORS, Comparison, Instance, interrupt
from benchmarks.processes_io import LOAD_CORE, DidNotStart
from benchmarks.proxies import PLANS
from benchmarks.rows import ROWS, MemoryLoad, Row


def perf_report(data: str, sort: str, top: int) -> list[str]:
    """The first lines of a report without its comments."""
    command = ["perf", "report", "--stdio", "--no-children", "-g", "none", "--sort", sort, "-i", data]
    found = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    kept = [line.rstrip() for line in found.stdout.splitlines() if line.strip() and not line.startswith("#")]
    return kept[:top] or [found.stderr.strip()[-400:]]


def record_with_perf(pids: Sequence[int], seconds: float, data: str, frequency: int) -> None:
    """Sample the processes for a while."""
    joined = ",".join(str(pid) for pid in pids)
    # cpu-clock: virtual machines often have no counters of the processor.
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(frequency), "-p", joined, "-o", data]
    found = subprocess.run([*command, "--", "sleep", str(seconds)], capture_output=True, text=True, check=False)
    if not os.path.exists(data):
        sys.exit(f"profile: perf: {found.stderr.strip()[-400:]}")


def record_with_py_spy(pids: Sequence[int], seconds: float, top: int) -> None:
    """Sample the busiest process's Python stacks and print the functions that were on top."""
    busiest = max(pids, key=accounting_io.ticks_of)
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as raw:
        command = ["py-spy", "record", "-p", str(busiest), "-d", str(round(seconds)), "-r", "500", "-f", "raw"]
        subprocess.run([*command, "-o", raw.name], check=True, capture_output=True)
        counts: dict[str, int] = {}
        for line in raw:
            stack, _, samples = line.rpartition(" ")
            function = stack.split(";")[-1]
            counts[function] = counts.get(function, 0) + int(samples)
    total = sum(counts.values()) or 1
    for name, count in sorted(counts.items(), key=lambda item: -item[1])[:top]:
        print(f"{count / total:7.2%}  {name}")


def profile(instance: Instance, row: Row, comparison: Comparison, options: argparse.Namespace) -> None:
    """Put the row's load on the proxy and sample it meanwhile."""
    directory = comparison.directory
    loading = threading.Thread(
        target=comparison.load, args=(row, instance, options.seconds + 3, directory), daemon=True
    )
    loading.start()
    # The first second fills caches and opens connections; it is not what the row measures.
    loading.join(1.5)
    pids = accounting_io.processes_of(instance.process.pid)
    if options.tool == "py-spy":
        record_with_py_spy(pids, options.seconds, options.top)
    else:
        data = os.path.join(directory, "perf.data")
        record_with_perf(pids, options.seconds, data, options.frequency)
        for title, sort, top in (("parts", "dso", 12), ("symbols", "symbol,dso", options.top)):
            print(f"\n{title} of {instance.name}, row {row.id}\n" + "\n".join(perf_report(data, sort, top)))
    loading.join()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = {row.id: row for row in ROWS if not isinstance(row.load, MemoryLoad)}
    parser.add_argument("--proxy", choices=PLANS, default="edgeq")
    parser.add_argument("--row", choices=rows, default="small")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--frequency", type=int, default=1999, help="samples per second (default: %(default)s)")
    parser.add_argument("--top", type=int, default=40, help="symbols to print (default: %(default)s)")
    parser.add_argument("--tool", choices=("perf", "py-spy"), default="perf")
    parser.add_argument("--edgeq-python", default=str(environment_io.BENCH / "bin/python"))
    parser.add_argument("--edgeq-pure-python", default=str(environment_io.PURE / "bin/python"))
    options = parser.parse_args(argv)
    missing = [tool for tool in (options.tool, "wrk", "taskset", "openssl") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"profile: install {', '.join(missing)} first")
    signal.signal(signal.SIGTERM, interrupt)
    environment_io.isolate()
    environment_io.ensure_environment()
    programs = environment_io.programs(options.edgeq_python, options.edgeq_pure_python)
    processes_io.raise_descriptor_limit(DESCRIPTORS)
    os.sched_setaffinity(0, {LOAD_CORE})
    row = rows[options.row]
    with tempfile.TemporaryDirectory(prefix="edgeq-profile-") as directory, contextlib.ExitStack() as stack:
        comparison = Comparison(programs, 1, options.seconds, directory)
        try:
            with comparison.one(stack, row, options.proxy) as instance:
                profile(instance, row, comparison, options)
        except (DidNotStart, loads_io.LoadFailed) as error:
            sys.exit(f"profile: {error}")
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
