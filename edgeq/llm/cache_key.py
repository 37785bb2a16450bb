"""Which requests for a model are the same: what their answers may be exchanged by.

A key is a digest of the request as its client's dialect says it, without what does not change the answer. Of the
object's own fields the order does not count; inside them it does, because models write an object in the order of its
schema. Temperature does not count either: a random answer that was drawn once is as good as another one to whoever has
switched the cache on (LiteLLM, Portkey and Helicone do the same; whoever wants variety leaves `cache` out).

A stream is not the same as a whole answer, nor one with usage as one without: what is stored is what was sent.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import orjson

_IGNORED: Final = frozenset(
    (
        "metadata",
        "model",  # counts as it was resolved, so that an alias is the same
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "stream",
        "stream_options",
        "user",
    )
)
"""Who asks, what it is filed under, and how fast or cheap it shall be."""

_STATEFUL: Final = ("background", "container", "conversation", "store")
"""What an answer leaves behind at the provider, or depends on; nothing or false: it does not. (Not said, responses are
stored as well, but then nobody has asked for it.)"""


def request_key(body: dict[str, Any], operation: str, model: str, tenant: str) -> bytes:
    """The key of a request, 16 bytes; empty: its answer must not be kept.

    Args: operation tells dialect and kind ("chat", "responses", "messages", "embeddings"); model: its public name, no
    alias; tenant: whose answers these are, empty if they are everybody's.
    """
    for name in _STATEFUL:
        if body.get(name):
            return b""
    stream = bool(body.get("stream"))
    options = body.get("stream_options")
    usage = stream and isinstance(options, dict) and bool(options.get("include_usage"))
    said = {name: body[name] for name in sorted(body) if name not in _IGNORED and name not in _STATEFUL}
    try:
        return blake2b(orjson.dumps((operation, model, tenant, stream, usage, said)), digest_size=16).digest()
    except TypeError:  # nested too deep, or a number of more than 64 bits
        return b""


def body_key(body: bytes, operation: str, model: str, tenant: str) -> bytes:
    """The same of a request as it came; empty, too, if it is none."""
    try:
        asked: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return b""
    return request_key(asked, operation, model, tenant) if isinstance(asked, dict) else b""
