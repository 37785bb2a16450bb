"""What the access log says of a request to a model: its fields of a line, by OpenTelemetry's GenAI conventions."""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Final

from edgeq.llm.attempt import fields_logged
from edgeq.response.access_log import milliseconds

if TYPE_CHECKING:
    from edgeq.llm.asking import ModelRequest

_MAX_NAME: Final = 128
"""Characters of a model's name."""
_MAX_PARAM: Final = 100
"""Characters of the name of what an error is about: it may be the client's."""
_MAX_FRAGMENTS: Final = 2048
"""Of each of the two that follow, as in access_log.py."""
_asked_fields: Final[dict[tuple[str, str], bytes]] = {}
_key_fields: Final[dict[str, bytes]] = {}


def log_fields(request: ModelRequest) -> bytes:
    """Those that a model's request has beside what every exchange has, with their commas; empty: it was not read."""
    peek = request.peek
    operation = request.operation
    if peek is None or operation is None:
        return b""
    asked = (operation.name, peek.model)
    parts = [_asked_fields.get(asked) or _render_asked(asked)]
    choice = request.choice
    if choice is not None:
        parts.append(choice.log_text)
    degraded = request.degraded
    if degraded is not None:
        parts.append(degraded.log_text())
    usage = request.usage
    if usage.input >= 0:
        parts.append(b'"gen_ai.usage.input_tokens":%d,' % usage.input)
    if usage.output >= 0:
        parts.append(b'"gen_ai.usage.output_tokens":%d,' % usage.output)
    cost_micro = request.cost_micro
    if cost_micro:
        parts.append(b'"edgeq.cost":%d.%06d,' % (cost_micro // 1_000_000, cost_micro % 1_000_000))
    if request.first_event_at:
        parts.append(b'"edgeq.first_event_ms":%b,' % milliseconds(request.first_event_at - request.begun_at))
    if request.said_status >= 400:
        parts.append(b'"edgeq.provider_status":%d,' % request.said_status)
    if request.param and request.reason:
        parts.append(f'"edgeq.param":{quoted(request.param[:_MAX_PARAM])},'.encode("ascii"))
    if request.hedged:
        who = quoted(request.hedged_with)
        parts.append(f'"edgeq.hedge":"{request.hedged}","edgeq.hedge_other":{who},'.encode("ascii"))
    if request.failed_by:
        parts.append(fields_logged(request.failed_by))
    if request.cached:
        parts.append(f'"edgeq.cache":"{request.cached}",'.encode("ascii"))
    key_id = request.bill.key_id
    if key_id:  # its tenant is told of every request that has one
        parts.append(_key_fields.get(key_id) or _render_key(key_id))
    return b"".join(parts)


def _render_asked(asked: tuple[str, str]) -> bytes:
    """What the log says of an operation and the model's name that the client has given."""
    name, model = asked
    known = f'"gen_ai.operation.name":"{name}","gen_ai.request.model":{quoted(model[:_MAX_NAME])},'.encode("ascii")
    if len(model) <= _MAX_NAME:
        if len(_asked_fields) >= _MAX_FRAGMENTS:
            _asked_fields.clear()
        _asked_fields[asked] = known
    return known


def _render_key(key_id: str) -> bytes:
    known = f'"edgeq.key":{quoted(key_id)},'.encode("ascii")
    if len(_key_fields) >= _MAX_FRAGMENTS:
        _key_fields.clear()
    _key_fields[key_id] = known
    return known
