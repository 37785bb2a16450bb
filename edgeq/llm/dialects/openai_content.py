"""Messages of a chat completion: OpenAI's JSON <-> Message.

Results of tools are messages of their own here; in edgeq they are parts of a user's turn, a run of them one turn.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.dialects.base import OPENAI, TEXT_OR_LIST, about_element, object_at, objects_at, param_of, text_at
from edgeq.llm.dialects.turns import unsayable
from edgeq.llm.message import (
    DOCUMENT,
    IMAGE,
    OTHER,
    REFUSAL,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Message,
    Part,
    Unmappable,
)

if TYPE_CHECKING:
    from edgeq.llm.message import Losses, Request


_WANT_THOUGHTS: Final = re.compile(
    r"(?!.*(?:distill|instruct|coder|deepseek-?r1|kimi-?(?:dev|vl))).*(?:deepseek|kimi)",
    re.IGNORECASE | re.DOTALL,
)
"""Models that refuse a call of their own without the thoughts that led to it: DeepSeek's since V3.2, Kimi's that think.
Those before do not think, or (R1) want none back; most other servers ignore thoughts, and some refuse them (Groq, of
kimi-k2-instruct and deepseek-r1-distill, too).

Source: api-docs.deepseek.com/guides/thinking_mode; platform.kimi.ai/docs/guide/use-kimi-k2-thinking-model."""


def decode_messages(asked: dict[str, Any], request: Request) -> list[Message]:
    """`asked["messages"]`."""
    messages: list[Message] = []
    names: dict[str, str] = {}
    """Of tools, by the id of their call."""
    previous = ""
    for number, said in enumerate(objects_at(asked, "messages", "messages")):
        try:
            previous = _decode_message(said, f"messages[{number}]", previous, messages, names, request)
        except Unmappable as error:
            raise about_element(error, "messages", number) from None
    return messages


def _decode_message(
    said: dict[str, Any], at: str, previous: str, messages: list[Message], names: dict[str, str], request: Request
) -> str:
    """Add one to `messages`. Args: at is where it stands, previous the role of the one before. Returns: its role."""
    role = text_at(said, "role", "messages.role")
    if role == "tool":
        result = _decode_result(said, at, names)
        if previous == "tool":
            messages[-1].parts.append(result)
        else:
            messages.append(Message("user", [result]))
    elif role == "assistant":
        messages.append(_decode_assistant(said, at, names, request))
    elif role in ("system", "developer", "user"):
        name = text_at(said, "name", "messages.name")
        messages.append(Message("user" if role == "user" else "system", _decode_content(said, at), name, at))
    elif role == "function":
        raise Unmappable("messages.role", "messages of functions cannot be translated: use tools")
    else:
        raise Unmappable("messages.role", "messages.role must be system, developer, user, assistant or tool")
    return role


def _decode_content(said: dict[str, Any], at: str) -> list[Part]:
    content = said.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [Part(TEXT, content, place=at)]
    parts: list[Part] = []
    for number, part in enumerate(objects_at(said, "content", "messages.content", TEXT_OR_LIST)):
        try:
            parts.append(_decode_part(part, f"{at}.content[{number}]"))
        except Unmappable as error:
            raise about_element(error, "messages.content", number) from None
    return parts


def _decode_part(said: dict[str, Any], at: str) -> Part:
    """A part of a message's content."""
    kind = text_at(said, "type", "messages.content.type")
    if kind == "text":
        part = Part(TEXT, text_at(said, "text", "messages.content.text"))
    elif kind == "refusal":
        part = Part(REFUSAL, text_at(said, "refusal", "messages.content.refusal"))
    elif kind == "image_url":
        where = "messages.content.image_url"
        image = object_at(said, "image_url", where) or {}
        part = Part(IMAGE, detail=text_at(image, "detail", f"{where}.detail"))
        decode_url(text_at(image, "url", f"{where}.url"), f"{where}.url", part)
    elif kind == "input_audio":
        where = "messages.content.input_audio"
        audio = object_at(said, "input_audio", where) or {}
        form = text_at(audio, "format", f"{where}.format")
        part = Part(DOCUMENT, media_type=f"audio/{form}", data=text_at(audio, "data", f"{where}.data"))
    elif kind == "file" and isinstance(said.get("file"), dict) and said["file"].get("file_data"):
        where = "messages.content.file"
        part = Part(DOCUMENT, name=text_at(said["file"], "filename", f"{where}.filename"))
        decode_url(text_at(said["file"], "file_data", f"{where}.file_data"), f"{where}.file_data", part)
    elif kind:
        part = Part(OTHER, raw=said)
    else:
        raise Unmappable("messages.content.type", "messages.content.type is missing")
    part.cache = said.get("prompt_cache_breakpoint") is not None
    part.place = at
    return part


def decode_url(url: str, param: str, part: Part) -> None:
    """A data URI (RFC 2397), base64 only, or where the thing is."""
    if not url.startswith("data:"):
        if not url.startswith(("http://", "https://")):
            raise Unmappable(param, f"{param} must be a URL of http, https or data")
        part.url = url
        return
    kind, comma, data = url[5:].partition(",")
    media_type, _, coding = kind.partition(";")
    if not comma or not coding.endswith("base64"):
        raise Unmappable(param, f"{param} must be a data URI in base64")
    part.media_type = "image/jpeg" if media_type == "image/jpg" else media_type  # a habit that not all forgive
    part.data = data


def _decode_assistant(said: dict[str, Any], at: str, names: dict[str, str], request: Request) -> Message:
    if said.get("function_call") is not None:
        raise Unmappable("messages.function_call", "calls of functions cannot be translated: use tools")
    parts = _decode_content(said, at)
    thought = said.get("reasoning_content")
    if isinstance(thought, str) and thought:
        parts.insert(0, Part(THINKING, thought, place=at))
    refusal = text_at(said, "refusal", "messages.refusal")
    if refusal:
        parts.append(Part(REFUSAL, refusal, place=at))
    if said.get("audio") is not None:
        request.extra[f"{at}.audio"] = said["audio"]
    for number, call in enumerate(objects_at(said, "tool_calls", "messages.tool_calls")):
        try:
            part = _decode_call(call)
        except Unmappable as error:
            raise about_element(error, "messages.tool_calls", number) from None
        part.place = f"{at}.tool_calls[{number}]"
        if part.kind == TOOL_USE:
            names[part.id] = part.name
        parts.append(part)
    return Message("assistant", parts, text_at(said, "name", "messages.name"), at)


def _decode_call(call: dict[str, Any]) -> Part:
    if text_at(call, "type", "messages.tool_calls.type") not in ("", "function"):
        return Part(OTHER, raw=call)
    where = "messages.tool_calls.function"
    function = object_at(call, "function", where)
    if function is None:
        raise Unmappable(where, f"{where} is missing")
    part = Part(TOOL_USE, id=text_at(call, "id", "messages.tool_calls.id"))
    part.name = text_at(function, "name", f"{where}.name")
    part.arguments = text_at(function, "arguments", f"{where}.arguments")
    return part


def _decode_result(said: dict[str, Any], at: str, names: dict[str, str]) -> Part:
    part = Part(TOOL_RESULT, id=text_at(said, "tool_call_id", "messages.tool_call_id"), place=at)
    if not part.id:
        raise Unmappable("messages.tool_call_id", "messages.tool_call_id is missing")
    part.name = names.get(part.id, "")
    part.parts = _decode_content(said, at)
    return part


def encode_messages(request: Request, losses: Losses) -> list[dict[str, Any]]:
    """What `messages` holds.

    Raises: Unmappable.
    """
    own = request.dialect == OPENAI
    wants_thoughts = _WANT_THOUGHTS.match(request.model) is not None
    said: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "assistant":
            turn = _encode_assistant(message, losses, own)
            if wants_thoughts:
                _add_thoughts(message, turn)
        else:
            rest: list[Part] = []
            for part in message.parts:
                if part.kind == TOOL_RESULT:
                    said.append(_encode_result(part, rest, losses))
                else:
                    rest.append(part)
            if not rest:
                continue
            turn = {"role": message.role, "content": _encode_content(rest, message.role, losses, own)}
        if message.name:
            turn["name"] = message.name
        said.append(turn)
    return said


def _add_thoughts(message: Message, turn: dict[str, Any]) -> None:
    """What such a model has thought itself, which is what nobody has signed."""
    thoughts = [part.text for part in message.parts if part.kind == THINKING and not part.data]
    if thoughts:
        turn["reasoning_content"] = "".join(thoughts)


def _encode_result(part: Part, rest: list[Part], losses: Losses) -> dict[str, Any]:
    """A tool's message has only text: images of a result go to `rest`, which the user says after all results."""
    if part.is_error:
        losses.lose(param_of(part, "is_error"))
    texts: list[Part] = []
    for piece in part.parts:
        if piece.kind == TEXT:
            texts.append(piece)
        else:
            rest.append(piece)
    content = _encode_content(texts, "user", losses, own=False) if texts else ""
    return {"role": "tool", "tool_call_id": part.id, "content": content}


def _encode_content(parts: list[Part], role: str, losses: Losses, own: bool) -> str | list[dict[str, Any]]:
    """Text alone as a string, which every server takes; everything else as a list."""
    if len(parts) == 1 and parts[0].kind == TEXT and not (own and parts[0].cache):
        return parts[0].text
    content: list[dict[str, Any]] = []
    for part in parts:
        piece = _encode_part(part, losses, own)
        if piece is None:
            unsayable(part, role, losses)
            continue
        if own and part.cache:
            piece["prompt_cache_breakpoint"] = {"mode": "explicit"}
        content.append(piece)
    return content


def _encode_part(part: Part, losses: Losses, own: bool) -> dict[str, Any] | None:
    """Returns: None for what it cannot say."""
    if part.kind == TEXT:
        return {"type": "text", "text": part.text}
    if part.kind == REFUSAL:
        return {"type": "refusal", "refusal": part.text}
    if part.kind == IMAGE:
        image = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
        if part.detail:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    if part.kind == OTHER and own:
        return part.raw
    if part.kind == DOCUMENT and not part.url:
        if part.media_type == "text/plain" and part.text:
            if part.name:
                losses.lose(param_of(part, "title"))
            return {"type": "text", "text": part.text}
        if part.media_type.startswith("audio/"):
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.media_type[6:]}}
        file = {"file_data": f"data:{part.media_type};base64,{part.data}", "filename": part.name or "document"}
        return {"type": "file", "file": file}
    return None


def _encode_assistant(message: Message, losses: Losses, own: bool) -> dict[str, Any]:
    said: list[Part] = []
    calls: list[dict[str, Any]] = []
    for part in message.parts:
        if part.kind == TOOL_USE:
            function = {"name": part.name, "arguments": part.arguments or "{}"}
            calls.append({"id": part.id, "type": "function", "function": function})
        elif part.kind == OTHER and own and part.raw is not None and "id" in part.raw:
            calls.append(part.raw)
        elif part.kind != THINKING:
            # Thoughts are for the provider that has signed them; no model misses those of another.
            said.append(part)
    content = _encode_content(said, "assistant", losses, own) if said else None
    turn: dict[str, Any] = {"role": "assistant", "content": content or None}
    if calls:
        turn["tool_calls"] = calls
    elif turn["content"] is None:
        turn["content"] = ""
    return turn
