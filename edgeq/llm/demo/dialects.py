"""Which dialect a path speaks, and how each is answered: one table, so that all else is the same for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import orjson

from edgeq.llm.demo import (
    chat,
    chat_answer,
    embeddings,
    gemini,
    gemini_answer,
    messages,
    messages_answer,
    openai_errors,
    responses,
)
from edgeq.llm.demo.behaviour import Behaviour
from edgeq.llm.demo.checks import Json
from edgeq.llm.demo.content import Ask, Content
from edgeq.llm.demo.frames import Frame, data, named
from edgeq.llm.message import Failed

OPENAI: Final = "openai"
ANTHROPIC: Final = "anthropic"
GEMINI: Final = "gemini"


@dataclass(frozen=True)
class Operation:
    """What a path does. Either `read` with `whole` and `events`, or `direct`: the whole answer at once."""

    family: str
    read: Callable[[Json, str], Ask]
    whole: Callable[[Ask, Content, Behaviour], Json] | None = None
    events: Callable[[Ask, Content, Behaviour], list[Frame]] | None = None
    direct: Callable[[Json, str], Json] | None = None
    streams: bool | None = None
    """The path says whether it is a stream; None: the body does."""
    counts: bool = True
    """It uses tokens."""


def _chat(body: Json, _model: str) -> Ask:
    return chat.read(body)


def _responses(body: Json, _model: str) -> Ask:
    return responses.read(body)


def _messages(body: Json, _model: str) -> Ask:
    return messages.read(body)


def _counted(body: Json, _model: str) -> Ask:
    return messages.read_counted(body)


CHAT: Final = Operation(OPENAI, _chat, chat_answer.whole, chat_answer.events)
RESPONSES: Final = Operation(OPENAI, _responses, responses.whole, responses.events)
EMBEDDINGS: Final = Operation(
    OPENAI,
    lambda body, _model: embeddings.answer(body)[0],
    direct=lambda body, _model: embeddings.answer(body)[1],
)
MESSAGES: Final = Operation(ANTHROPIC, _messages, messages_answer.whole, messages_answer.events)
COUNT: Final = Operation(
    ANTHROPIC,
    _counted,
    direct=lambda body, _model: {"input_tokens": messages.read_counted(body).input_tokens},
    counts=False,
)
GENERATE: Final = Operation(GEMINI, gemini.read, gemini_answer.whole, gemini_answer.events, streams=False)
STREAM: Final = Operation(GEMINI, gemini.read, gemini_answer.whole, gemini_answer.events, streams=True)
GEMINI_COUNT: Final = Operation(
    GEMINI,
    gemini.read_counted,
    direct=lambda body, model: {"totalTokens": gemini.read_counted(body, model).input_tokens},
    counts=False,
)
EMBED: Final = Operation(
    GEMINI,
    lambda body, model: gemini_answer.embed(body, model)[0],
    direct=lambda body, model: gemini_answer.embed(body, model)[1],
)
EMBED_BATCH: Final = Operation(
    GEMINI,
    lambda body, model: gemini_answer.embed_batch(body, model)[0],
    direct=lambda body, model: gemini_answer.embed_batch(body, model)[1],
)

_ENDINGS: Final = (
    ("/chat/completions", CHAT),
    ("/responses", RESPONSES),
    ("/embeddings", EMBEDDINGS),
    ("/messages", MESSAGES),
    ("/messages/count_tokens", COUNT),
)
_GEMINI: Final = {
    "generateContent": GENERATE,
    "streamGenerateContent": STREAM,
    "countTokens": GEMINI_COUNT,
    "embedContent": EMBED,
    "batchEmbedContents": EMBED_BATCH,
}


def find(path: str) -> tuple[Operation, str] | None:
    """The operation of a path, and the model if the path names it. What stands before does not matter ("/v1",
    "/openai/deployments/NAME")."""
    for ending, operation in _ENDINGS:
        if path.endswith(ending):
            return operation, ""
    _, models, rest = path.partition("/models/")
    model, colon, method = unquote(rest).rpartition(":")
    if models and colon and method in _GEMINI:
        return _GEMINI[method], model
    return None


def family_of(path: str, anthropic: bool) -> str:
    """Whose errors a path without an operation has."""
    if path.startswith("/v1beta"):
        return GEMINI
    return ANTHROPIC if anthropic else OPENAI


def error_body(family: str, failed: Failed, retry_after_s: float, request_id: str) -> bytes:
    """The body of a refusal."""
    if family == ANTHROPIC:
        return orjson.dumps(messages_answer.error_object(failed, request_id))
    if family == GEMINI:
        return orjson.dumps(gemini_answer.error_object(failed, retry_after_s), option=orjson.OPT_INDENT_2)
    return openai_errors.error_body(failed)


def error_frame(operation: Operation, failed: Failed, index: int) -> Frame:
    """An error in the middle of a stream, after `index` events."""
    if operation.family == ANTHROPIC:
        return named("error", messages_answer.error_object(failed))
    if operation.family == GEMINI:
        return data(gemini_answer.error_object(failed, 0))
    if operation is RESPONSES:
        value: dict[str, Any] = {"type": "error", "code": "server_error", "message": failed.message, "param": None}
        return named("error", {**value, "sequence_number": index})
    return data(openai_errors.error_object(failed))
