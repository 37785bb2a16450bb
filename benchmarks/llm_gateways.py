"""How each gateway for models is told to do the same: configurations as plain text.

edgeq checks a virtual key, keeps limits of tenant, model and target (high enough to refuse nothing), counts usage and
cost into its store, and writes its access log. LiteLLM checks its master key, without a database: no limits, no costs.
Portkey's gateway has neither in its open edition; the provider is named in header fields. nginx only passes bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from benchmarks.llm_rows import CHAT_PATH, PLAIN_MODEL, TRANSLATED_MODEL, LlmRow
from benchmarks.proxies import Plan, Programs, Scenario, nginx_plan

MASTER_KEY = "sk-Vq8mWz31RtX7pLcD90aKfYeB52hN"
"""Of LiteLLM, which refuses weak ones; it protects nothing."""
PROVIDER_KEY = "sk-mock-0123456789"
PLENTY = 100_000_000
GATEWAYS = ("nginx", "litellm", "portkey", "edgeq")
"""In the order of the table."""
STREAMS = {"litellm": 4, "portkey": 32}
"""Streams at once, for those that could not keep up with all of a row's."""


@dataclass(frozen=True, slots=True)
class LlmPrograms:
    """Where the gateways for models are; empty: not there."""

    litellm: str = ""
    portkey: str = ""
    """Its start-server.js."""
    node: str = ""


def llm_plan(gateway: str, scenario: Scenario, programs: Programs, found: LlmPrograms, store: str) -> Plan:
    """Files, command and environment. `store`: of edgeq's accounts, with a key in it."""
    if gateway == "nginx":
        return nginx_plan(scenario, programs)
    if gateway == "edgeq":
        return edgeq_plan(scenario, programs.edgeq_python, store)
    if gateway == "litellm":
        return litellm_plan(scenario, found.litellm)
    options = ("--headless", f"--port={scenario.port}")
    command = (found.node if found.portkey else "", found.portkey, *options)
    return Plan({}, command, {"NODE_ENV": "production"}, start_timeout_s=60)


def litellm_plan(scenario: Scenario, program: str) -> Plan:
    """LiteLLM: one worker; its price list from its own package, not from the network; it has no access log."""
    origin = f"http://127.0.0.1:{scenario.upstream_port}"
    models = [
        {
            "model_name": PLAIN_MODEL,
            "litellm_params": {"model": f"openai/{PLAIN_MODEL}", "api_base": f"{origin}/v1", "api_key": PROVIDER_KEY},
        },
        {
            "model_name": TRANSLATED_MODEL,
            "litellm_params": {"model": f"anthropic/{PLAIN_MODEL}", "api_base": origin, "api_key": PROVIDER_KEY},
        },
    ]
    document = {
        "model_list": models,
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": MASTER_KEY},
    }
    path = scenario.path("litellm.yaml")  # JSON is YAML
    command = (program, "--config", path, "--host", "127.0.0.1", "--port", str(scenario.port), "--num_workers", "1")
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    return Plan({path: json.dumps(document, indent=1)}, command, environment, start_timeout_s=120)


def edgeq_plan(scenario: Scenario, python: str, store: str) -> Plan:
    """edgeq: everything that has to do with models is on."""
    origin = f"http://127.0.0.1:{scenario.upstream_port}"
    limits = f"{{ requests_per_minute = {PLENTY}, tokens_per_minute = {PLENTY}, concurrent = {PLENTY // 1000} }}"
    price = "{ input = 2.5, output = 10.0, cached = 1.25 }"
    text = f"""
[server]
workers = 1
[[listener]]
address = "127.0.0.1:{scenario.port}"
[accounts]
store = {json.dumps(store)}
[tenant]
key = "key"
[provider.openai]
url = "{origin}/v1"
keys = ["{PROVIDER_KEY}"]
limits = {limits}
[provider.anthropic]
url = "{origin}/v1"
dialect = "anthropic"
keys = ["{PROVIDER_KEY}"]
limits = {limits}
[model.{PLAIN_MODEL}]
targets = [{{ provider = "openai", model = "{PLAIN_MODEL}", price = {price} }}]
limits = {limits}
[model.{TRANSLATED_MODEL}]
targets = [{{ provider = "anthropic", model = "{PLAIN_MODEL}", price = {price} }}]
limits = {limits}
[[route]]
name = "models"
match = {{ path = "/v1/*" }}
llm = {{ limits = {limits} }}
[forward]
via = false
trace = "off"
[access_log]
target = {json.dumps(scenario.log_path)}
[log]
level = "warning"
"""
    path = scenario.path("edgeq.toml")
    # -P keeps the current directory off the module path: the installed, compiled package runs, never the source tree.
    return Plan({path: text}, (python, "-P", "-m", "edgeq", "serve", "--config", path))


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as one gateway wants it."""

    fields: tuple[tuple[str, str], ...]
    body: bytes

    def raw(self) -> bytes:
        """All of it, as bytes."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        return f"POST {CHAT_PATH} HTTP/1.1\r\n{lines}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body

    def script(self) -> str:
        """The same for wrk, in Lua."""
        fields = "".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n" for name, value in self.fields)
        return f"wrk.method = 'POST'\nwrk.body = {lua_text(self.body.decode())}\n{fields}"


def lua_text(text: str) -> str:
    """A text as a literal of Lua's, which has no \\uXXXX."""
    assert "]==]" not in text
    return f"[==[{text}]==]"


def llm_ask(gateway: str, row: LlmRow, upstream_port: int, key: str) -> Ask:
    """The request of a row. `key`: edgeq's virtual key."""
    body = row.body()
    fields = [
        ("Host", "llm.example"),
        ("User-Agent", "OpenAI/Python 3.57.0"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("Content-Type", "application/json"),
        ("X-Stainless-Lang", "python"),
        ("X-Stainless-Retry-Count", "0"),
    ]
    if gateway in ("nginx", "portkey", "direct"):
        body = body.replace(TRANSLATED_MODEL.encode(), PLAIN_MODEL.encode())
        key = PROVIDER_KEY
    if gateway == "litellm":
        key = MASTER_KEY
    if gateway == "portkey":
        provider = "anthropic" if row.model == TRANSLATED_MODEL else "openai"
        fields += [
            ("x-portkey-provider", provider),
            ("x-portkey-custom-host", f"http://127.0.0.1:{upstream_port}/v1"),
        ]
    return Ask((*fields, ("Authorization", f"Bearer {key}")), body)
