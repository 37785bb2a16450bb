"""Anthropic's messages, asked: /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import re
from typing import Any, Final

from edgeq.llm.demo.chat import NAME
from edgeq.llm.demo.checks import (
    Json,
    Refusal,
    a_closed_schema,
    a_count,
    a_flag,
    a_list,
    a_number,
    a_text,
    a_word,
    an_object,
    count_tokens,
    invalid,
    known,
    names,
)
from edgeq.llm.demo.content import Ask, Tool
from edgeq.llm.message import INVALID, Failed

_COUNTED: Final = names(
    "model messages system tools tool_choice thinking cache_control output_config output_format "
    "context_management mcp_servers"
)
_FIELDS: Final = _COUNTED | names(
    "max_tokens metadata stop_sequences stream temperature top_p top_k service_tier container inference_geo speed"
)
_NO_THREADS: Final = '{"error_code":"thread_unsupported_request"}'
_UNKNOWN: Final = "{}: Extra inputs are not permitted"
_ROLES: Final = names("user assistant")
_USER_BLOCKS: Final = names("text image document tool_result search_result")
_ASSISTANT_BLOCKS: Final = names("text thinking redacted_thinking tool_use")
_IMAGES: Final = names("image/jpeg image/png image/gif image/webp")
_TOOL: Final = names(
    "name description input_schema cache_control type strict eager_input_streaming defer_loading allowed_callers "
    "input_examples"
)
_TIERS: Final = names("auto standard_only")
_EFFORTS: Final = names("low medium high xhigh max")
_MIN_BUDGET: Final = 1024
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/=_-]+")


def read(body: Json) -> Ask:
    """What a request asks. Raises: Refusal."""
    if body.get("thread"):
        raise Refusal(Failed(400, INVALID, "thread: none is held here", details=_NO_THREADS))
    known(body, _FIELDS, _UNKNOWN)
    ask = _read_counted(body)
    ask.stream = a_flag(body, "stream")
    ask.max_tokens = a_count(body, "max_tokens")
    if ask.max_tokens is None:
        invalid("max_tokens: Field required", "max_tokens")
    a_number(body, "temperature", 0, 1)
    a_number(body, "top_p", 0, 1)
    a_count(body, "top_k", 0)
    a_word(body, "service_tier", _TIERS)
    sequences = body.get("stop_sequences")
    if sequences is not None:
        ask.stop_sequences = [
            a_text(each, "stop_sequences", empty=False) for each in a_list(sequences, "stop_sequences")
        ]
    metadata = body.get("metadata")
    if metadata is not None:
        known(an_object(metadata, "metadata"), names("user_id"), "metadata.{}: Extra inputs are not permitted")
    _read_thinking(body, ask.max_tokens)
    _read_config(body, ask)
    return ask


def read_counted(body: Json) -> Ask:
    """A request to count tokens. Raises: Refusal."""
    known(body, _COUNTED, _UNKNOWN)
    return _read_counted(body)


def _read_counted(body: Json) -> Ask:
    ask = Ask(a_text(body.get("model"), "model", empty=False), include_usage=True)
    messages = a_list(body.get("messages"), "messages", 1)
    _read_system(body.get("system"))
    _read_messages(messages, ask)
    _read_tools(body, ask)
    ask.input_tokens = count_tokens([messages, body.get("system"), body.get("tools")])
    return ask


def _read_system(system: object) -> None:
    if system is None or isinstance(system, str):
        return
    for index, block in enumerate(a_list(system, "system")):
        if an_object(block, f"system.{index}").get("type") != "text":
            invalid(f"system.{index}.type: Input should be 'text'", f"system.{index}.type")
        _read_text(block, f"system.{index}")


def _read_text(block: Json, where: str) -> str:
    known(
        block,
        names("type text cache_control citations"),
        where + ".text.{}: Extra inputs are not permitted",
    )
    text = a_text(block.get("text"), f"{where}.text")
    if not text:
        invalid(f"{where}: text content blocks must be non-empty", where)
    return text


def _read_messages(messages: list[Any], ask: Ask) -> None:
    asked: set[str] = set()
    """Of the turn before: calls that this one must answer."""
    end = len(messages) - 1
    while end > 0 and _is_of_system(messages[end]):
        end -= 1
    for index, each in enumerate(messages):
        where = f"messages.{index}"
        message = an_object(each, where)
        known(message, names("role content"), where + ".{}: Extra inputs are not permitted")
        role = message.get("role")
        if index and _is_of_system(message):
            if not isinstance(message.get("content"), str):
                _read_system(a_list(message.get("content"), f"{where}.content", 1))
            continue
        if role not in _ROLES:
            invalid(f'{where}: Unexpected role "{role}". Allowed roles are "user" or "assistant".', f"{where}.role")
        if index == 0 and role != "user":
            invalid("messages: first message must use the user role", "messages")
        content = message.get("content")
        blocks = (
            [{"type": "text", "text": content}] if isinstance(content, str) else a_list(content, f"{where}.content")
        )
        last = index == end
        if not blocks and not (last and role == "assistant"):
            invalid(
                f"{where}: all messages must have non-empty content except for the optional final assistant message"
            )
        if role == "user":
            asked = _read_user(blocks, where, asked, ask, last)
        elif asked:
            invalid(_unanswered(where, asked), where)
        else:
            asked = _read_assistant(blocks, where, last)
    if asked:
        invalid(_unanswered(f"messages.{end}", asked), "messages")


def _is_of_system(message: object) -> bool:
    """What the system says in the midst, as Claude Code does with a beta (mid-conversation-system-2026-04-07), which is
    not looked for."""
    return isinstance(message, dict) and message.get("role") == "system"


def _unanswered(where: str, calls: set[str]) -> str:
    return (
        f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(sorted(calls))}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _read_user(blocks: list[Any], where: str, asked: set[str], ask: Ask, last: bool) -> set[str]:
    """Check a turn of the user. Returns which of the calls it leaves unanswered: none."""
    texts: list[str] = []
    results = 0
    for index, each in enumerate(blocks):
        at = f"{where}.content.{index}"
        block = an_object(each, at)
        kind = block.get("type")
        if kind not in _USER_BLOCKS:
            invalid(f"{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags", at)
        if kind == "text":
            texts.append(_read_text(block, at))
        elif kind == "tool_result":
            call = a_text(block.get("tool_use_id"), f"{at}.tool_use_id", empty=False)
            if call not in asked:
                invalid(
                    f"{at}: unexpected `tool_use_id` found in `tool_result` blocks: {call}. Each `tool_result` block "
                    "must have a corresponding `tool_use` block in the previous message.",
                    at,
                )
            if results != index:
                invalid(_unanswered(where, asked), at)  # results come first, or they are not seen
            results += 1
            asked = asked - {call}
            inner = block.get("content")
            for part in [] if inner is None or isinstance(inner, str) else a_list(inner, f"{at}.content"):
                _read_media(an_object(part, at), f"{at}.content")
        else:
            _read_media(block, at)
    if asked:
        invalid(_unanswered(where, asked), where)
    if texts:
        ask.said = " ".join(texts)
    if last:
        ask.may_call = not results
    return set()


def _read_media(block: Json, where: str) -> None:
    kind = block.get("type")
    if kind == "text":
        _read_text(block, where)
        return
    if kind not in ("image", "document"):
        return
    source = an_object(block.get("source"), f"{where}.source")
    way = source.get("type")
    if way == "base64":
        media = source.get("media_type")
        if kind == "image" and media not in _IMAGES:
            invalid(f"{where}.source.base64.media_type: Input should be one of {sorted(_IMAGES)}", where)
        a_text(source.get("data"), f"{where}.source.data", empty=False)
    elif way == "url":
        if not a_text(source.get("url"), f"{where}.source.url").startswith(("https://", "http://")):
            invalid(f"{where}.source.url: only HTTP URLs are supported", where)
    elif not (kind == "document" and way in ("text", "content", "file")):
        invalid(f"{where}.source: Input tag '{way}' found using 'type' does not match any of the expected tags", where)


def _read_assistant(blocks: list[Any], where: str, last: bool) -> set[str]:
    """Check a turn of the model. Returns the calls that the next turn must answer."""
    calls: set[str] = set()
    for index, each in enumerate(blocks):
        at = f"{where}.content.{index}"
        block = an_object(each, at)
        kind = block.get("type")
        if kind not in _ASSISTANT_BLOCKS:
            invalid(f"{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags", at)
        if kind == "text":
            text = _read_text(block, at)
            if last and index == len(blocks) - 1 and text != text.rstrip():
                invalid("messages: final assistant content cannot end with trailing whitespace", at)
        elif kind == "thinking":
            a_text(block.get("thinking"), f"{at}.thinking")
            if not _SIGNATURE.fullmatch(a_text(block.get("signature"), f"{at}.signature")):
                invalid(f"{at}: Invalid `signature` in `thinking` block", at)
        elif kind == "tool_use":
            call = a_text(block.get("id"), f"{at}.id", empty=False)
            if call in calls:
                invalid("messages: `tool_use` ids must be unique", at)
            calls.add(call)
            a_text(block.get("name"), f"{at}.name", empty=False)
            if not isinstance(block.get("input"), dict):
                invalid(f"{at}.tool_use.input: Input should be a valid dictionary", at)
    return calls


def _read_tools(body: Json, ask: Ask) -> None:
    tools = body.get("tools")
    if tools is not None:
        for index, tool in enumerate(a_list(tools, "tools")):
            where = f"tools.{index}"
            if an_object(tool, where).get("type", "custom") != "custom":
                continue  # a tool of the provider's own
            known(tool, _TOOL, where + ".custom.{}: Extra inputs are not permitted")
            name = a_text(tool.get("name"), f"{where}.custom.name", empty=False)
            if not NAME.fullmatch(name):
                invalid(f"{where}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'", where)
            schema = tool.get("input_schema")
            if not isinstance(schema, dict):
                invalid(f"{where}.custom.input_schema: Field required", where)
            if schema.get("type") != "object":
                invalid(f"{where}.custom.input_schema.type: Input should be 'object'", where)
            if a_flag(tool, "strict"):
                a_closed_schema(schema, f"{where}.custom.input_schema")
            ask.tools.append(Tool(name, schema))
    choice = body.get("tool_choice")
    if choice is None:
        return
    if tools is None:
        invalid("tool_choice may only be specified while providing tools.", "tool_choice")
    kind = an_object(choice, "tool_choice").get("type")
    if kind not in ("auto", "any", "tool", "none"):
        invalid(f"tool_choice: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    known(
        choice,
        frozenset(("type",) if kind == "none" else ("type", "name", "disable_parallel_tool_use")),
        "tool_choice." + str(kind) + ".{}: Extra inputs are not permitted",
    )
    ask.parallel = not a_flag(choice, "disable_parallel_tool_use")
    if kind == "any":
        ask.must_call = "*"
    elif kind == "tool":
        ask.must_call = a_text(choice.get("name"), "tool_choice.tool.name", empty=False)
        if ask.must_call not in [tool.name for tool in ask.tools]:
            invalid(f"Tool '{ask.must_call}' not found in provided tools", "tool_choice")
    elif kind == "none":
        ask.may_call = False


def _read_thinking(body: Json, max_tokens: int) -> None:
    thinking = body.get("thinking")
    if thinking is not None:
        kind = an_object(thinking, "thinking").get("type")
        if kind == "enabled":
            budget = a_count(thinking, "budget_tokens", _MIN_BUDGET)
            if budget is None:
                invalid("thinking.enabled.budget_tokens: Field required", "thinking")
            if budget >= max_tokens:
                invalid("`max_tokens` must be greater than `thinking.budget_tokens`.", "max_tokens")
            if body.get("temperature") not in (None, 1, 1.0):
                invalid("`temperature` may only be set to 1 when thinking is enabled.", "temperature")
            if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
                invalid("Thinking may not be enabled when tool_choice forces tool use.", "tool_choice")
            _check_last(body["messages"])
        elif kind not in ("disabled", "adaptive"):
            invalid(f"thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags")


def _read_config(body: Json, ask: Ask) -> None:
    form = body.get("output_format")
    if form is not None:
        ask.form = an_object(form, "output_format").get("schema")
    config = body.get("output_config")
    if config is not None:
        known(
            an_object(config, "output_config"),
            names("effort format task_budget"),
            "output_config.{}: Extra inputs are not permitted",
        )
        a_word(config, "effort", _EFFORTS)
        form = config.get("format")
        if form is not None:
            ask.form = an_object(form, "output_config.format").get("schema")
            a_closed_schema(ask.form, "output_config.format.schema")


def _check_last(messages: list[Json]) -> None:
    """Who thinks by a budget wants to see why it has called tools."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number]["role"] == "assistant":
            content = messages[number]["content"]
            kinds = [block["type"] for block in content] if isinstance(content, list) else []
            if "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking"):
                invalid(
                    f"messages.{number}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                    f"`{kinds[0]}`. When `thinking` is enabled, a final `assistant` message must start with a thinking "
                    "block."
                )
            return
