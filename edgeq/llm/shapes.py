"""What is looked at in bodies that pass through: as little as can be, decoded by msgspec, which skips the rest.

Never compiled: msgspec makes these classes, and reads their annotations while edgeq runs.
"""

from __future__ import annotations

from typing import Any

import msgspec


class StreamOptions(msgspec.Struct):
    """`stream_options` of a chat completion."""

    include_usage: bool | None = None


class Metadata(msgspec.Struct):
    """`metadata` of a message; of a chat completion it may be anything."""

    user_id: Any = None


class Peek(msgspec.Struct):
    """What edgeq must know of a request whose bytes it passes on, in any dialect that clients speak."""

    model: str = ""
    """Empty: the request names none."""
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    """The same in OpenAI's responses."""
    stream_options: StreamOptions | None = None
    n: int | None = None
    user: str | None = None
    metadata: Metadata | None = None

    @property
    def user_id(self) -> str:
        """Who is behind the client, as it says; empty if it does not."""
        if self.user:
            return self.user
        told = self.metadata.user_id if self.metadata is not None else None
        return told if isinstance(told, str) else ""


class Beginning(msgspec.Struct):
    """What a prompt begins with, undecoded, in any dialect that clients speak."""

    tools: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    """Anthropic's; `instructions` is OpenAI's in responses, `input` what goes for messages there."""
    instructions: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class ReadDetails(msgspec.Struct):
    """OpenAI's prompt_tokens_details, input_tokens_details."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class WrittenDetails(msgspec.Struct):
    """OpenAI's completion_tokens_details and output_tokens_details, Anthropic's output_tokens_details."""

    reasoning_tokens: int | None = None
    thinking_tokens: int | None = None


class Told(msgspec.Struct):
    """A `usage` of OpenAI (chat: prompt and completion; responses: input and output) or Anthropic."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    prompt_tokens_details: ReadDetails | None = None
    input_tokens_details: ReadDetails | None = None
    completion_tokens_details: WrittenDetails | None = None
    output_tokens_details: WrittenDetails | None = None


class TellsUsage(msgspec.Struct):
    """Whatever has a usage: an answer, a chunk, Anthropic's message_delta."""

    usage: Told | None = None


class Chunk(TellsUsage):
    """A chunk of OpenAI's that has a usage."""

    choices: msgspec.Raw = msgspec.Raw()
    """Of one that tells nothing else it is an empty list."""


class Begins(msgspec.Struct):
    """Anthropic's message_start."""

    message: TellsUsage | None = None


class Choice(msgspec.Struct):
    """One of the answers of which a chunk of a chat completion tells."""

    index: int = 0
    finish_reason: str | None = None


class Choices(msgspec.Struct):
    """A chunk of a chat completion."""

    choices: list[Choice] = []


class Named(msgspec.Struct):
    """Only the model, to see that it is what it was made to be."""

    model: str = ""


as_beginning = msgspec.json.Decoder(Beginning)
as_peek = msgspec.json.Decoder(Peek)
as_usage = msgspec.json.Decoder(TellsUsage)
as_chunk = msgspec.json.Decoder(Chunk)
as_begins = msgspec.json.Decoder(Begins)
as_choices = msgspec.json.Decoder(Choices)
as_named = msgspec.json.Decoder(Named)
