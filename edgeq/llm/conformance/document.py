"""The tables for people, in Markdown: docs/llm-dialects.md."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.conformance.answers import CHAT_ANSWERS, MESSAGE_ANSWERS
from edgeq.llm.conformance.chat import CHAT_TO_MESSAGES
from edgeq.llm.conformance.gemini import CHAT_TO_GEMINI, GEMINI_ANSWERS, PIECES
from edgeq.llm.conformance.messages import MESSAGES_TO_CHAT
from edgeq.llm.conformance.responses import CHAT_ANSWERS_THERE, CHUNKS_THERE, RESPONSES_TO_CHAT
from edgeq.llm.conformance.streams import CHUNKS, DONE, EVENTS

if TYPE_CHECKING:
    from edgeq.llm.conformance.row import Row, StreamTable, Table

PAGE: Final = "docs/llm-dialects.md"

REQUESTS: Final[tuple[Table, ...]] = (CHAT_TO_MESSAGES, MESSAGES_TO_CHAT, RESPONSES_TO_CHAT, CHAT_TO_GEMINI)
ANSWERS: Final[tuple[Table, ...]] = (CHAT_ANSWERS, MESSAGE_ANSWERS, CHAT_ANSWERS_THERE, GEMINI_ANSWERS)
STREAMS: Final[tuple[StreamTable, ...]] = (CHUNKS, EVENTS, CHUNKS_THERE, PIECES)

_INTRODUCTION: Final = """\
# Dialects

Made by `python -m edgeq.llm.conformance.document > docs/llm-dialects.md`; each row is a test.

A request whose target speaks the client's dialect passes through as it is, but for the model's name. Every other one is
translated, and so is its answer. What the target's dialect cannot say is

- **dropped** if the route is `mode = "lenient"`, and named in the answer's `x-edgeq-dropped`; **refused** with 400 and
  the parameter's name if it is `mode = "strict"`, with the place that it has in each list (`messages[3].name`);
- **always refused** where an answer without it would be to another question: content of the user that the model would
  not see, functions in place of tools.

"The default" and the like need no word: the answer is the same. An example is put into the smallest request, answer or
stream that there is, and the result is what is different then. Dialects: `openai` is chat completions, `anthropic`
messages, `responses` OpenAI's responses, which only clients speak, `gemini` generateContent, which only providers do.
"""


def document() -> str:
    """The page."""
    lines = [_INTRODUCTION]
    for title, tables in (("Requests", REQUESTS), ("Answers", ANSWERS)):
        for table in tables:
            lines += [f"## {title}: {table.source} to {table.target}", ""]
            lines += ["| field | example | becomes | |", "|---|---|---|---|"]
            lines += [_line((row.name, _json(row.example), _outcome(row), row.note)) for row in table.rows]
            lines.append("")
    for stream in STREAMS:
        lines += [f"## Streams: {stream.source} to {stream.target}", ""]
        lines += ["| event | example | becomes | |", "|---|---|---|---|"]
        for row in stream.rows:
            becomes = "<br>".join(map(_json, row.becomes)) or "nothing"
            lines.append(_line((row.name, "<br>".join(map(_json, row.example)), becomes, row.note)))
        lines.append("")
    return "\n".join(lines)


def _outcome(row: Row) -> str:
    if row.refused:
        return f"always refused: `{row.refused}`"
    becomes = _json(row.becomes) if row.becomes else ""
    if row.lost:
        return f"{becomes}<br>dropped or refused: `{row.lost}`".removeprefix("<br>")
    return becomes or "nothing"


def _json(value: dict[str, Any]) -> str:
    text = "[DONE]" if value == DONE else orjson.dumps(value).decode()
    return "`" + text.replace("|", "\\|") + "`"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(document())
