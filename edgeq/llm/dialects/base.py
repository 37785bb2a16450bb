"""What the data path calls of every dialect's streams, and what the dialects share: names, ids, typed looks into JSON.

The looks take a parameter's path ("messages.role") for the error: whatever is wrong with a request is the caller's to
mend, so it is `Unmappable`, with that path.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import orjson

from edgeq.llm.message import DELTA, FAILURE, FINISH, PART_END, PART_START, START, UNKNOWN, Unmappable, Usage

if TYPE_CHECKING:
    from edgeq.llm.message import Event, Failed, Part, Request

# Names of dialects, as in [provider.NAME] dialect and in Request.dialect.
OPENAI: Final = "openai"
"""Chat completions."""
ANTHROPIC: Final = "anthropic"
GEMINI: Final = "gemini"
RESPONSES: Final = "responses"
"""OpenAI's, for clients only."""
EMBEDDINGS: Final = "embeddings"

TEXT_OR_LIST: Final = "a string or a list"
"""What most contents may be."""

GEMINI_SIGNATURE: Final = "gemini#"
"""Before a signature of Gemini's wherever it is kept for the next turn: another provider's must never be sent to it,
nor its own to another. "#" is in no base64."""

REDACTED: Final = "redacted#"
"""Before thoughts that are nothing but encrypted, where a dialect cannot tell them from the signature of one that is
not shown: Anthropic has another block for them, and refuses one as the other."""


class StreamDecoder:
    """A provider's stream as events. One for each answer."""

    def feed(self, data: bytes) -> list[Event]:
        """Bytes of the event stream, cut anywhere.

        Returns: whole events; nothing after a FAILURE.
        Raises: ValueError if an event is longer than is taken.
        """
        raise NotImplementedError

    def end(self) -> list[Event]:
        """The connection has ended. Returns: FINISH if all of the answer had come; otherwise FAILURE, once."""
        raise NotImplementedError


class StreamEncoder:
    """Events as a client's stream. One for each answer."""

    def __init__(self, model: str, wants_usage: bool, input_tokens: int, created: int) -> None:
        """Args: model as the client calls it; input_tokens an estimate, for a dialect that tells it before it is known;
        created in Unix seconds."""
        self.model: str = model
        self.wants_usage: bool = wants_usage
        self.input_tokens: int = input_tokens
        self.created: int = created
        self.output_tokens: int = 0
        """About as many have come so far, for a dialect that must name a number where the provider tells none."""
        self.request_id: str = ""
        """edgeq's, for errors, where their shape has room for it."""
        self.begun: bool = False
        """Something other than comments has been encoded."""
        self.finished: bool = False
        """FINISH was encoded."""

    def answers(self, request: Request) -> None:
        """Before anything is encoded: what the client has asked, if its dialect has that told again."""

    def encode(self, events: list[Event]) -> bytes:
        """Whole server-sent events; perhaps none."""
        out: list[bytes] = []
        for event in events:
            kind = event.kind
            if kind == DELTA:
                self._encode_delta(event, out)
            elif kind == PART_START:
                self._encode_part_start(event, out)
            elif kind == PART_END:
                self._encode_part_end(event, out)
            elif kind == START:
                self._encode_start(event, out)
            elif kind == FINISH:
                self._encode_finish(event, out)
            elif kind == FAILURE:
                self._encode_failure(event, out)
            else:
                out.append(self.keepalive())
        return b"".join(out)

    def about(self, usage: Usage | None) -> Usage:
        """The usage of the whole answer, with estimates of what nobody has told. (The event's own is what the request
        is charged.)"""
        if usage is None:
            return Usage(self.input_tokens, self.output_tokens)
        return usage.or_else(self.input_tokens, self.output_tokens)

    def cut(self, failed: Failed) -> bytes:
        """The last event of a stream that has begun and cannot go on; empty: that of the dialect will do."""
        return b""

    def _encode_start(self, event: Event, out: list[bytes]) -> None:
        """START. Each of these adds its bytes to `out`."""
        raise NotImplementedError

    def _encode_part_start(self, event: Event, out: list[bytes]) -> None:
        """PART_START."""
        raise NotImplementedError

    def _encode_delta(self, event: Event, out: list[bytes]) -> None:
        """DELTA."""
        raise NotImplementedError

    def _encode_part_end(self, event: Event, out: list[bytes]) -> None:
        """PART_END."""
        raise NotImplementedError

    def _encode_finish(self, event: Event, out: list[bytes]) -> None:
        """FINISH."""
        raise NotImplementedError

    def _encode_failure(self, event: Event, out: list[bytes]) -> None:
        """FAILURE."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What says that a finished stream is over; empty if it never finished."""
        raise NotImplementedError

    def keepalive(self) -> bytes:
        """What tells the client that edgeq is still there, and nothing else."""
        return b":\n\n"


def answer_id(prefix: str, known: str) -> str:
    """An id that looks as the dialect's ids do. Args: known is the provider's, or empty."""
    if known.startswith(prefix):
        return known
    return prefix + (known or secrets.token_hex(12))


def why_not_json(body: bytes, otherwise: str) -> Unmappable:
    """What is wrong with a body that could not be read. `otherwise`: what the reader has said."""
    if not body.strip():
        return Unmappable("", "the body is empty")
    said = otherwise
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        said = str(error)
    if "surrogate in string" in said:
        place = said.rpartition(": ")[2]
        return Unmappable("", f"the body is not JSON: half of a surrogate pair (\\ud800 to \\udfff) alone: {place}")
    return Unmappable("", "the body is not UTF-8" if "UTF-8" in said else f"the body is not JSON: {said}")


def about_element(error: Unmappable, name: str, number: int) -> Unmappable:
    """The same about an element of the list `name`: "messages.role" becomes "messages[3].role"."""
    param = error.param
    if param != name and not param.startswith((f"{name}.", f"{name}[")):
        return error
    exact = f"{name}[{number}]{param[len(name) :]}"
    return Unmappable(exact, error.message.replace(param, exact, 1))


def param_of(part: Part, name: str) -> str:
    """What the client calls something of a part, "messages[3].content[1].image"; the part itself if it has no name."""
    place = part.place or "messages.content"
    return f"{place}.{name}" if name else place


def as_object(body: bytes) -> dict[str, Any]:
    """Raises: Unmappable if it is no JSON object."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise why_not_json(body, str(error)) from None
    if not isinstance(value, dict):
        raise Unmappable("", "the body must be a JSON object")
    return value


def text_at(of: dict[str, Any], key: str, param: str) -> str:
    """Empty if it is absent or null."""
    value = of.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unmappable(param, f"{param} must be a string")
    return value


def flag_at(of: dict[str, Any], key: str, param: str) -> bool | None:
    """None if it is absent or null."""
    value = of.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise Unmappable(param, f"{param} must be true or false")


def count_at(of: dict[str, Any], key: str, param: str, least: int) -> int | None:
    """A whole number of at least `least`; None if it is absent or null."""
    value = of.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unmappable(param, f"{param} must be a whole number")
    if value < least:
        raise Unmappable(param, f"{param} must be at least {least}")
    return value


def number_at(of: dict[str, Any], key: str, param: str, least: float, most: float) -> float | None:
    """A number within bounds; None if it is absent or null."""
    value = of.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unmappable(param, f"{param} must be a number")
    number = float(value)
    if not least <= number <= most:
        raise Unmappable(param, f"{param} must be from {least:g} to {most:g}")
    return number


def list_at(of: dict[str, Any], key: str, param: str, wanted: str = "a list") -> list[Any]:
    """Empty if it is absent or null. `wanted`: what it must be, if that is not only a list."""
    value = of.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unmappable(param, f"{param} must be {wanted}")
    return value


def objects_at(of: dict[str, Any], key: str, param: str, wanted: str = "a list") -> list[dict[str, Any]]:
    """Empty if it is absent or null."""
    values = list_at(of, key, param, wanted)
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise Unmappable(f"{param}[{number}]", f"{param}[{number}] must be an object")
    return values


def object_at(of: dict[str, Any], key: str, param: str) -> dict[str, Any] | None:
    """None if it is absent or null."""
    value = of.get(key)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Unmappable(param, f"{param} must be an object")
    return value


def tokens(of: dict[str, Any] | None, key: str) -> int:
    """A number of tokens in what a provider tells; 0 where it does not tell it as a whole number."""
    return 0 if of is None else max(0, count_told(of.get(key)))


def count_told(value: Any) -> int:
    """What a provider tells, if it is a whole number (to Python `true` is one); at least 0, or UNKNOWN."""
    if not isinstance(value, int) or isinstance(value, bool):
        return UNKNOWN
    return value if value > 0 else 0  # noqa: FURB136 - a call when compiled


def known_object(value: Any) -> dict[str, Any] | None:
    """`value` if it is an object, for what providers send: they are not told what is wrong with it."""
    return value if isinstance(value, dict) else None
