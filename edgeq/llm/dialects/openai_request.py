"""A request for a chat completion: OpenAI's JSON <-> Request.

Source: shared reference, llm.md 4.1; openai/openai-python, types/chat/completion_create_params.py.

Compatible servers are older than OpenAI's own models: what only those want (max_completion_tokens), or refuse
(reasoning_effort), goes by the name of the model.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import (
    ANTHROPIC,
    OPENAI,
    RESPONSES,
    TEXT_OR_LIST,
    as_object,
    count_at,
    flag_at,
    list_at,
    number_at,
    object_at,
    text_at,
)
from edgeq.llm.dialects.openai_content import decode_messages, encode_messages
from edgeq.llm.dialects.openai_tools import NOT_STRICT, decode_tools, encode_tools
from edgeq.llm.dialects.schemas import is_strict
from edgeq.llm.message import Request, Unmappable

if TYPE_CHECKING:
    from edgeq.llm.message import Losses

_READ: Final = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "user",
        "safety_identifier",
        "service_tier",
        "n",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "metadata",
        "functions",
        "function_call",
        "top_k",
    ]
)
"""What has an attribute of its own. top_k is not OpenAI's, but most compatible servers know it by that name."""

_SHARED: Final = frozenset(("store", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "verbosity"))
"""Extras that OpenAI's responses call the same."""

_EFFORTS: Final = frozenset(("none", "minimal", "low", "medium", "high", "xhigh", "max"))


def decode_request(body: bytes) -> Request:
    """Raises: Unmappable for what is no request for a chat completion, with the parameter."""
    asked = as_object(body)
    if "functions" in asked or "function_call" in asked:
        raise Unmappable("functions", "functions cannot be translated: use tools, which replaced them")
    request = Request(text_at(asked, "model", "model"), dialect=OPENAI)
    if not isinstance(asked.get("messages"), list):
        raise Unmappable("messages", "messages must be a list")
    request.messages = decode_messages(asked, request)
    request.stream = flag_at(asked, "stream", "stream") is True
    _decode_sampling(asked, request)
    decode_tools(asked, request)
    _decode_format(asked, request)
    options = object_at(asked, "stream_options", "stream_options")
    if options is not None:
        request.wants_usage = flag_at(options, "include_usage", "stream_options.include_usage") is True
    decode_user(asked, request)
    request.service_tier = text_at(asked, "service_tier", "service_tier")
    request.metadata = object_at(asked, "metadata", "metadata")
    for name, value in asked.items():
        if name not in _READ and value is not None and not _says_nothing(name, value):
            request.extra[name] = value
    return request


def _says_nothing(name: str, value: Any) -> bool:
    """What the absence of the parameter means, too."""
    return (name == "store" and value is False) or (name == "modalities" and value == ["text"])


def _decode_sampling(asked: dict[str, Any], request: Request) -> None:
    """How long, how random, how many."""
    limits = (
        count_at(asked, "max_completion_tokens", "max_completion_tokens", 1),
        count_at(asked, "max_tokens", "max_tokens", 1),
    )
    request.max_tokens = max((limit for limit in limits if limit is not None), default=None)
    request.temperature = number_at(asked, "temperature", "temperature", 0.0, 2.0)
    request.top_p = number_at(asked, "top_p", "top_p", 0.0, 1.0)
    request.top_k = count_at(asked, "top_k", "top_k", -1)
    stop = asked.get("stop")
    stops = [stop] if isinstance(stop, str) else list_at(asked, "stop", "stop", TEXT_OR_LIST)
    for one in stops:
        if not isinstance(one, str):
            raise Unmappable("stop", "stop must be a string or a list of strings")
    request.stop = stops
    n = count_at(asked, "n", "n", 1)
    if n is not None:
        request.n = n
    request.seed = count_at(asked, "seed", "seed", -(2**63))
    request.frequency_penalty = number_at(asked, "frequency_penalty", "frequency_penalty", -2.0, 2.0)
    request.presence_penalty = number_at(asked, "presence_penalty", "presence_penalty", -2.0, 2.0)
    request.logprobs = flag_at(asked, "logprobs", "logprobs") is True
    request.top_logprobs = count_at(asked, "top_logprobs", "top_logprobs", 0)
    request.logit_bias = object_at(asked, "logit_bias", "logit_bias")
    effort = text_at(asked, "reasoning_effort", "reasoning_effort")
    if effort and effort not in _EFFORTS:
        raise Unmappable("reasoning_effort", "reasoning_effort must be one of " + ", ".join(sorted(_EFFORTS)))
    request.effort = effort


def _decode_format(asked: dict[str, Any], request: Request) -> None:
    """response_format."""
    wanted = object_at(asked, "response_format", "response_format")
    if wanted is None:
        return
    schema = object_at(wanted, "json_schema", "response_format.json_schema")
    if schema is None and wanted.get("type") == "json_schema":
        raise Unmappable("response_format.json_schema", "response_format.json_schema is missing")
    decode_format(wanted, "response_format", schema or {}, "response_format.json_schema", request)


def decode_format(wanted: dict[str, Any], at: str, schema: dict[str, Any], schema_at: str, request: Request) -> None:
    """Text, JSON, or JSON by a schema, which lies somewhere else in OpenAI's other dialect. Raises: Unmappable."""
    kind = text_at(wanted, "type", f"{at}.type")
    if kind == "json_object":
        request.response_format = "json"
    elif kind == "json_schema":
        request.response_format = "schema"
        request.schema_name = text_at(schema, "name", f"{schema_at}.name")
        request.schema = object_at(schema, "schema", f"{schema_at}.schema") or {}
        request.schema_strict = flag_at(schema, "strict", f"{schema_at}.strict") is True
        if schema.get("description"):
            request.extra[f"{schema_at}.description"] = schema["description"]
    elif kind != "text":
        raise Unmappable(f"{at}.type", f"{at}.type must be text, json_object or json_schema")


def decode_user(asked: dict[str, Any], request: Request) -> None:
    """Who asks, by its old or its new name. Raises: Unmappable."""
    request.user = text_at(asked, "user", "user")
    safety_identifier = text_at(asked, "safety_identifier", "safety_identifier")
    if not request.user:
        request.user = safety_identifier
    elif safety_identifier and safety_identifier != request.user:
        request.extra["safety_identifier"] = safety_identifier


def encode_request(request: Request, losses: Losses, max_tokens: int) -> bytes:
    """`request.model` is the provider's name for it; a stream is always asked for its usage. max_tokens is not needed:
    this dialect has a limit of its own where none is told.

    Raises: Unmappable for what it cannot say, if that is not allowed, or if an answer would miss its question.
    """
    asked: dict[str, Any] = {"model": request.model, "messages": encode_messages(request, losses)}
    is_openai = is_of_openai(request.model)
    if request.stream:
        asked["stream"] = True
        asked["stream_options"] = {"include_usage": True}
    if request.max_tokens is not None:
        asked["max_completion_tokens" if is_openai else "max_tokens"] = request.max_tokens
    _encode_sampling(request, losses, asked, is_openai)
    encode_tools(request, losses, asked)
    if request.response_format == "json":
        asked["response_format"] = {"type": "json_object"}
    elif request.response_format == "schema":
        schema: dict[str, Any] = {"name": request.schema_name or "answer", "schema": request.schema or {}}
        if request.schema_strict:
            if request.dialect == ANTHROPIC and not is_strict(schema["schema"]):
                losses.lose("output_config.format.strict", NOT_STRICT)
            else:
                schema["strict"] = True
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.user:
        asked["user"] = request.user
    if request.service_tier:
        asked["service_tier"] = request.service_tier
    if request.metadata is not None:
        if request.dialect == RESPONSES and not request.extra.get("store"):
            losses.lose("metadata", "metadata is only for what is stored (store)")
        else:
            asked["metadata"] = request.metadata
    for name, value in request.extra.items():
        own = request.dialect == OPENAI or (request.dialect == RESPONSES and name in _SHARED)
        if own and "." not in name:
            asked[name] = value
        else:
            losses.lose(name)
    return orjson.dumps(asked)


def _encode_sampling(request: Request, losses: Losses, asked: dict[str, Any], is_openai: bool) -> None:
    takes_sampling = _takes_sampling(request)
    for name, value in (("temperature", request.temperature), ("top_p", request.top_p)):
        if value is None:
            continue
        if takes_sampling:
            asked[name] = value
        elif value != 1.0:  # the default
            losses.lose(name, f"{name} cannot be said to a model that thinks")
    if request.top_k is not None:
        if is_openai:
            losses.lose("top_k")
        else:
            asked["top_k"] = request.top_k
    if request.stop:
        if takes_sampling:
            asked["stop"] = request.stop
        else:
            losses.lose("stop", "stop cannot be said to a model that thinks")
    if request.n > 1:
        asked["n"] = request.n
    if request.seed is not None:
        asked["seed"] = request.seed
    if request.frequency_penalty is not None:
        asked["frequency_penalty"] = request.frequency_penalty
    if request.presence_penalty is not None:
        asked["presence_penalty"] = request.presence_penalty
    if request.logprobs:
        asked["logprobs"] = True
    if request.top_logprobs is not None:
        asked["top_logprobs"] = request.top_logprobs
    if request.logit_bias is not None:
        asked["logit_bias"] = request.logit_bias
    effort = _effort(request)
    if effort:
        if request.model.startswith(_NEVER_THINK):
            if effort != "none":
                losses.lose("reasoning_effort")
        else:
            asked["reasoning_effort"] = effort


_OPENAI: Final = ("gpt-", "chatgpt-", "o1", "o3", "o4")
_NEVER_THINK: Final = ("gpt-3", "gpt-4", "chatgpt-4")
_THINK: Final = re.compile(r"(?:o[134]|gpt-5(\.\d+)?)(?!-chat)(?=-|$)")


def is_of_openai(model: str) -> bool:
    """The model is OpenAI's own by its name; gpt-oss is served by others."""
    return model.startswith(_OPENAI) and not model.startswith("gpt-oss")


def _takes_sampling(request: Request) -> bool:
    """OpenAI's models that think refuse temperature, top_p and stop; from GPT-5.1 on they need not think."""
    thinks = _THINK.match(request.model)
    if thinks is None:
        return True
    return thinks[1] is not None and _effort(request) in ("", "none")


def _effort(request: Request) -> str:
    """As the client says it, or by Google's table of its own OpenAI dialect, read backwards. Nothing is said of a model
    that shall not think: the most do not, and refuse the parameter."""
    thinking_tokens = request.thinking_tokens
    if thinking_tokens == 0:
        return ""
    if request.effort or thinking_tokens is None or thinking_tokens < 0:
        return request.effort
    if thinking_tokens <= 1024:
        return "low"
    return "medium" if thinking_tokens <= 8192 else "high"
