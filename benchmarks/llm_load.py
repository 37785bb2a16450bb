"""Show what edgeq does as a gateway for models under load: limits of tokens that hold, a provider's limit that is used
and not passed, thousands of streams on one worker, clients that leave.

Provider (`edgeq demo-llm`, or one whose events tell when they were written) and clients are on processor 1, edgeq with
one worker on processor 0, with more on both. The rows are in llm_load_rows.py; README.md beside explains the figures.

Example:
    python -m benchmarks.llm_load --rows limits,leaving --quick
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import environment_io, loads_io, processes_io
from benchmarks.compare import DESCRIPTORS, chosen, interrupt, say
from benchmarks.llm_load_report import FIGURES, Result, markdown, verdicts
from benchmarks.llm_load_rows import ROWS, LoadRow, Programs, Scale
from benchmarks.processes_io import LOAD_CORE, DidNotStart

FULL = Scale(seconds=60.0, warm_s=30.0, streams=2000, slow=100)
QUICK = Scale(seconds=10.0, warm_s=20.0, streams=200, slow=10)


def play(row: LoadRow, programs: Programs, scale: Scale, results: list[Result], notes: list[str]) -> None:
    """Play a row in all of its ways; what cannot be played is noted."""
    say(f"row {row.id}: {row.title}")
    try:
        for result in row.play(programs, scale):
            results.append(result)
            shown = (
                f"{FIGURES[name].heading} {FIGURES[name].text(value)}"
                for name, value in result.figures.items()
                if name in FIGURES
            )
            say(f"  {result.variant:<24} {', '.join(shown)}")
            for text, count in result.refusals.items():
                say(f"    {count} times: {text}")
            for text in result.left:
                say(f"    left behind: {text}")
    except (DidNotStart, loads_io.LoadFailed, OSError, RuntimeError) as error:
        notes.append(f"{row.id}: not played to its end: {error}")
        say(notes[-1])


def write_results(
    path: Path, rows: Sequence[LoadRow], results: list[Result], notes: list[str], facts: dict[str, dict[str, str]]
) -> None:
    """Keep the run: all figures as JSON, and the tables beside it as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    judged = [text for row in rows for text in verdicts(row.aims, [each for each in results if each.row == row.id])]
    document = {**facts, "verdicts": judged, "notes": notes, "results": [asdict(each) for each in results]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = [f"# Models under load, {facts['run']['date']}", ""]
    for title in ("run", "machine", "versions"):
        text += [f"- {title}: " + "; ".join(f"{name} {value}" for name, value in facts[title].items())]
    text += [""] + [markdown(row.id, row.title, row.aims, results) for row in rows]
    if notes:
        text += ["## Notes", "", *(f"- {note}" for note in notes)]
    path.with_suffix(".md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.llm_load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(row.id for row in ROWS), help="rows to play (all): %(default)s")
    parser.add_argument("--quick", action="store_true", help="short, with few streams: a look, not a measurement")
    parser.add_argument("--out", type=Path, help="JSON file; Markdown goes beside it (results/llm-load-DATE.json)")
    parser.add_argument("--install", action="store_true", help="first install edgeq from this tree, compiled")
    parser.add_argument(
        "--edgeq-python", default=str(environment_io.BENCH / "bin/python"), help="has edgeq (%(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    names = chosen(options.rows, [row.id for row in ROWS], "row")
    if (os.cpu_count() or 1) < 2 or shutil.which("taskset") is None:
        sys.exit("llm_load: two processors are needed, and taskset (util-linux)")
    signal.signal(signal.SIGTERM, interrupt)  # both ways to stop end in the same orderly way
    environment_io.isolate()
    environment_io.ensure_environment()
    if options.install:
        environment_io.install_edgeq(pure=False)
    found = environment_io.programs(options.edgeq_python, "")
    if not found.edgeq_python:
        sys.exit("llm_load: edgeq is needed: --install, or --edgeq-python")
    os.sched_setaffinity(0, {LOAD_CORE})
    started = datetime.datetime.now().astimezone()
    out: Path = options.out or processes_io.ROOT / f"benchmarks/results/llm-load-{started:%Y-%m-%d-%H%M}.json"
    scale = QUICK if options.quick else FULL
    facts = {
        "run": {
            "date": f"{started:%Y-%m-%d %H:%M %z}",
            "seconds": f"{scale.seconds:g}",
            "streams": f"{scale.streams}, {scale.slow} of them slow",
        },
        "machine": environment_io.machine(),
        "versions": environment_io.versions(found, ["edgeq"]),
    }
    results: list[Result] = []
    notes: list[str] = []
    if processes_io.raise_descriptor_limit(DESCRIPTORS) < DESCRIPTORS:
        notes.append(f"fewer than {DESCRIPTORS} open files are allowed; clients may fail to connect")
    rows = [row for row in ROWS if row.id in names]
    interrupted = False
    try:
        for row in rows:
            play(row, Programs(found.edgeq_python, environment_io.peer_python()), scale, results, notes)
            print("\n" + markdown(row.id, row.title, row.aims, results), flush=True)
    except KeyboardInterrupt:
        interrupted = True
        notes.append("interrupted: what follows was not played")
    if results:
        write_results(out, [row for row in rows if any(each.row == row.id for each in results)], results, notes, facts)
        say(f"written: {out} and {out.with_suffix('.md').name}")
    return 130 if interrupted else 0 if results and not notes else 1


if __name__ == "__main__":
    sys.exit(main())
