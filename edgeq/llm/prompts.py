"""Prompts that are paths of their own: POST of variables in, text or JSON out.

A prompt becomes a conversation in no dialect (`message.Request`) and goes on like any other request, by the terms of
its route and its own. Several versions may share a path; the last in the file answers who names none.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.config.findings import did_you_mean
from edgeq.llm.message import STOP_END, STOP_LENGTH, TEXT, Message, Part, Request, Usage
from edgeq.llm.template import Template
from edgeq.llm.variables import read_values, schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeq.config.schema_llm import Prompt as Settings
    from edgeq.llm.message import Answer
    from edgeq.llm.prompt_cache import PromptCache

_NOT_IN_SCHEMA_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")


class NotJson(Exception):
    """The model has not answered as its prompt demands. It has answered, and is paid."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.usage: Usage = Usage()


class Prompt:
    """One version of a prompt. `settings` has its route, limits and priority."""

    __slots__ = ("_messages", "_schema", "cache", "mark", "settings")

    def __init__(self, settings: Settings, cache: PromptCache | None = None) -> None:
        """`cache`: its own. Raises: ValueError for what `check_prompts` refuses."""
        self.settings: Settings = settings
        self.cache: PromptCache | None = cache
        self.mark: str = blake2b(repr(settings).encode(), digest_size=8).hexdigest()
        """Of all that it says: answers to what it said before are not to be given again."""
        self._messages: list[tuple[str, Template]] = [(one.role, Template(one.text)) for one in settings.messages]
        self._schema: dict[str, Any] | None = orjson.loads(settings.json_schema) if settings.json_schema else None

    def request(self, body: bytes) -> Request:
        """What is asked with these variables. Raises: Unmappable, which names the variable."""
        settings = self.settings
        values = read_values(body, settings.variables)
        messages = [Message(role, [Part(TEXT, template.render(values))]) for role, template in self._messages]
        request = Request(settings.model, messages)
        if settings.max_tokens > 0:
            request.max_tokens = settings.max_tokens
        if settings.temperature >= 0.0:
            request.temperature = settings.temperature
        if self._schema is not None:
            request.response_format = "schema"
            request.schema_name = _NOT_IN_SCHEMA_NAME.sub("_", settings.name)[:64]
            request.schema = self._schema
        elif settings.answer == "json":
            request.response_format = "json"
        return request

    def answer(self, answer: Answer) -> bytes:
        """What the client gets as application/json, for `answer` "text" and "json"; a "chat" is written by its dialect.

        Raises: NotJson.
        """
        text = "".join([part.text for part in answer.parts if part.kind == TEXT])
        if self.settings.answer != "json":
            if answer.stop == STOP_END:
                return orjson.dumps({"text": text})
            return orjson.dumps({"text": text, "stop": answer.stop})
        data = text.strip().encode()
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError:
            why = "what the model has answered is no JSON"
            raise NotJson(f"{why}: it was cut at max_tokens" if answer.stop == STOP_LENGTH else why) from None
        return data

    def description(self, versions: list[str]) -> bytes:
        """For GET: what to send, as JSON Schema. Not the texts, which are the operator's."""
        settings = self.settings
        answer: dict[str, Any] = {"type": "object"}
        if settings.answer == "json":
            answer = self._schema or answer
        elif settings.answer == "text":
            answer = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        return orjson.dumps(
            {
                "name": settings.name,
                "path": settings.path,
                "version": settings.version,
                "versions": versions,
                "request": schema_of(settings.variables),
                "answer": answer,
            }
        )


def said(request: Request) -> dict[str, Any]:
    """What a prompt says with its variables: the model is asked nothing else, whatever they are called."""
    return {"messages": [message.parts[0].text for message in request.messages]}


class Prompts:
    """All prompts of a configuration; replaced whole at a reload."""

    __slots__ = ("_by_path",)

    def __init__(self, prompts: tuple[Settings, ...], caches: Mapping[str, PromptCache] | None = None) -> None:
        """`caches`: of those that have one of their own, by its `cache_name`."""
        self._by_path: dict[bytes, dict[str, Prompt]] = {}
        for one in prompts:
            cache = None if caches is None else caches.get(one.cache_name())
            self._by_path.setdefault(one.path.encode(), {})[one.version] = Prompt(one, cache)

    def find(self, path: bytes, version: str) -> Prompt | None:
        """By a path without its query, and the version that it asks for; empty: the default."""
        versions = self._by_path.get(path)
        if versions is None:
            return None
        if not version:
            return versions[next(reversed(versions))]
        return versions.get(version)

    def near(self, path: bytes) -> str:
        """What is to be told of paths of prompts to who has asked for one that is none; empty: there are no prompts."""
        if not self._by_path:
            return ""
        known = [one.decode("latin-1") for one in self._by_path]
        return f", or are those of prompts{did_you_mean(path.decode('latin-1'), known)}"

    def versions(self, path: bytes) -> list[str]:
        """At this path, in the order of the file; empty: there is no prompt, and a 404 is another one's."""
        return list(self._by_path.get(path, {}))
