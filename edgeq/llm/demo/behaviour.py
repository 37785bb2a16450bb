"""What the demo provider shall do with a request: options for all, directives for one.

Directives stand in the name of the model after a slash, or in the header x-mock, and go before the options:

    mock/tokens=64,rate=20,latency=50ms     gpt-4o/error=429,retry_after=2s,times=2     x-mock: cut=3

A word that needs no value may stand alone ("early"). Unknown ones are refused where the name begins with "mock/", so
that a test does not pass because of a typing error; any other name may have slashes of its own ("meta-llama/Llama-3").
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

from edgeq.config.base import Duration
from edgeq.config.units import parse_duration

PREFIX: Final = "mock/"
QUOTA: Final = 1
"""In place of a status in `error`: the account's money is gone, which is a 429 of OpenAI's that no waiting heals."""
NEVER: Final = -1
_AT_ONCE: Final = Duration(0)
_A_SECOND: Final = Duration(1)
_MAX_TOKENS: Final = 1_000_000
_SAY: Final = ("words", "echo", "show")
_USAGE: Final = ("on", "off", "last")
_STOP: Final = ("", "length", "refusal", "pause", "sequence")


@dataclass(frozen=True)
class Behaviour:
    """One request's worth. Field names are those of the directives; times are in seconds."""

    latency: Duration = _AT_ONCE
    """Until the first token."""
    jitter: Duration = _AT_ONCE
    """Added to it, at random from 0 to this."""
    rate: float = 0.0
    """Tokens per second; 0: all at once."""
    tokens: int = 16
    """Words of an answer. `max_tokens` of a request cuts it."""
    say: str = "words"
    """words: made up, always the same; echo: the last text of the user; show: the body of the request as it came."""
    think: int = 0
    """Words of reasoning before the answer."""
    tools: int = 0
    """Calls of tools, if the request has tools and its last turn is no result of one. Without it one is called where
    the request insists, and after results the last one: agents put there what ends them."""
    input: int = NEVER
    """Tokens of the request; -1: a quarter of its characters."""
    cached: int = 0
    """Of these, read from a cache."""
    cache_write: int = 0
    """Of these, written into one."""
    usage: str = "on"
    """off: never told; last: in streams of chat, in the chunk with the finish_reason as well."""
    stop: str = ""
    """Why it ends, if not by itself: length, refusal, pause, sequence."""
    window: int = 0
    """Requests of more tokens are refused as too long; 0: none is."""
    error: int = 0
    """Status of a refusal; "quota" for money that is gone."""
    retry_after: Duration = _A_SECOND
    """Of a 429, 503 or 529; 0: not told."""
    times: int = 0
    """Only so many requests of this key for this model fail (by error, fail, cut, reset, hang); 0: all."""
    chance: float = 1.0
    """Share of requests that fail so."""
    fail: int = NEVER
    """After so many events of a stream comes an error."""
    cut: int = NEVER
    """After so many events the connection is closed; a whole answer ends in its middle."""
    reset: int = NEVER
    """The same, with a reset."""
    hang: int = NEVER
    """After so many events nothing comes any more; 0: not even a head."""
    early: bool = False
    """The head is sent at once, before the first token."""
    split: int = 0
    """Bytes of each segment."""
    crlf: bool = False
    """Lines of a stream end with CRLF."""
    comments: bool = False
    """A comment stands before each event of a stream."""
    tag: str = ""
    """Means nothing: it makes a model's name, and with it its counts, unlike another's."""


DEFAULT: Final = Behaviour()
_DEFAULTS: Final[dict[str, object]] = {each.name: getattr(DEFAULT, each.name) for each in fields(Behaviour)}
NAMES: Final = tuple(_DEFAULTS)
_WORDS: Final = {"say": _SAY, "usage": _USAGE, "stop": _STOP, "tag": ()}


class BadDirective(Exception):
    """A directive that nobody knows, or a value that it cannot have; the message is for people."""


def of_model(model: str, base: Behaviour) -> Behaviour:
    """What the name of a model asks for, beyond `base`. Raises: BadDirective."""
    name, slash, text = model.partition("/")
    if not slash or not text:
        return base
    if model.startswith(PREFIX):
        return parse(text, base)
    first = text.partition(",")[0].partition("=")[0]
    return parse(text, base) if name and first in _DEFAULTS else base


def parse(text: str, base: Behaviour) -> Behaviour:
    """`base` with the directives of `text`, separated by commas. Raises: BadDirective."""
    changed: dict[str, object] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not name and not equals:
            continue
        name = name.replace("-", "_")
        if name not in _DEFAULTS:
            raise BadDirective(f"unknown directive {name!r}; known: {', '.join(NAMES)}")
        try:
            changed[name] = _value(name, value if equals else "1")
        except ValueError as error:
            raise BadDirective(f"{name}: {error}") from None
    return replace(base, **changed) if changed else base  # type: ignore[arg-type]


def _value(name: str, text: str) -> object:
    """The value of directive `name`, by the type of its default. Raises: ValueError."""
    default = _DEFAULTS[name]
    if isinstance(default, bool):
        if text not in ("0", "1"):
            raise ValueError("it is 1 or 0")
        return text == "1"
    if isinstance(default, Duration):
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    if isinstance(default, str):
        if _WORDS[name] and text not in _WORDS[name]:
            raise ValueError(f"it is one of {', '.join(word for word in _WORDS[name] if word)}")
        return text
    if name == "error" and text == "quota":
        return QUOTA
    try:
        number: int | float = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not 0 <= number <= _MAX_TOKENS:
        raise ValueError(f"it is a number from 0 to {_MAX_TOKENS}")
    if name == "error" and number and not 400 <= number <= 599:
        raise ValueError('it is a status from 400 to 599, or "quota"')
    return number
