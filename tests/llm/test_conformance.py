"""Every field of a dialect becomes what the table says, or is refused as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from edgeq.llm.conformance.chat import CHAT_TO_MESSAGES
from edgeq.llm.conformance.document import ANSWERS, PAGE, REQUESTS, STREAMS, document
from edgeq.llm.conformance.gemini import CHAT_TO_GEMINI
from edgeq.llm.conformance.messages import MESSAGES_TO_CHAT
from edgeq.llm.conformance.responses import RESPONSES_TO_CHAT
from edgeq.llm.conformance.row import Row, StreamRow, StreamTable, Table
from edgeq.llm.conformance.streams import DONE
from edgeq.llm.dialects.table import DIALECTS
from edgeq.llm.message import FAILURE, Losses, Unmappable
from edgeq.llm.sse import EventReader


def translated(table: Table, body: dict[str, Any], losses: Losses) -> dict[str, Any]:
    """A request of the table's source as one of its target."""
    request = DIALECTS[table.source].decode_request(orjson.dumps(body))
    request.model = table.model
    made: dict[str, Any] = orjson.loads(DIALECTS[table.target].encode_request(request, losses, 4096))
    return made


def cases(tables: tuple[Table, ...]) -> list[Any]:
    """A test's arguments for each row."""
    return [
        pytest.param(table, row, id=f"{table.source}-{table.target}-{row.name}")
        for table in tables
        for row in table.rows
    ]


@pytest.mark.parametrize(("table", "row"), cases(REQUESTS))
def test_a_field_of_a_request(table: Table, row: Row) -> None:
    """What is different because of it is what the table says; what is lost is told, and refused if that is strict."""
    body = {**table.base, **row.example}
    if row.refused:
        with pytest.raises(Unmappable) as caught:
            translated(table, body, Losses(strict=False))
        assert re.sub(r"\[\d+\]", "", caught.value.param) == row.refused, "but for which one of a list it is"
        return
    plain = translated(table, table.base, Losses(strict=True))
    losses = Losses(strict=False)
    made = translated(table, body, losses)
    assert {name: value for name, value in made.items() if plain.get(name) != value} == row.becomes
    assert plain.keys() <= made.keys()
    assert losses.dropped == ([row.lost] if row.lost else [])
    if row.lost:
        with pytest.raises(Unmappable) as caught:
            translated(table, body, Losses(strict=True))
        assert re.sub(r"\[\d+\]", "", caught.value.param) == row.lost
    else:
        assert translated(table, body, Losses(strict=True)) == made


@pytest.mark.parametrize(("table", "row"), cases(ANSWERS))
def test_a_field_of_an_answer(table: Table, row: Row) -> None:
    """What is different because of it is what the table says."""
    plain, made = (
        orjson.loads(
            DIALECTS[table.target].encode_answer(DIALECTS[table.source].decode_answer(orjson.dumps(body)), None)
        )
        for body in (table.base, {**table.base, **row.example})
    )
    assert {name: value for name, value in made.items() if plain.get(name) != value} == row.becomes


def as_stream(source: str, events: tuple[dict[str, Any], ...]) -> bytes:
    """Events as the source sends them."""
    out = b""
    for event in events:
        if event == DONE:
            out += b"data: [DONE]\n\n"
        elif source == "anthropic":
            out += b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"
        else:
            out += b"data: " + orjson.dumps(event) + b"\n\n"
    return out


def has_at_least(there: Any, wanted: Any) -> bool:
    """All that is wanted is there."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            name in there and has_at_least(there[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(there) == len(wanted) and all(has_at_least(*pair) for pair in zip(there, wanted, strict=True))
    return bool(there == wanted)


STREAM_CASES = [
    pytest.param(table, row, id=f"{table.source}-{table.target}-{row.name}") for table in STREAMS for row in table.rows
]


@pytest.mark.parametrize(("table", "row"), STREAM_CASES)
def test_an_event_of_a_stream(table: StreamTable, row: StreamRow) -> None:
    """It becomes what the table says, event by event."""
    decoder = DIALECTS[table.source].decoder()
    encoder = DIALECTS[table.target].encoder("m", True, 33, 7)
    encoder.encode(decoder.feed(as_stream(table.source, row.before)))
    out = encoder.encode(decoder.feed(as_stream(table.source, row.example)))
    out += encoder.encode([event for event in decoder.end() if event.kind != FAILURE]) + encoder.end()
    made = [DONE if event.data == b"[DONE]" else orjson.loads(event.data) for event in EventReader().feed(out)]
    assert has_at_least(made, list(row.becomes)), made


# The fields of both requests in the official SDKs: openai 3.57, anthropic 2.14 (its three sampling fields: 0.x; from
# billing_policy on: those of its beta; output_format: of the beta of 0.73, which CrewAI sends).
CHAT_FIELDS = (
    "messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
    "max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed "
    "service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity "
    "web_search_options"
)
MESSAGES_FIELDS = (
    "max_tokens messages model cache_control container diagnostics inference_geo metadata output_config service_tier "
    "speed stop_sequences stream system thinking tool_choice tools user_profile_id workspace_id temperature top_p "
    "top_k billing_policy compaction context_management fallback_credit_token fallbacks mcp_servers thread "
    "output_format"
)
RESPONSES_FIELDS = (
    "access_programs background background_options context_management conversation image include input instructions "
    "max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt "
    "prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store "
    "stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user"
)


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        (CHAT_TO_MESSAGES, CHAT_FIELDS),
        (CHAT_TO_GEMINI, CHAT_FIELDS),
        (MESSAGES_TO_CHAT, MESSAGES_FIELDS),
        (RESPONSES_TO_CHAT, RESPONSES_FIELDS),
    ],
)
def test_no_field_is_forgotten(table: Table, fields: str) -> None:
    """Each field of the official SDK has a row."""
    shown = {field for row in table.rows for field in row.example}
    assert set(fields.split()) <= shown


def test_the_page_is_current() -> None:
    """docs/llm-dialects.md is made from the tables."""
    page = Path(__file__).resolve().parents[2] / PAGE
    assert page.read_text(encoding="utf-8") == document()
