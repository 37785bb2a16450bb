"""Blocks of Anthropic's messages: JSON <-> parts.

Source: shared reference, llm.md 4.1; anthropics/anthropic-sdk-python, types/content_block_param.py.
"""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.dialects.base import TEXT_OR_LIST, about_element, flag_at, object_at, objects_at, param_of, text_at
from edgeq.llm.dialects.tools import is_of_program
from edgeq.llm.dialects.turns import arguments_of, unsayable
from edgeq.llm.message import (
    DOCUMENT,
    IMAGE,
    OTHER,
    REFUSAL,
    TEXT,
    THINKING,
    TOOL_RESULT,
    TOOL_USE,
    Part,
    Unmappable,
)

if TYPE_CHECKING:
    from edgeq.llm.message import Losses, Request

_IMAGES: Final = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
_CACHE: Final = {"type": "ephemeral"}
_NO_ID_CHARS: Final = re.compile(r"[^a-zA-Z0-9_-]")
"""What may not be in the id of a call; some providers' ids have it (Kimi's "functions.look:0")."""


def decode_blocks(
    of: dict[str, Any], key: str, where: str, at: str, names: dict[str, str], request: Request
) -> list[Part]:
    """A string, or a list of blocks. Args: where "messages.content", at "messages[3].content"; names of tools by the id
    of their call, added to."""
    content = of.get(key)
    if content is None:
        return []
    if isinstance(content, str):
        return [Part(TEXT, content, place=at)]
    parts: list[Part] = []
    for number, block in enumerate(objects_at(of, key, where, TEXT_OR_LIST)):
        try:
            place = f"{at}[{number}]"
            part = _decode_block(block, where, place, names, request)
            part.place = place
            # For how long it is cached is a hint, as that it shall be at all: the answer is the same without.
            part.cache = object_at(block, "cache_control", f"{where}.cache_control") is not None
        except Unmappable as error:
            raise about_element(error, where, number) from None
        parts.append(part)
    return parts


def _decode_block(block: dict[str, Any], where: str, at: str, names: dict[str, str], request: Request) -> Part:
    kind = text_at(block, "type", f"{where}.type")
    if kind == "text":
        if block.get("citations"):
            request.extra[f"{at}.citations"] = True
        return Part(TEXT, text_at(block, "text", f"{where}.text"))
    if kind == "tool_use":
        part = Part(TOOL_USE, id=text_at(block, "id", f"{where}.id"), name=text_at(block, "name", f"{where}.name"))
        part.arguments = orjson.dumps(object_at(block, "input", f"{where}.input") or {}).decode()
        names[part.id] = part.name
        _note_unsaid(block, at, request)
        return part
    if kind == "tool_result":
        _note_unsaid(block, at, request)
        part = Part(TOOL_RESULT, id=text_at(block, "tool_use_id", f"{where}.tool_use_id"))
        part.name = names.get(part.id, "")
        part.parts = decode_blocks(block, "content", f"{where}.content", f"{at}.content", names, request)
        part.is_error = flag_at(block, "is_error", f"{where}.is_error") is True
        return part
    if kind == "thinking":
        thought = Part(THINKING, text_at(block, "thinking", f"{where}.thinking"))
        thought.data = text_at(block, "signature", f"{where}.signature")
        return thought
    if kind == "redacted_thinking":
        return Part(THINKING, data=text_at(block, "data", f"{where}.data"), detail="redacted")
    if kind == "compaction":  # what stands in place of all before it
        return Part(TEXT, text_at(block, "content", f"{where}.content"))
    if kind in ("image", "document"):
        return _decode_source(block, kind, where, at, request)
    if not kind:
        raise Unmappable(f"{where}.type", f"{where}.type is missing")
    return Part(OTHER, raw=block)


def _note_unsaid(block: dict[str, Any], at: str, request: Request) -> None:
    """Who called, if not the model itself, and of which set of the provider's tools: for whoever has to tell that it is
    lost."""
    if block.get("toolset_name"):
        request.extra[f"{at}.toolset_name"] = block["toolset_name"]
    if is_of_program(block):
        request.extra[f"{at}.caller"] = block["caller"]


def _decode_source(block: dict[str, Any], kind: str, where: str, at: str, request: Request) -> Part:
    """An image or a document."""
    source = object_at(block, "source", f"{where}.source")
    if source is None:
        raise Unmappable(f"{where}.source", f"{where}.source is missing")
    form = text_at(source, "type", f"{where}.source.type")
    part = Part(IMAGE if kind == "image" else DOCUMENT)
    if form == "base64":
        part.media_type = text_at(source, "media_type", f"{where}.source.media_type")
        part.data = text_at(source, "data", f"{where}.source.data")
    elif form == "url":
        part.url = text_at(source, "url", f"{where}.source.url")
    elif form == "text" and kind == "document":
        part.media_type = "text/plain"
        part.text = text_at(source, "data", f"{where}.source.data")
    else:
        return Part(OTHER, raw=block)
    if kind == "document":
        part.name = text_at(block, "title", f"{where}.title")
        for name in ("context", "citations"):
            if block.get(name):
                request.extra[f"{at}.{name}"] = block[name]
    elif block.get("transformations"):
        request.extra[f"{at}.transformations"] = block["transformations"]
    return part


def encode_blocks(parts: list[Part], role: str, losses: Losses, own: bool) -> list[dict[str, Any]]:
    """Blocks of a message, without those that would be empty, which Anthropic refuses.

    Args: own, the parts come from this dialect.
    Raises: Unmappable.
    """
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if part.kind in (TEXT, REFUSAL):
            if not part.text:
                continue
            block: dict[str, Any] | None = {"type": "text", "text": part.text}
        elif part.kind == TOOL_USE:
            block = {"type": "tool_use", "id": call_id(part.id), "name": part.name, "input": arguments_of(part)}
        elif part.kind == TOOL_RESULT:
            block = _encode_result(part, losses, own)
        elif part.kind == THINKING:
            if part.detail == "redacted":
                block = {"type": "redacted_thinking", "data": part.data}
            elif part.data:
                block = {"type": "thinking", "thinking": part.text, "signature": part.data}
            else:
                # A thought of another provider: without a signature it is refused, and nobody misses it.
                continue
        elif part.kind == OTHER:
            block = part.raw if own else None
        else:
            block = _encode_source(part, losses)
        if block is None:
            unsayable(part, role, losses)
            continue
        if part.cache:
            block["cache_control"] = _CACHE
        blocks.append(block)
    return blocks


def call_id(known: str) -> str:
    """An id of a call as Anthropic takes it; the same for a call and its result."""
    return _NO_ID_CHARS.sub("_", known)


def _encode_result(part: Part, losses: Losses, own: bool) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call_id(part.id)}
    if len(part.parts) == 1 and part.parts[0].kind == TEXT and not part.parts[0].cache:
        block["content"] = part.parts[0].text
    else:
        content = encode_blocks(part.parts, "user", losses, own)
        if content:
            block["content"] = content
    if part.is_error:
        block["is_error"] = True
    return block


def _encode_source(part: Part, losses: Losses) -> dict[str, Any] | None:
    """An image or a document. Returns: None for a kind that it does not take."""
    if part.kind == IMAGE:
        if part.detail not in ("", "auto"):
            losses.lose(param_of(part, "image_url.detail"))
        if part.url:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        if part.media_type not in _IMAGES:
            return None
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
        return {"type": "image", "source": source}
    if part.url:
        source = {"type": "url", "url": part.url}
    elif part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    else:
        text = part.text or _text_of(part)
        if not text:
            return None
        source = {"type": "text", "media_type": "text/plain", "data": text}
    block: dict[str, Any] = {"type": "document", "source": source}
    if part.name:
        block["title"] = part.name
    return block


def _text_of(part: Part) -> str:
    """What a file says that is text: other dialects have such in base64, too. Empty: it is none."""
    if not part.media_type.startswith("text/"):
        return ""
    try:
        return b64decode(part.data, validate=True).decode()
    except ValueError:
        return ""
