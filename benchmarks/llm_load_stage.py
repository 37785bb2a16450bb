"""What the rows of llm_load.py are played on: a provider, edgeq before it with virtual keys, clients, and somebody who
looks at it meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import loads_io, processes_io
from benchmarks.admin_io import Admin
from benchmarks.llm_gateways import PROVIDER_KEY
from benchmarks.llm_rows import CHAT_PATH, PLAIN_MODEL
from benchmarks.processes_io import LOAD_CORE, PROXY_CORE, Process, free_port
from benchmarks.proxies import Plan

BOTH_CORES = f"{PROXY_CORE},{LOAD_CORE}"
LOOK_EVERY_S = 0.25
SETTLE_S = 15.0
"""Within which nothing may be left of requests that have ended."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one edgeq."""

    workers: int = 1
    provider: str = ""
    """More lines of its table."""
    model: str = ""
    """The same of the model's."""
    models: tuple[str, ...] = (PLAIN_MODEL,)
    tenants: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"bench": ()})
    """Who gets a virtual key, with more words for `edgeq keys create`."""


@dataclass(slots=True)
class Seen:
    """What the clients saw, and what was looked at meanwhile."""

    start: float
    """Monotonic."""
    records: list[Any]
    """See peer_llm_io.py."""
    said: list[str]
    events: dict[str, dict[str, float]]
    looks: list[tuple[float, Any]]
    """Monotonic instants, and what was found."""


def edgeq_plan(python: str, directory: str, port: int, provider_port: int, store: str, settings: Settings) -> Plan:
    """edgeq with everything on that has to do with models."""
    targets = 'targets = [{ provider = "openai", price = { input = 2.5, output = 10.0 } }]'
    models = "\n".join(f"[model.{name}]\n{targets}\n{settings.model}" for name in settings.models)
    text = f"""
[server]
workers = {settings.workers}
admin = {json.dumps(directory + "/admin.sock")}
[[listener]]
address = "127.0.0.1:{port}"
[accounts]
store = {json.dumps(store)}
[tenant]
key = "key"
[provider.openai]
url = "http://127.0.0.1:{provider_port}/v1"
keys = ["{PROVIDER_KEY}"]
{settings.provider}
{models}
[[route]]
name = "models"
match = {{ path = "/v1/*" }}
llm = {{}}
[access_log]
target = {json.dumps(directory + "/access.log")}
[log]
level = "warning"
"""
    path = f"{directory}/edgeq.toml"
    return Plan({path: text}, (python, "-P", "-m", "edgeq", "serve", "--config", path))


def demo_plan(python: str, port: int, *options: str) -> Plan:
    """`edgeq demo-llm`."""
    return Plan({}, (python, "-P", "-m", "edgeq", "demo-llm", "--listen", f"127.0.0.1:{port}", *options))


def request(body: dict[str, Any], key: str) -> str:
    """A whole request, as the SDKs write it."""
    data = json.dumps(body)
    fields = f"Host: llm.example\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
    return f"POST {CHAT_PATH} HTTP/1.1\r\n{fields}Content-Length: {len(data)}\r\n\r\n{data}"


class Stage:
    """One provider, and edgeq before it unless it is played without."""

    def __init__(self, peer: str, directory: str, provider_port: int, port: int) -> None:
        self._peer = peer
        self._directory = directory
        self._provider_port = provider_port
        self.port = port
        """Where clients go."""
        self.edgeq: Process | None = None
        self.keys: dict[str, str] = {}
        """Virtual ones, by tenant."""

    def provider_tells(self) -> dict[str, Any]:
        """Its counts."""
        found: dict[str, Any] = loads_io.get_json(self._provider_port, "/stats")
        return found

    def admin(self) -> Admin:
        """A connection to edgeq's admin socket."""
        return Admin(f"{self._directory}/admin.sock")

    def play(
        self,
        groups: Sequence[dict[str, Any]],
        until_s: float,
        linger_s: float,
        look: Callable[[], Any],
        seed: int = 1,
    ) -> Seen:
        """Let the clients ask, and look at what `look` returns meanwhile. Raises: loads_io.LoadFailed."""
        plan = {"port": self.port, "seed": seed, "until_s": until_s, "linger_s": linger_s, "groups": groups}
        path = Path(self._directory, "clients.json")
        path.write_text(json.dumps(plan), encoding="utf-8")
        with looking(look) as looks:
            command = [self._peer, "-m", "benchmarks.peer_llm_io", str(path)]
            found = loads_io.run_tool(command, until_s + linger_s + 60)
        return Seen(found["start"], found["records"], found["said"], found["events"], looks)

    def left_behind(self) -> list[str]:
        """What is held somewhere for requests, in words."""
        found = []
        admin = self.admin()
        with contextlib.closing(admin):
            for subject, name, counts in (
                ("workers", "slot", ("in_flight",)),
                ("endpoints", "upstream", ("active", "connecting", "waiting")),
                ("queues", "queue", ("depth",)),
                ("targets", "target", ("in_flight", "queued")),
                ("meters", "name", ("in_flight",)),
            ):
                for one in admin.show(subject):
                    found += [f"{subject} {one[name]}: {one[count]} {count}" for count in counts if one[count]]
        told = self.provider_tells()
        opened = told["open"] if "open" in told else sum(each["open"] for each in told.values())
        return found + ([f"provider: {opened} open"] if opened else [])

    def settled(self) -> list[str]:
        """What is left behind once nothing changes any more; empty, as it should be, at once."""
        give_up = time.monotonic() + SETTLE_S
        while (found := self.left_behind()) and time.monotonic() < give_up:
            time.sleep(LOOK_EVERY_S)
        return found


@contextlib.contextmanager
def staged(python: str, peer: str, provider: Callable[[int], Plan], settings: Settings | None) -> Iterator[Stage]:
    """Start a provider and edgeq (None: only the provider), and stop them in the end. Raises: DidNotStart.

    Args: python has edgeq, peer runs the clients; provider makes its plan for a port.
    """
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeq-load-"))
        provider_port = free_port()
        stack.enter_context(
            processes_io.running("provider", provider(provider_port), LOAD_CORE, directory, provider_port)
        )
        stage = Stage(peer, directory, provider_port, provider_port)
        if settings is None:
            stage.keys["bench"] = PROVIDER_KEY
            yield stage
            return
        store = f"{directory}/accounts.sqlite"
        stage.keys = {tenant: make_key(python, store, tenant, *words) for tenant, words in settings.tenants.items()}
        stage.port = free_port()
        plan = edgeq_plan(python, directory, stage.port, provider_port, store, settings)
        core = PROXY_CORE if settings.workers == 1 else BOTH_CORES
        stage.edgeq = stack.enter_context(processes_io.running("edgeq", plan, core, directory, stage.port))
        yield stage


def make_key(python: str, store: str, tenant: str, *words: str) -> str:
    """A virtual key in a store that nobody has open. Raises: DidNotStart."""
    command = [python, "-P", "-m", "edgeq", "keys", "create", "--tenant", tenant, *words, "--store", store, "--json"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if made.returncode:
        raise processes_io.DidNotStart(f"no virtual key could be made: {made.stderr.strip()[-300:]}")
    return str(json.loads(made.stdout)["key"])


@contextlib.contextmanager
def looking(look: Callable[[], Any]) -> Iterator[list[tuple[float, Any]]]:
    """Look again and again, from before the block begins until after it has ended."""
    found = [(time.monotonic(), look())]
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(LOOK_EVERY_S):
            found.append((time.monotonic(), look()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
    found.append((time.monotonic(), look()))
