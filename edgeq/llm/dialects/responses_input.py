"""The items of a request of OpenAI's responses -> messages.

A turn is told as items in a row: what the model has thought, said and called are one message, and so are the results
of its calls.

Items of tools that only OpenAI has (web searches, computers) are OTHER parts: of the assistant, which may be dropped,
or of the user, which may not.

Source: the openai SDK's types, responses/response_input_item_param.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgeq.llm.dialects.base import REDACTED, TEXT_OR_LIST, about_element, objects_at, text_at
from edgeq.llm.dialects.openai_content import decode_url
from edgeq.llm.dialects.tools import is_of_program
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
    from edgeq.llm.message import Request

_ROLES: Final[dict[str, str]] = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}

REASONING: Final = "rs_"
"""Before the ids of thoughts, OpenAI's and ours. The AI SDK refers to them in place of repeating them: another provider
would not be shown them anyway."""

_RESULTS: Final = "results"
"""Instead of a role: results of tools are turns of the user's, but apart from what he says."""


def decode_input(asked: dict[str, Any], request: Request) -> list[Message]:
    """`asked["input"]`: text, or items; what they have that no other dialect knows goes to `request.extra`.

    Raises: Unmappable.
    """
    said = asked.get("input")
    if said is None:
        raise Unmappable("input", "input is missing")
    if isinstance(said, str):
        return [Message("user", [Part(TEXT, said)])]
    messages: list[Message] = []
    names: dict[str, str] = {}
    """Of tools, by the id of their call."""
    previous = ""
    for number, item in enumerate(objects_at(asked, "input", "input", TEXT_OR_LIST)):
        try:
            said_by, parts = _decode_item(item, f"input[{number}]", names, request)
        except Unmappable as error:
            raise about_element(error, "input", number) from None
        if said_by == previous and said_by in ("assistant", _RESULTS):
            messages[-1].parts.extend(parts)
        else:
            messages.append(Message("user" if said_by == _RESULTS else said_by, parts))
            previous = said_by
    return messages


def _decode_item(item: dict[str, Any], at: str, names: dict[str, str], request: Request) -> tuple[str, list[Part]]:
    """Whose it is (a role, or _RESULTS), and what it says."""
    kind = text_at(item, "type", "input.type")
    for name in ("async", "namespace", "phase"):
        if item.get(name):
            request.extra[f"{at}.{name}"] = item[name]
    if is_of_program(item):
        request.extra[f"{at}.caller"] = item["caller"]
    if kind in ("", "message"):
        said_by = _ROLES.get(text_at(item, "role", "input.role"), "")
        if not said_by:
            raise Unmappable("input.role", "input.role must be user, assistant, system or developer")
        return said_by, _decode_content(item, "content", "input.content", at, request)
    if kind == "function_call_output":
        return _RESULTS, [_decode_result(item, at, names, request)]
    if kind == "item_reference" and not text_at(item, "id", "input.id").startswith(REASONING):
        told = "and none are stored here: send the item itself (the AI SDK does with store: false)"
        raise Unmappable("input", f"input refers to a stored item, {told}")
    if kind.startswith("compaction"):
        raise Unmappable("input", "input has a conversation that only OpenAI can read: send what was said in it")
    if kind.endswith("_output"):
        return _RESULTS, [Part(OTHER, raw=item, place=at)]
    own = _decode_own(kind, item, names)
    own.place = at
    return "assistant", [own]


def _decode_content(of: dict[str, Any], key: str, param: str, at: str, request: Request) -> list[Part]:
    """Text, or a list of parts, of the item that stands there."""
    said = of.get(key)
    if said is None:
        return []
    if isinstance(said, str):
        return [Part(TEXT, said, place=at)]
    parts: list[Part] = []
    for number, part in enumerate(objects_at(of, key, param, TEXT_OR_LIST)):
        try:
            parts.append(_decode_part(part, param, f"{at}.{key}[{number}]", request))
        except Unmappable as error:
            raise about_element(error, param, number) from None
    return parts


def _decode_part(said: dict[str, Any], param: str, at: str, request: Request) -> Part:
    kind = text_at(said, "type", f"{param}.type")
    if kind in ("input_text", "output_text", "text"):
        part = Part(TEXT, text_at(said, "text", f"{param}.text"))
        if said.get("annotations"):
            request.extra[f"{at}.annotations"] = said["annotations"]
    elif kind == "refusal":
        part = Part(REFUSAL, text_at(said, "refusal", f"{param}.refusal"))
    elif kind == "input_image" and said.get("image_url") is not None:
        part = Part(IMAGE, detail=text_at(said, "detail", f"{param}.detail"))
        decode_url(text_at(said, "image_url", f"{param}.image_url"), f"{param}.image_url", part)
    elif kind == "input_file" and said.get("file_id") is None:
        part = Part(DOCUMENT, name=text_at(said, "filename", f"{param}.filename"))
        name = "file_data" if said.get("file_data") is not None else "file_url"
        decode_url(text_at(said, name, f"{param}.{name}"), f"{param}.{name}", part)
        if said.get("detail") not in (None, "auto"):
            request.extra[f"{at}.detail"] = said["detail"]
    elif kind:
        part = Part(OTHER, raw=said)
    else:
        raise Unmappable(f"{param}.type", f"{param}.type is missing")
    part.cache = said.get("prompt_cache_breakpoint") is not None
    part.place = at
    return part


def _decode_result(item: dict[str, Any], at: str, names: dict[str, str], request: Request) -> Part:
    part = Part(TOOL_RESULT, id=_needed(item, "call_id"), place=at)
    if part.id not in names:
        raise Unmappable("input.call_id", f"no function_call before its output has the call_id {part.id}")
    part.name = names[part.id]
    part.parts = _decode_content(item, "output", "input.output", at, request)
    return part


def _decode_own(kind: str, item: dict[str, Any], names: dict[str, str]) -> Part:
    """What the model has done, but said."""
    if kind == "function_call":
        part = Part(TOOL_USE, id=_needed(item, "call_id"), name=_needed(item, "name"))
        part.arguments = text_at(item, "arguments", "input.arguments")
        names[part.id] = part.name
        return part
    if kind == "reasoning":
        told = "content" if item.get("content") else "summary"
        where = f"input.{told}"
        texts = [text_at(piece, "text", f"{where}.text") for piece in objects_at(item, told, where)]
        data = text_at(item, "encrypted_content", "input.encrypted_content")
        if data.startswith(REDACTED):
            return Part(THINKING, data=data[len(REDACTED) :], detail="redacted")
        return Part(THINKING, "\n\n".join(texts), data=data)
    return Part(OTHER, raw=item)


def _needed(item: dict[str, Any], key: str) -> str:
    value = text_at(item, key, f"input.{key}")
    if not value:
        raise Unmappable(f"input.{key}", f"input.{key} is missing")
    return value
