"""Google's Gemini: /v1beta/models/MODEL:generateContent, :streamGenerateContent, :countTokens, :embedContent,
:batchEmbedContents.

Its JSON is that of protocol buffers: names in camelCase or snake_case, and unknown ones are refused.
"""

from __future__ import annotations

import re
from typing import Any, Final

from edgeq.llm.demo.checks import Json, a_count, a_list, a_number, a_text, an_object, count_tokens, invalid, names
from edgeq.llm.demo.content import ANY_JSON, Ask, Tool

_FIELDS: Final = names(
    "contents systemInstruction tools toolConfig generationConfig safetySettings cachedContent labels model "
    "serviceTier store"
)
_CONFIG: Final = names(
    "stopSequences responseMimeType responseSchema responseJsonSchema responseModalities candidateCount "
    "maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs "
    "thinkingConfig mediaResolution speechConfig imageConfig enableEnhancedCivicAnswers"
)
_PART: Final = names(
    "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult thought "
    "thoughtSignature videoMetadata mediaResolution partMetadata"
)
_DATA: Final = names("text inlineData fileData functionCall functionResponse executableCode codeExecutionResult")
_DECLARATION: Final = names("name description parameters parametersJsonSchema response responseJsonSchema behavior")
_SCHEMA: Final = names(
    "type format title description nullable enum maxItems minItems properties required minProperties maxProperties "
    "minLength maxLength pattern example anyOf propertyOrdering default items minimum maximum"
)
_TYPES: Final = names("STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_MODES: Final = names("MODE_UNSPECIFIED AUTO ANY NONE VALIDATED")


def read(body: Json, model: str) -> Ask:
    """What a request asks. Raises: Refusal."""
    body = plain(body, _FIELDS, "")
    ask = Ask(model, include_usage=True)
    contents = a_list(body.get("contents"), "contents", 1)
    _read_contents(contents, ask)
    system = body.get("systemInstruction")
    if system is not None:
        content = plain(an_object(system, "system_instruction"), names("role parts"), "system_instruction")
        for part in a_list(content.get("parts"), "system_instruction.parts", 1):
            a_text(an_object(part, "system_instruction.parts").get("text"), "system_instruction.parts.text")
    _read_config(body.get("generationConfig"), ask)
    _read_tools(body, ask)
    if ask.tools and "gemini-3" not in model and (body.get("generationConfig") or {}).get("responseMimeType"):
        invalid("Function calling with a response mime type: 'application/json' is unsupported")
    ask.input_tokens = count_tokens([contents, system, body.get("tools")])
    return ask


def read_counted(body: Json, model: str) -> Ask:
    """A request to count tokens: `contents`, or a whole request."""
    inner = body.get("generateContentRequest", body.get("generate_content_request"))
    return read(body if inner is None else an_object(inner, "generateContentRequest"), model)


def plain(value: Json, allowed: frozenset[str], where: str) -> Json:
    """The object with its names in camelCase. Refuses others than `allowed`."""
    found: Json = {}
    for name, each in value.items():
        first, *rest = name.split("_")
        plain = first + "".join(word[:1].upper() + word[1:] for word in rest)
        if plain not in allowed:
            at = f" at '{where}'" if where else ""
            invalid(f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.', name)
        found[plain] = each
    return found


def _read_contents(contents: list[Any], ask: Ask) -> None:
    calls = 0
    """In the turn before."""
    for index, each in enumerate(contents):
        where = f"contents[{index}]"
        content = plain(an_object(each, where), names("role parts"), where)
        role = content.get("role", "user")
        if role not in ("user", "model", "function"):
            invalid("Please use a valid role: user, model.", f"{where}.role")
        parts = [
            _read_part(part, f"{where}.parts[{number}]")
            for number, part in enumerate(a_list(content.get("parts"), f"{where}.parts"))
        ]
        if not parts:
            invalid("Unable to submit request because it must have at least one parts field.", where)
        called = sum("functionCall" in part for part in parts)
        answered = sum("functionResponse" in part for part in parts)
        if called and role != "model":
            invalid("Function calls are the model's.", where)
        if called and index == 0:
            invalid(
                "Please ensure that function call turn comes immediately after a user turn or after a function "
                "response turn.",
                where,
            )
        if answered != calls:
            invalid(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn.",
                where,
            )
        calls = called
        if role == "user":
            texts = [part["text"] for part in parts if "text" in part]
            ask.said = " ".join(texts) if texts else ask.said
        ask.may_call = not answered
    if calls:
        invalid("Please ensure that function response turn comes immediately after a function call turn.", "contents")


def _read_part(value: object, where: str) -> Json:
    part = plain(an_object(value, where), _PART, where)
    kinds = [name for name in part if name in _DATA]
    if len(kinds) != 1:
        invalid(f"Invalid value at '{where}' (oneof), oneof field 'data' must have exactly one initialized field.")
    value = part[kinds[0]]
    if kinds[0] == "text":
        a_text(value, f"{where}.text")
        return part
    inner = an_object(value, f"{where}.{kinds[0]}")
    if kinds[0] == "inlineData":
        inner = plain(inner, names("mimeType data displayName"), where)
        a_text(inner.get("mimeType"), f"{where}.inline_data.mime_type", empty=False)
        a_text(inner.get("data"), f"{where}.inline_data.data", empty=False)
    elif kinds[0] == "functionCall":
        inner = plain(inner, names("id name args"), where)
        a_text(inner.get("name"), f"{where}.function_call.name", empty=False)
        an_object(inner.get("args", {}), f"{where}.function_call.args")
    elif kinds[0] == "functionResponse":
        inner = plain(inner, names("id name response willContinue scheduling parts"), where)
        if not inner.get("name"):
            invalid(f"* GenerateContentRequest.{where}.function_response.name: Name cannot be empty.", where)
        an_object(inner.get("response"), f"{where}.function_response.response")
    return part


def _read_config(value: object, ask: Ask) -> None:
    if value is None:
        return
    config = plain(an_object(value, "generation_config"), _CONFIG, "generation_config")
    ask.max_tokens = a_count(config, "maxOutputTokens")
    a_number(config, "temperature", 0, 2)
    a_number(config, "topP", 0, 1)
    a_number(config, "topK", 1, 1_000_000)
    ask.choices = a_count(config, "candidateCount") or 1
    sequences = a_list(config.get("stopSequences", []), "generation_config.stop_sequences")
    ask.stop_sequences = [a_text(each, "generation_config.stop_sequences") for each in sequences]
    if len(sequences) > 5:
        invalid("stop_sequences: at most 5 are supported.", "stop_sequences")
    thinking = config.get("thinkingConfig")
    if thinking is not None:
        plain(
            an_object(thinking, "thinking_config"),
            names("thinkingBudget includeThoughts thinkingLevel"),
            "generation_config.thinking_config",
        )
    if config.get("responseMimeType") == "application/json":
        ask.form = config.get("responseJsonSchema") or config.get("responseSchema") or ANY_JSON
    if config.get("responseSchema") is not None:
        if config.get("responseMimeType") != "application/json":
            invalid("responseSchema is only supported with response mime type application/json", "response_schema")
        _check_schema(config["responseSchema"], "generation_config.response_schema")


def _read_tools(body: Json, ask: Ask) -> None:
    for number, tool in enumerate(a_list(body.get("tools", []), "tools")):
        where = f"tools[{number}]"
        for name, value in an_object(tool, where).items():
            if name not in ("functionDeclarations", "function_declarations"):
                continue  # a tool of the provider's own
            for index, each in enumerate(a_list(value, f"{where}.function_declarations")):
                at = f"{where}.function_declarations[{index}]"
                declaration = plain(an_object(each, at), _DECLARATION, at)
                called = a_text(declaration.get("name"), f"{at}.name")
                if not _NAME.fullmatch(called):
                    invalid(f"* GenerateContentRequest.{at}.name: Invalid function name.", at)
                schema = declaration.get("parameters")
                if schema is not None:
                    _check_schema(schema, f"{at}.parameters")
                ask.tools.append(Tool(called, schema or declaration.get("parametersJsonSchema") or {}))
    config = body.get("toolConfig")
    if config is None:
        return
    calling = plain(
        an_object(config, "tool_config"),
        names("functionCallingConfig retrievalConfig includeServerSideToolInvocations"),
        "tool_config",
    ).get("functionCallingConfig")
    if calling is None:
        return
    calling = plain(
        an_object(calling, "tool_config.function_calling_config"),
        names("mode allowedFunctionNames streamFunctionCallArguments"),
        "tool_config.function_calling_config",
    )
    mode = calling.get("mode", "AUTO")
    allowed = a_list(calling.get("allowedFunctionNames", []), "allowed_function_names")
    if mode not in _MODES:
        invalid(f"Invalid value at 'tool_config.function_calling_config.mode': {mode!r}", "mode")
    if allowed and mode not in ("ANY", "VALIDATED"):
        invalid("Allowed function names are only supported when the mode is ANY or VALIDATED.", "tool_config")
    if mode == "ANY":
        if not ask.tools:
            invalid("Function calling mode ANY needs function declarations.", "tool_config")
        ask.must_call = allowed[0] if allowed else "*"
    elif mode == "NONE":
        ask.may_call = False


def _check_schema(value: object, where: str) -> None:
    """A schema is OpenAPI's, a part of JSON Schema: $schema, $ref, additionalProperties, oneOf are unknown to it."""
    schema = plain(an_object(value, where), _SCHEMA, where)
    kind = schema.get("type")
    if kind is not None and str(kind).upper() not in _TYPES:
        invalid(
            f"Invalid value at '{where}.type' (type.googleapis.com/google.ai.generativelanguage.v1beta.Type), {kind!r}"
        )
    for name, each in an_object(schema.get("properties", {}), f"{where}.properties").items():
        _check_schema(each, f"{where}.properties[{name}]")
    if schema.get("items") is not None:
        _check_schema(schema["items"], f"{where}.items")
    for index, each in enumerate(a_list(schema.get("anyOf", []), f"{where}.any_of")):
        _check_schema(each, f"{where}.any_of[{index}]")
