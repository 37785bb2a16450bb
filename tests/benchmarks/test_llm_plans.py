"""Configurations and requests of the comparison of gateways for models, as text."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.llm_gateways import GATEWAYS, MASTER_KEY, LlmPrograms, llm_ask, llm_plan
from benchmarks.llm_rows import LLM_ROWS, PLAIN_MODEL, TRANSLATED_MODEL, LlmRow
from benchmarks.proxies import Programs, Scenario
from benchmarks.report import REFERENCES
from edgeq.config.load import load_text
from edgeq.llm.demo.behaviour import DEFAULT, parse

PROGRAMS = Programs("nginx", "haproxy", "envoy", "python", "python-pure")
FOUND = LlmPrograms("litellm", "start-server.js", "node")


def scenario(tmp_path: Path) -> Scenario:
    return Scenario(port=18080, upstream_port=19090, directory=str(tmp_path), streaming=True)


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_every_plan_knows_both_ports(gateway: str, tmp_path: Path) -> None:
    """Each gateway listens where it is told, and asks the provider: by its file, or by what a request says."""
    made = llm_plan(gateway, scenario(tmp_path), PROGRAMS, FOUND, "/store")
    asked = llm_ask(gateway, LLM_ROWS[0], 19090, "eq-key").raw().decode()
    text = "\n".join((*made.files.values(), *made.command, asked))
    assert "18080" in text
    assert "19090" in text


def test_edgeq_file_is_a_configuration(tmp_path: Path) -> None:
    """It is checked as `edgeq check` would; key, limits and usage are on."""
    (text,) = llm_plan("edgeq", scenario(tmp_path), PROGRAMS, FOUND, "/store").files.values()
    config = load_text(text, "edgeq.toml").config
    assert set(config.model) == {PLAIN_MODEL, TRANSLATED_MODEL}
    assert config.accounts is not None
    assert config.tenant.key == "key"
    assert tomllib.loads(text)["route"][0]["llm"]["limits"]["tokens_per_minute"] > 0


@pytest.mark.parametrize("row", LLM_ROWS, ids=lambda row: row.row.id)
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_requests_are_whole_and_have_their_key(gateway: str, row: LlmRow) -> None:
    """Only gateways that translate are asked for the other dialect's model by its name."""
    ask = llm_ask(gateway, row, 19090, "eq-key")
    head, _, body = ask.raw().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    key = {"edgeq": "eq-key", "litellm": MASTER_KEY}.get(gateway, "sk-mock")
    assert f"Authorization: Bearer {key}".encode() in head
    asked = json.loads(body)
    assert asked["model"] == (row.model if gateway in ("edgeq", "litellm") else PLAIN_MODEL)
    assert asked.get("stream", False) == row.stream
    assert json.dumps(asked) in ask.script()


@pytest.mark.parametrize("row", LLM_ROWS, ids=lambda row: row.row.id)
def test_rows_name_known_gateways_and_directives(row: LlmRow) -> None:
    """A verdict needs a reference that is shown; the provider must understand what it shall do."""
    parse(row.behave, DEFAULT)
    assert all(target.versus in (*REFERENCES, "value") for target in row.row.targets)
