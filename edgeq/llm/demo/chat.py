"""OpenAI's chat completions, asked: /v1/chat/completions."""

from __future__ import annotations

import re
from typing import Any, Final

from edgeq.llm.demo.checks import (
    Json,
    a_count,
    a_flag,
    a_list,
    a_number,
    a_strict_schema,
    a_text,
    a_word,
    an_object,
    count_tokens,
    invalid,
    known,
    names,
)
from edgeq.llm.demo.content import ANY_JSON, Ask, Tool

_FIELDS: Final = names(
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages "
    "metadata modalities model n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream "
    "stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options"
)
_UNKNOWN: Final = "Unrecognized request argument supplied: {}"
_ROLES: Final = names("system developer user assistant tool")
_PARTS: Final = {
    "system": names("text"),
    "developer": names("text"),
    "user": names("text image_url input_audio file"),
    "assistant": names("text refusal"),
    "tool": names("text"),
}
_MESSAGE: Final = frozenset(
    ("role", "content", "name", "tool_calls", "tool_call_id", "refusal", "audio", "function_call", "annotations",
     "reasoning_content")
)  # fmt: skip
_EFFORTS: Final = names("none minimal low medium high xhigh max")
_TIERS: Final = names("auto default flex scale priority")
_CHOICES: Final = names("auto none required")
_FORMATS: Final = names("text json_object json_schema")
NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DATA_URL: Final = re.compile(r"data:image/(?:png|jpeg|jpg|gif|webp);base64,[A-Za-z0-9+/]+=*|https?://.+", re.DOTALL)


def read(body: Json) -> Ask:
    """What a request asks. Raises: Refusal."""
    known(body, _FIELDS, _UNKNOWN)
    ask = Ask(a_text(body.get("model"), "model", empty=False))
    messages = a_list(body.get("messages"), "messages", 1)
    _read_messages(messages, ask)
    ask.stream = a_flag(body, "stream")
    _read_limits(body, ask)
    _read_tools(body, ask)
    _read_format(body, ask)
    ask.input_tokens = count_tokens([messages, body.get("tools")])
    return ask


def _read_limits(body: Json, ask: Ask) -> None:
    ask.max_tokens = a_count(body, "max_completion_tokens")
    limit = a_count(body, "max_tokens")
    if limit is not None:
        if ask.max_tokens is not None:
            invalid("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", "max_tokens")
        ask.max_tokens = limit
    a_number(body, "temperature", 0, 2)
    a_number(body, "top_p", 0, 1)
    a_number(body, "frequency_penalty", -2, 2)
    a_number(body, "presence_penalty", -2, 2)
    a_word(body, "reasoning_effort", _EFFORTS)
    a_word(body, "service_tier", _TIERS)
    ask.choices = a_count(body, "n") or 1
    if ask.choices > 128:
        invalid("Invalid 'n': integer above maximum value. Expected a value <= 128.", "n")
    if a_count(body, "top_logprobs", 0) is not None and not a_flag(body, "logprobs"):
        invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs")
    stop = body.get("stop")
    if stop is not None:
        ask.stop_sequences = (
            [stop] if isinstance(stop, str) else [a_text(each, "stop") for each in a_list(stop, "stop")]
        )
        if len(ask.stop_sequences) > 4:
            invalid("Invalid 'stop': array too long. Expected an array with maximum length 4.", "stop")
    options = body.get("stream_options")
    if options is not None:
        if not ask.stream:
            invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
        known(an_object(options, "stream_options"), names("include_usage include_obfuscation"), _UNKNOWN)
        ask.include_usage = a_flag(options, "include_usage")


def _read_messages(messages: list[Any], ask: Ask) -> None:
    open_calls: set[str] = set()
    for index, each in enumerate(messages):
        where = f"messages[{index}]"
        message = an_object(each, where)
        known(message, _MESSAGE, "Unknown parameter: '" + where + ".{}'.")
        role = a_word(message, "role", _ROLES)
        if not role:
            invalid(f"Missing required parameter: '{where}.role'.", f"{where}.role")
        if role == "tool":
            call = a_text(message.get("tool_call_id"), f"{where}.tool_call_id", empty=False)
            if call not in open_calls:
                invalid(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    f"{where}.role",
                )
            open_calls.discard(call)
        elif open_calls:
            invalid(_unanswered(open_calls), where)
        calls = message.get("tool_calls")
        if calls is not None:
            if role != "assistant":
                invalid(f"'tool_calls' is not allowed for role '{role}'.", f"{where}.tool_calls")
            open_calls = _read_calls(calls, f"{where}.tool_calls")
        said = _read_content(message, role, where, calls is None)
        if role == "user":
            ask.said = said
    if open_calls:
        invalid(_unanswered(open_calls), f"messages[{len(messages) - 1}]")
    ask.may_call = messages[-1]["role"] != "tool"


def _unanswered(calls: set[str]) -> str:
    return (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(sorted(calls))}"
    )


def _read_calls(calls: object, where: str) -> set[str]:
    found: set[str] = set()
    for call in a_list(calls, where, 1):
        an_object(call, where)
        if call.get("type") != "function":
            invalid(f"Invalid value for '{where}.type': only 'function' is supported.", f"{where}.type")
        function = an_object(call.get("function"), f"{where}.function")
        a_text(function.get("name"), f"{where}.function.name", empty=False)
        a_text(function.get("arguments"), f"{where}.function.arguments")
        found.add(a_text(call.get("id"), f"{where}.id", empty=False))
    return found


def _read_content(message: Json, role: str, where: str, needed: bool) -> str:
    """Check the content of a message. Returns its text."""
    content = message.get("content")
    if content is None:
        if role != "assistant" or (needed and not message.get("refusal") and not message.get("audio")):
            invalid(f"Invalid value for 'content': expected a string, got null in {where}.", f"{where}.content")
        return ""
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for index, part in enumerate(a_list(content, f"{where}.content", 1)):
        at = f"{where}.content[{index}]"
        kind = an_object(part, at).get("type")
        if kind not in _PARTS[role]:
            invalid(f"Invalid value: '{kind}'. Supported values are: {', '.join(sorted(_PARTS[role]))}.", f"{at}.type")
        if kind == "text":
            texts.append(a_text(part.get("text"), f"{at}.text"))
        elif kind == "image_url":
            url = a_text(an_object(part.get("image_url"), f"{at}.image_url").get("url"), f"{at}.image_url.url")
            if not _DATA_URL.fullmatch(url):
                invalid("Invalid image: expected a base64-encoded data URL or an HTTP URL.", f"{at}.image_url.url")
        elif kind == "file":
            an_object(part.get("file"), f"{at}.file")
        elif kind == "input_audio":
            an_object(part.get("input_audio"), f"{at}.input_audio")
        else:
            a_text(part.get("refusal"), f"{at}.refusal")
    return " ".join(texts)


def _read_tools(body: Json, ask: Ask) -> None:
    tools = body.get("tools")
    if tools is not None:
        for index, tool in enumerate(a_list(tools, "tools", 1)):
            where = f"tools[{index}]"
            if an_object(tool, where).get("type") != "function":
                invalid(f"Invalid value for '{where}.type': only 'function' is supported.", f"{where}.type")
            function = an_object(tool.get("function"), f"{where}.function")
            known(
                function,
                names("name description parameters strict"),
                "Unknown parameter: '" + where + ".function.{}'.",
            )
            if a_flag(function, "strict"):
                a_strict_schema(function.get("parameters"), f"{where}.function.parameters")
            ask.tools.append(Tool(read_name(function, f"{where}.function"), function.get("parameters") or {}))
    choice = body.get("tool_choice")
    if choice is not None:
        if not ask.tools:
            invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
        if isinstance(choice, dict):
            function = an_object(choice.get("function"), "tool_choice.function")
            ask.must_call = a_text(function.get("name"), "tool_choice.function.name", empty=False)
            if ask.must_call not in [tool.name for tool in ask.tools]:
                invalid(f"Tool choice '{ask.must_call}' not found in 'tools' parameter.", "tool_choice")
        elif a_word(body, "tool_choice", _CHOICES) == "required":
            ask.must_call = "*"
        elif choice == "none":
            ask.may_call = False
    if body.get("parallel_tool_calls") is not None:
        if not ask.tools:
            invalid("'parallel_tool_calls' is only allowed when 'tools' are specified.", "parallel_tool_calls")
        ask.parallel = a_flag(body, "parallel_tool_calls")


def read_name(function: Json, where: str) -> str:
    """The name of a function; what `parameters` has must be a schema of an object."""
    name = a_text(function.get("name"), f"{where}.name", empty=False)
    if not NAME.fullmatch(name):
        invalid(f"Invalid '{where}.name': string does not match pattern '^[a-zA-Z0-9_-]+$'.", f"{where}.name")
    parameters = function.get("parameters")
    if parameters is not None and an_object(parameters, f"{where}.parameters").get("type", "object") != "object":
        invalid(
            f"Invalid schema for function '{name}': schema must be a JSON Schema of 'type: \"object\"'.",
            f"{where}.parameters",
        )
    return name


def _read_format(body: Json, ask: Ask) -> None:
    wanted = body.get("response_format")
    if wanted is None:
        return
    kind = an_object(wanted, "response_format").get("type")
    if kind not in _FORMATS:
        invalid(
            f"Invalid value: '{kind}'. Supported values are: {', '.join(sorted(_FORMATS))}.", "response_format.type"
        )
    if kind == "json_object":
        ask.form = ANY_JSON
    if kind == "json_schema":
        schema = an_object(wanted.get("json_schema"), "response_format.json_schema")
        ask.form = schema.get("schema") or ANY_JSON
        a_text(schema.get("name"), "response_format.json_schema.name", empty=False)
        if a_flag(schema, "strict"):
            a_strict_schema(schema.get("schema"), "response_format")
