"""What GET /v1/models and /v1/models/NAME answer, as OpenAI and as Anthropic tell it.

Both are asked at the same path; clients of Anthropic's send `anthropic-version`. Who made a model, and when, is not
known here: OpenAI's shape says "edgeq", and both say the epoch, as Anthropic has it for an unknown date.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

_EPOCH: Final = "1970-01-01T00:00:00Z"


def list_body(names: list[str], anthropic: bool) -> bytes:
    """Args: names of the models that the client may use, in the order to show. All are on one page."""
    models = [_model(name, anthropic) for name in names]
    if not anthropic:
        return orjson.dumps({"object": "list", "data": models})
    ends: dict[str, Any] = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return orjson.dumps({"data": models, "has_more": False} | ends)


def model_body(name: str, anthropic: bool) -> bytes:
    """One model."""
    return orjson.dumps(_model(name, anthropic))


def _model(name: str, anthropic: bool) -> dict[str, Any]:
    if anthropic:
        return {"type": "model", "id": name, "display_name": name, "created_at": _EPOCH}
    return {"id": name, "object": "model", "created": 0, "owned_by": "edgeq"}
