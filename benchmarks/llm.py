"""Compare edgeq as a gateway for models with LiteLLM, Portkey's gateway, and nginx as a plain proxy.

Measured as in compare.py, whose parts these are: processor time per request, all gateways of a row at the same time on
processor 0 with one worker each, load and provider (`edgeq demo-llm`) on processor 1, rounds that alternate, medians.

Example:
    python -m benchmarks.llm --rows whole,stream --gateways nginx,edgeq --rounds 3 --seconds 2
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import environment_io, loads_io, processes_io, report
from benchmarks.compare import Comparison, Instance, chosen, interrupt, say, write_results
from benchmarks.llm_gateways import GATEWAYS, STREAMS, Ask, LlmPrograms, llm_ask, llm_plan
from benchmarks.llm_rows import CHAT_PATH, FIRST_TOKEN, LLM_ROWS, MARK
from benchmarks.processes_io import LOAD_CORE, free_port
from benchmarks.proxies import Plan, Programs, Scenario, upstream_plan
from benchmarks.report import Measurement
from benchmarks.rows import Row, StreamLoad, Variant, WrkLoad

PRIVATE = processes_io.ROOT / ".venv-bench-llm"
"""LiteLLM, and beside it Portkey's gateway."""
PORTKEY = PRIVATE / "portkey"
PORTKEY_PACKAGES = {
    "private": True,
    "dependencies": {"@portkey-ai/gateway": "1.15.2"},
    # Its range admits 1.19, with which every stream ends in "TypeError: immutable".
    "overrides": {"@hono/node-server": "1.13.8"},
}
KNOWN = "figures of the issue, measured elsewhere: LiteLLM 19 ms a request and 110 ms a stream, Portkey 3 ms and 2 ms"


class LlmComparison(Comparison):
    """A comparison whose rows are requests for models."""

    def __init__(self, programs: Programs, found: LlmPrograms, rounds: int, seconds: float, directory: str) -> None:
        super().__init__(programs, rounds, seconds, directory)
        self.found = found
        self._rows = {each.row.id: each for each in LLM_ROWS}
        self._key = ""
        self._stores = 0
        self._asks: dict[int, Ask] = {}
        """By the gateway's port; the provider's own is among them."""
        self._halves: dict[str, float] = {}
        """Half of what each gateway can do, in requests per second."""

    # -- what compare.py asks for -------------------------------------------------------------------------------------

    def _start_upstream(self, stack: contextlib.ExitStack, row: Row, directory: str) -> int:
        port = free_port()
        if row.id == FIRST_TOKEN:
            # Whoever waits for the provider waits for the same processor as the clients, whom that must not cost much.
            with contextlib.ExitStack() as once:
                self._start_provider(once, row, directory, port)
                stream = self._answer(port, llm_ask("direct", self._rows[row.id], port, ""))[1].decode()
            plan = upstream_plan(port, directory, self.programs.nginx, 0, 0, stream)
            stack.enter_context(processes_io.running("provider", plan, LOAD_CORE, directory, port))
        else:
            self._start_provider(stack, row, directory, port)
        return port

    def _start_provider(self, stack: contextlib.ExitStack, row: Row, directory: str, port: int) -> None:
        options = ("--listen", f"127.0.0.1:{port}", "--behave", self._rows[row.id].behave)
        plan = Plan({}, (self.programs.edgeq_python, "-P", "-m", "edgeq", "demo-llm", *options))
        stack.enter_context(processes_io.running("provider", plan, LOAD_CORE, directory, port))

    def plan(self, row: Row, proxy: str, scenario: Scenario) -> Plan:
        store = scenario.path("accounts.sqlite")
        if proxy == "edgeq":
            self._key = self._make_key(store)
        plan = llm_plan(proxy, scenario, self.programs, self.found, store)
        self._asks[scenario.port] = llm_ask(proxy, self._rows[row.id], scenario.upstream_port, self._key)
        self._asks[scenario.upstream_port] = llm_ask("direct", self._rows[row.id], scenario.upstream_port, "")
        return plan

    def verify(self, row: Row, _variant: Variant, instance: Instance) -> dict[str, str]:
        status, body = self._answer(instance.port, self._asks[instance.port])
        if status != 200:
            raise loads_io.LoadFailed(f"status {status}: {body[:300]!r}")
        if self._rows[row.id].stream:
            if not body.rstrip().endswith(b"data: [DONE]"):
                raise loads_io.LoadFailed(f"a stream ends with {body[-100:]!r}")
        elif json.loads(body)["usage"]["completion_tokens"] != 64:
            raise loads_io.LoadFailed(f"usage is {json.loads(body)['usage']}")
        return {}

    def upstream_accepts(self, _instance: Instance) -> int:
        return 0  # nobody counts; whether connections are kept shows in the figures

    def load(self, row: Row, instance: Instance, seconds: float, directory: str) -> loads_io.LoadResult:
        if isinstance(row.load, WrkLoad):
            return self._wrk(row, row.load, instance.port, seconds, directory)
        assert isinstance(row.load, StreamLoad)
        count = STREAMS.get(instance.proxy, row.load.connections)
        request = (self._request_file(instance.port, directory), MARK)
        return loads_io.run_streams(StreamLoad(count), instance.port, seconds, self.python, request)

    def _window(self, row: Row, instance: Instance, number: int, seconds: float, directory: str) -> Measurement | None:
        if row.id != FIRST_TOKEN:
            return super()._window(row, instance, number, seconds, directory)
        try:
            if number == 0:
                assert isinstance(row.load, WrkLoad)
                result = self._wrk(row, row.load, instance.port, seconds, directory)
                self._halves[instance.name] = max(1.0, result.requests / result.seconds / 2)
                return None
            # nginx could do much more, but not its clients: it shows what a proxy adds at edgeq's rate.
            rate = self._halves["edgeq" if instance.proxy == "nginx" and "edgeq" in self._halves else instance.name]
            alone = self._first_token(instance.upstream_port, rate, seconds, directory)
            behind = self._first_token(instance.port, rate, seconds, directory)
        except (loads_io.LoadFailed, KeyError) as error:
            self.note(f"{row.id}: {instance.name}, round {number}: {error}")
            return None
        details = {
            "rate": rate,
            "p50_added_ms": behind["p50_ms"] - alone["p50_ms"],
            "p50_ms": behind["p50_ms"],
            "p99_ms": behind["p99_ms"],
            "p99_alone_ms": alone["p99_ms"],
            "others_busy": 0.0,
            "upstream_connects": 0.0,
        }
        value = behind["p99_ms"] - alone["p99_ms"]
        answers, errors = int(behind["answers"]), int(behind["errors"])
        names = (row.id, instance.proxy, instance.variant.name)
        return Measurement(*names, number, value, answers, behind["seconds"], 0.0, errors, details)

    def _answer(self, port: int, ask: Ask) -> tuple[int, bytes]:
        """The status and body of the third answer: the first ones of some take seconds. Raises: LoadFailed."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            for _ in range(3):
                connection.request("POST", CHAT_PATH, ask.body, dict(ask.fields))
                answer = connection.getresponse()
                body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise loads_io.LoadFailed(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
        return answer.status, body

    # -- parts --------------------------------------------------------------------------------------------------------

    def _wrk(self, row: Row, load: WrkLoad, port: int, seconds: float, directory: str) -> loads_io.LoadResult:
        script = self._asks[port].script() + loads_io.WRK_REPORT
        url = f"http://127.0.0.1:{port}{CHAT_PATH}"
        return loads_io.run_wrk_script(script, url, load.connections, seconds, row.answer_bytes, directory)

    def _first_token(self, port: int, rate: float, seconds: float, directory: str) -> dict[str, float]:
        arguments = (str(port), self._request_file(port, directory), f"{rate:g}", f"{seconds:g}")
        command = [self.python, "-m", "benchmarks.peer_first_token_io", *arguments]
        found: dict[str, float] = loads_io.run_tool(command, seconds + 60)
        return found

    def _request_file(self, port: int, directory: str) -> str:
        path = Path(directory, f"request-{port}")
        path.write_bytes(self._asks[port].raw())
        return str(path)

    def _make_key(self, store: str) -> str:
        """A virtual key in a new store; empty, and said, if this edgeq has none."""
        words = ("keys", "create", "--tenant", "bench", "--store", store, "--json")
        made = subprocess.run(
            [self.programs.edgeq_python, "-P", "-m", "edgeq", *words], capture_output=True, text=True, check=False
        )
        if made.returncode:
            self.note(f"no virtual key could be made: {made.stderr.strip()[-200:]}")
            return "none"
        return str(json.loads(made.stdout)["key"])


def install(names: Sequence[str]) -> None:
    """LiteLLM and Portkey's gateway, from their registries, into a directory of this project's; what fails is said."""
    if "litellm" in names and not (PRIVATE / "bin" / "litellm").exists():
        print(f"installing litellm[proxy] into {PRIVATE.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PRIVATE)], check=True)
        pip = [str(PRIVATE / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "install", "litellm[proxy]"], check=False).returncode:
            print("litellm could not be installed; it is left out", flush=True)
    if "portkey" in names and not _portkey():
        print(f"installing @portkey-ai/gateway into {PORTKEY.relative_to(processes_io.ROOT)}", flush=True)
        PORTKEY.mkdir(parents=True, exist_ok=True)
        (PORTKEY / "package.json").write_text(json.dumps(PORTKEY_PACKAGES, indent=1) + "\n", encoding="utf-8")
        npm = shutil.which("npm")
        command = [npm or "", "install", "--no-audit", "--no-fund", "--silent"]
        if not npm or subprocess.run(command, check=False, cwd=PORTKEY).returncode:
            print("Portkey's gateway could not be installed; it is left out", flush=True)


def _portkey() -> str:
    path = PORTKEY / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return str(path) if path.exists() else ""


def llm_programs() -> LlmPrograms:
    """What is there of them."""
    litellm = PRIVATE / "bin" / "litellm"
    return LlmPrograms(
        litellm=str(litellm) if litellm.exists() else "", portkey=_portkey(), node=shutil.which("node") or ""
    )


def versions(found: LlmPrograms) -> dict[str, str]:
    """Of the gateways for models."""
    said = {"litellm": "not installed", "portkey": "not installed"}
    if found.litellm:
        command = [str(PRIVATE / "bin" / "python"), "-c", "import importlib.metadata as m; print(m.version('litellm'))"]
        said["litellm"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if found.portkey:
        document = json.loads((Path(found.portkey).parents[1] / "package.json").read_text(encoding="utf-8"))
        said["portkey"] = str(document["version"])
    return said


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.llm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(each.row.id for each in LLM_ROWS), help="default: %(default)s")
    parser.add_argument("--gateways", default=",".join(GATEWAYS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each row (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of a window (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, help="JSON file; Markdown goes beside it (benchmarks/results/llm-DATE.json)"
    )
    parser.add_argument(
        "--install", action="store_true", help="first install edgeq from this tree, compiled, LiteLLM and Portkey"
    )
    parser.add_argument(
        "--edgeq-python", default=str(environment_io.BENCH / "bin/python"), help="has edgeq (%(default)s)"
    )
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    return options


@contextlib.contextmanager
def _quiet_end(comparison: LlmComparison) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        comparison.note("interrupted: the rows that follow were not measured")


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    names = chosen(options.rows, [each.row.id for each in LLM_ROWS], "row")
    gateways = chosen(options.gateways, GATEWAYS, "gateway")
    missing = [tool for tool in ("wrk", "taskset", "openssl", "nginx") if not shutil.which(tool, path=_path())]
    if missing:
        sys.exit(f"llm: install {', '.join(missing)} first")
    signal.signal(signal.SIGTERM, interrupt)
    environment_io.isolate()
    environment_io.ensure_environment()
    if options.install:
        environment_io.install_edgeq(pure=False)
        install(gateways)
    programs = environment_io.programs(options.edgeq_python, "")
    if not programs.edgeq_python:
        sys.exit("llm: edgeq is needed, as the provider at least: --install, or --edgeq-python")
    found = llm_programs()
    os.sched_setaffinity(0, {LOAD_CORE})
    started = datetime.datetime.now().astimezone()
    out: Path = options.out or processes_io.ROOT / f"benchmarks/results/llm-{started:%Y-%m-%d-%H%M}.json"
    facts = {
        "run": {
            "date": f"{started:%Y-%m-%d %H:%M %z}",
            "rounds": str(options.rounds),
            "seconds": f"{options.seconds:g}",
            "gateways": ", ".join(gateways),
        },
        "machine": environment_io.machine(),
        "versions": environment_io.versions(programs, ["nginx", "edgeq"]) | versions(found),
    }
    with tempfile.TemporaryDirectory(prefix="edgeq-bench-") as directory:
        comparison = LlmComparison(programs, found, options.rounds, options.seconds, directory)
        if ("litellm" in gateways and not found.litellm) or ("portkey" in gateways and not found.portkey):
            comparison.note(KNOWN)
        rows = [each.row for each in LLM_ROWS if each.row.id in names]
        with _quiet_end(comparison):
            for row in rows:
                comparison.run(row, gateways)
                table = report.lines(row, comparison.measurements)
                if table:
                    print("\n" + report.markdown(row, table), flush=True)
    if comparison.measurements:
        write_results(out, comparison, rows, facts)
        say(f"written: {out} and {out.with_suffix('.md').name}")
    return 0 if comparison.measurements and not any(each.errors for each in comparison.measurements) else 1


def _path() -> str:
    return environment_io.SYSTEM_PATH


if __name__ == "__main__":
    sys.exit(main())
