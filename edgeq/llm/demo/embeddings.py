"""OpenAI's embeddings: /v1/embeddings. A vector is made of its text alone, of length 1."""

from __future__ import annotations

import base64
import struct
from hashlib import blake2b
from math import sqrt
from typing import Final

from edgeq.llm.demo.checks import Json, a_count, a_list, a_text, a_word, count_tokens, invalid, known, names
from edgeq.llm.demo.content import Ask

_FIELDS: Final = names("input model dimensions encoding_format user")
_FORMATS: Final = names("float base64")
_MAX_INPUTS: Final = 2048
_DEFAULT_SIZE: Final = 256
_MAX_SIZE: Final = 4096


def answer(body: Json) -> tuple[Ask, Json]:
    """The request, and its whole answer. Raises: Refusal."""
    known(body, _FIELDS, "Unrecognized request argument supplied: {}")
    model = a_text(body.get("model"), "model", empty=False)
    size = a_count(body, "dimensions") or _DEFAULT_SIZE
    if size > _MAX_SIZE:
        invalid(f"Invalid 'dimensions': expected a value <= {_MAX_SIZE}.", "dimensions")
    as_text = a_word(body, "encoding_format", _FORMATS) == "base64"
    texts = _inputs(body.get("input"))
    tokens = sum(_tokens(text) for text in texts)
    found = []
    for index, text in enumerate(texts):
        values = vector(str(text), size)
        packed = base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if as_text else values
        found.append({"object": "embedding", "index": index, "embedding": packed})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    ask = Ask(model, input_tokens=tokens)
    return ask, {"object": "list", "data": found, "model": model, "usage": usage}


def _inputs(value: object) -> list[object]:
    """A text, a list of texts, a list of tokens or a list of such lists."""
    if isinstance(value, str):
        values: list[object] = [value]
    else:
        values = a_list(value, "input", 1)
        if all(isinstance(each, int) for each in values):
            values = [values]
    if len(values) > _MAX_INPUTS:
        invalid(f"Invalid 'input': array too long. Expected at most {_MAX_INPUTS} elements.", "input")
    for each in values:
        if isinstance(each, list):
            if not each or not all(isinstance(token, int) for token in each):
                invalid("Invalid 'input': expected tokens.", "input")
        else:
            a_text(each, "input", empty=False)
    return values


def _tokens(value: object) -> int:
    return len(value) if isinstance(value, list) else count_tokens(value)


def vector(text: str, size: int) -> list[float]:
    """`size` numbers that depend on `text` alone, as a vector of length 1."""
    raw: list[int] = []
    block = 0
    while len(raw) < size:
        raw += blake2b(b"%d:%s" % (block, text.encode())).digest()
        block += 1
    values = [byte - 127.5 for byte in raw[:size]]
    length = sqrt(sum(value * value for value in values))
    return [round(value / length, 7) for value in values]
