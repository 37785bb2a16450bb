"""What is measured of gateways for models: rows as in rows.py, with the request and how the provider behaves.

The provider is `edgeq demo-llm`, whose answers are made in advance. nginx does as a plain proxy what a gateway cannot
do with less: it passes the bytes, without key, limit or count; where others translate, it passes a stream of the same
length on as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from benchmarks.rows import SSE_EVENTS, SSE_GAP_S, Row, StreamLoad, Target, WrkLoad

CHAT_PATH = "/v1/chat/completions"
PLAIN_MODEL = "demo"
TRANSLATED_MODEL = "demo-claude"
"""Behind gateways that translate, one of Anthropic's dialect."""
LARGE_MODEL = "large"
"""Of peer_stamps_io.py: its events are long."""
FIRST_TOKEN = "first-token"
MARK = '"content":'
"""In each event of a chat that brings text; in the first one, too, where its text is empty."""


@dataclass(frozen=True, slots=True)
class LlmRow:
    """A row, what is asked in it, and how the provider shall behave (directives of `edgeq demo-llm`)."""

    row: Row
    behave: str
    model: str = PLAIN_MODEL
    stream: bool = True

    def body(self) -> bytes:
        """The request's body: what a chat of a few turns has, about 600 bytes."""
        turns = [
            {"role": "system", "content": "You are terse. You answer in one paragraph, without lists or headings."},
            {"role": "user", "content": "What is a queue, and why does its length tell more than its speed?" * 2},
            {"role": "assistant", "content": "A queue is where work waits; its length is arrivals minus departures."},
            {"role": "user", "content": "And what should a server say to who comes when it is full?"},
        ]
        asked: dict[str, object] = {"model": self.model, "messages": turns, "max_tokens": 256, "temperature": 0.2}
        return json.dumps({**asked, "stream": True} if self.stream else asked).encode()


LLM_ROWS = (
    LlmRow(
        Row(
            "whole",
            "whole answers of 64 tokens, 32 connections; edgeq and LiteLLM check a key, edgeq keeps limits and usage",
            WrkLoad("same", 32, CHAT_PATH),
            500,
            (Target("edgeq", "nginx", 3.0), Target("edgeq", "litellm", 0.01), Target("edgeq", "portkey", 0.05)),
            upstream="python",
        ),
        "tokens=64",
        stream=False,
    ),
    LlmRow(
        Row(
            "stream",
            f"streams of {SSE_EVENTS} tokens, one each {SSE_GAP_S * 1000:g} ms; same dialect",
            StreamLoad(128),
            0,
            (Target("edgeq", "nginx", 2.0), Target("edgeq", "litellm", 0.01), Target("edgeq", "portkey", 0.05)),
            upstream="python",
            streaming=True,
            unit="us/answer",
        ),
        f"tokens={SSE_EVENTS},rate={1 / SSE_GAP_S:g}",
    ),
    LlmRow(
        Row(
            "translated",
            "the same, from a provider of Anthropic's dialect to a client of OpenAI's (nginx: as in the row before)",
            StreamLoad(128),
            0,
            (Target("edgeq", "nginx", 8.0), Target("edgeq", "litellm", 0.01), Target("edgeq", "portkey", 0.05)),
            upstream="python",
            streaming=True,
            unit="us/answer",
        ),
        f"tokens={SSE_EVENTS},rate={1 / SSE_GAP_S:g}",
        TRANSLATED_MODEL,
    ),
    LlmRow(
        Row(
            FIRST_TOKEN,
            "time to the first token of a stream beyond the provider's own, 99th percentile, at half of what it can do "
            "(nginx: at edgeq's rate); the provider is nginx with an answer made in advance",
            WrkLoad("same", 32, CHAT_PATH),
            500,
            (Target("edgeq", "value", 1.0),),
            upstream="python",
            streaming=True,
            unit="ms",
        ),
        "tokens=8",
    ),
)
