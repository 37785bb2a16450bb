"""A request in Gemini's words: generateContent, streamGenerateContent and countTokens.

- Tools and formats are given as `parametersJsonSchema` and `responseJsonSchema`, which take JSON Schema as it is; the
  older `parameters` and `responseSchema` refuse a request for one keyword they do not know.
- Turns alternate between user and model, and all results of a turn's calls stand in the one that follows it, so that
  neighbours of the same role are one content.
- Gemini's signatures travel in THINKING parts, marked (`GEMINI_SIGNATURE`), and go back on the part that follows.
  Gemini 3 refuses the first call of a turn without one; for calls it has not made itself there is a word to say so.

Source: ai.google.dev/api/generate-content and /gemini-api/docs/thought-signatures; google-genai's types.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from edgeq.llm.dialects.base import GEMINI_SIGNATURE, param_of
from edgeq.llm.dialects.turns import arguments_of, some_of, split_system, unsayable
from edgeq.llm.message import (
    DOCUMENT,
    IMAGE,
    OTHER,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Losses,
    Message,
    Part,
    Request,
    Unmappable,
)

_UNSIGNED: Final = "skip_thought_signature_validator"

_BUDGETS: Final[dict[str, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
}
"""Tokens of thought of models before Gemini 3, which count them; Google's own table for OpenAI's reasoning_effort."""

_LEVELS: Final[dict[str, str]] = {
    "none": "minimal",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}

_CHOICES: Final[dict[str, str]] = {"auto": "AUTO", "none": "NONE", "any": "ANY", "tool": "ANY"}

_VERSION: Final = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?")

_RESOURCES: Final = ("models/", "tunedModels/")
"""Names that are whole already."""

_MEDIA_TYPES: Final[dict[str, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "txt": "text/plain",
}
"""Of files that are named by URL: Gemini wants to be told."""


def encode_request(request: Request, losses: Losses, max_tokens: int) -> bytes:
    """The body for generateContent. Whether it streams is said by the path, and its model, too.

    Args: max_tokens is not needed: Gemini has a default of its own.
    Raises: Unmappable.
    """
    return orjson.dumps(_body(request, losses))


def encode_count(request: Request, losses: Losses) -> bytes:
    """The body for countTokens.

    Raises: Unmappable.
    """
    body = _body(request, losses)
    body["model"] = model_name(request.model)
    return orjson.dumps({"generateContentRequest": body})


def model_name(model: str) -> str:
    """As Gemini names its resources: "models/gemini-2.5-flash"."""
    return model if model.startswith(_RESOURCES) else "models/" + model


def _body(request: Request, losses: Losses) -> dict[str, Any]:
    _lose(request, losses)
    names: dict[str, str] = {}
    """Of tools, by the id of their call."""
    new = _is_new(request.model)
    contents: list[dict[str, Any]] = []
    said, turns = split_system(request)
    for turn in turns:
        parts = _parts(turn, names, losses, new)
        if parts:
            contents.append({"role": "model" if turn.role == "assistant" else "user", "parts": parts})
    body: dict[str, Any] = {"contents": some_of(contents)}
    system: list[dict[str, Any]] = []
    for part in said:
        if part.kind == TEXT:
            system.append({"text": part.text})
        else:
            unsayable(part, "system", losses)
    if system:
        body["systemInstruction"] = {"parts": system}
    declarations = _declarations(request, losses)
    config = _config(request, new)
    if declarations and not new and config.pop("responseMimeType", None):
        config.pop("responseJsonSchema", None)
        losses.lose("response_format", "before Gemini 3 a model that may call tools takes no response_format")
    if config:
        body["generationConfig"] = config
    if declarations:
        body["tools"] = [{"functionDeclarations": declarations}]
        body["toolConfig"] = {"functionCallingConfig": _calling(request)}
    return body


def _is_new(model: str) -> bool:
    """Gemini 3 or later: it counts thought in levels, and wants its signatures back."""
    return "gemini-" in model and not ("gemini-1" in model or "gemini-2" in model)


def _knows_minimal(model: str) -> bool:
    """The level below "low": of Flash before 3.7, and of no Pro; who does not know it refuses it."""
    match = _VERSION.search(model)
    return match is not None and "-pro" not in model and (int(match[1]), int(match[2] or 0)) < (3, 7)


def _takes_penalties(model: str) -> bool:
    """Gemini refuses them from 2.5 on."""
    match = _VERSION.search(model)
    if match is None:
        return "gemini" not in model
    return (int(match[1]), int(match[2] or 0)) < (2, 5)


def _lose(request: Request, losses: Losses) -> None:
    """What Gemini cannot say."""
    if request.n > 1:
        losses.lose("n")
    if request.parallel_tools is False:
        losses.lose("parallel_tool_calls")
    if request.logprobs or request.top_logprobs:
        losses.lose("logprobs")
    if not _takes_penalties(request.model):
        if request.frequency_penalty:
            losses.lose("frequency_penalty")
        if request.presence_penalty:
            losses.lose("presence_penalty")
    if request.logit_bias:
        losses.lose("logit_bias")
    if request.user:
        losses.lose("user")
    if request.metadata:
        losses.lose("metadata")
    if request.service_tier not in ("", "auto", "default"):
        losses.lose("service_tier")
    for message in request.messages:
        if message.name:
            losses.lose(f"{message.place or 'messages'}.name")
    for name in request.extra:
        losses.lose(name)


def _parts(turn: Message, names: dict[str, str], losses: Losses, new: bool) -> list[dict[str, Any]]:
    """What one turn says."""
    parts: list[dict[str, Any]] = []
    after: list[dict[str, Any]] = []
    """Images that tools have returned: the results stand together."""
    signature = ""
    unsigned = new
    """No call of this turn has come yet."""
    for part in turn.parts:
        kind = part.kind
        if kind == THINKING:
            # What it has thought need not be told to Gemini again, and what another has thought means nothing to it.
            if part.data.startswith(GEMINI_SIGNATURE):
                signature = part.data[len(GEMINI_SIGNATURE) :]
            continue
        if kind == TOOL_USE:
            names[part.id] = part.name
            said: dict[str, Any] = {"functionCall": {"id": part.id, "name": part.name, "args": arguments_of(part)}}
            if unsigned and not signature:
                signature = _UNSIGNED
            unsigned = False
        elif kind == TOOL_RESULT:
            said = _result(part, names, after, losses)
        elif kind == IMAGE or (kind == DOCUMENT and not part.text):
            said = _media(part, losses)
        elif kind == OTHER:
            unsayable(part, turn.role, losses)
            continue
        elif part.text:
            said = {"text": part.text}
        else:
            continue  # an empty text is refused
        if signature:
            said["thoughtSignature"] = signature
            signature = ""
        parts.append(said)
    parts.extend(after)
    return parts


def _result(part: Part, names: dict[str, str], after: list[dict[str, Any]], losses: Losses) -> dict[str, Any]:
    name = part.name or names.get(part.id, "")
    if not name:
        raise Unmappable(param_of(part, "tool_call_id"), f"there is no call {part.id} before its result")
    texts: list[str] = []
    for inner in part.parts:
        if inner.kind == IMAGE or (inner.kind == DOCUMENT and not inner.text):
            after.append(_media(inner, losses))
        elif inner.kind == OTHER:
            unsayable(inner, "user", losses)
        else:
            texts.append(inner.text)
    key = "error" if part.is_error else "output"
    return {"functionResponse": {"id": part.id, "name": name, "response": {key: "".join(texts)}}}


def _media(part: Part, losses: Losses) -> dict[str, Any]:
    if part.detail not in ("", "auto"):
        losses.lose(param_of(part, "image_url.detail"))
    if not part.url:
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    media_type = part.media_type
    if not media_type:
        suffix = part.url.partition("?")[0].rpartition(".")[2].lower()
        media_type = _MEDIA_TYPES.get(suffix, "")
    file = {"fileUri": part.url}
    if media_type:
        file["mimeType"] = media_type
    return {"fileData": file}


def _config(request: Request, new: bool) -> dict[str, Any]:
    """generationConfig: only what the client has said."""
    config: dict[str, Any] = {}
    if request.max_tokens is not None:
        config["maxOutputTokens"] = request.max_tokens
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.top_p is not None:
        config["topP"] = request.top_p
    if request.top_k is not None:
        config["topK"] = request.top_k
    if request.stop:
        config["stopSequences"] = request.stop
    if request.seed is not None:
        config["seed"] = request.seed
    if _takes_penalties(request.model):
        if request.frequency_penalty is not None:
            config["frequencyPenalty"] = request.frequency_penalty
        if request.presence_penalty is not None:
            config["presencePenalty"] = request.presence_penalty
    if request.response_format:
        config["responseMimeType"] = "application/json"
        if request.schema is not None:
            config["responseJsonSchema"] = request.schema
    thinking = _thinking(request, new)
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _thinking(request: Request, new: bool) -> dict[str, Any]:
    """thinkingConfig; the thoughts themselves are asked for where there shall be any."""
    if request.thinking_tokens is not None:
        budget = request.thinking_tokens
    elif not request.effort:
        return {}
    elif new:
        level = _LEVELS.get(request.effort, "high")
        if level == "minimal" and not _knows_minimal(request.model):
            if request.effort == "none" and "-pro" not in request.model:
                return {"thinkingBudget": 0}
            level = "low"  # the least it takes
        return (
            {"thinkingLevel": level} if request.effort == "none" else {"thinkingLevel": level, "includeThoughts": True}
        )
    else:
        budget = _BUDGETS.get(request.effort, 24576)
    if budget == 0 and "-pro" in request.model:
        return {"thinkingBudget": 128}  # the least it takes: it cannot be kept from thinking
    return {"thinkingBudget": budget, "includeThoughts": True} if budget else {"thinkingBudget": 0}


def _declarations(request: Request, losses: Losses) -> list[dict[str, Any]]:
    declarations: list[dict[str, Any]] = []
    for tool in request.tools:
        if tool.raw is not None:
            losses.lose(f"{tool.place or 'tools'}.{tool.raw.get('type', '')}")
            continue
        declaration: dict[str, Any] = {"name": tool.name}
        if tool.description:
            declaration["description"] = tool.description
        if tool.parameters:
            declaration["parametersJsonSchema"] = tool.parameters
        declarations.append(declaration)
    return declarations


def _calling(request: Request) -> dict[str, Any]:
    """functionCallingConfig. VALIDATED is AUTO with arguments that keep to their schema, as ANY does."""
    mode = _CHOICES.get(request.tool_choice, "AUTO")
    if mode == "AUTO":
        for tool in request.tools:
            if tool.strict:
                mode = "VALIDATED"
                break
    if request.tool_choice == "tool":
        return {"mode": mode, "allowedFunctionNames": [request.tool_name]}
    return {"mode": mode}
