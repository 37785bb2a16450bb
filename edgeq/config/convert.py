"""A TOML document as dicts and lists -> the structs of `schema.py`, with every mistake of type and name found.

msgspec describes the structs (`msgspec.inspect`), so the schema stays the only description of the file. The walk is
ours, because `msgspec.convert` stops at the first error and names the keys of mappings only as "[...]".

What cannot be read becomes a stand-in (the default, or an empty value), so that the checks after this one can go on;
`Findings` makes sure that a stand-in is not blamed. A negative number is wrong unless it is the key's default, where
the schema gives it a meaning, or its type says how low it may be.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import msgspec
from msgspec import inspect

from edgeq.config.base import Duration, Size, Text
from edgeq.config.findings import Findings, did_you_mean
from edgeq.config.lines import Path
from edgeq.config.schema import Config
from edgeq.config.schema_llm import SHORT_LIMITS
from edgeq.config.units import parse_duration, parse_size

_FEW: Final = 4
"""So many keys of a table are named to who has named none of them."""
_ELSEWHERE: Final = {
    "fallbacks": "further targets of [model.NAME] answer when the first one cannot",
    "context_window_fallbacks": 'further targets of [model.NAME], with too_long = "next" there',
}
"""What other gateways have keys for that have no like here."""
_WEIGHTS: Final = ": weights are compared, so 9 and 1 are 90 % and 10 %"
MAX_INT: Final = 2**31 - 1

_CONFIG: Final = cast(inspect.StructType, inspect.type_info(Config))


def convert(document: object, findings: Findings) -> Config:
    """The whole configuration; complete and right only if `findings` stays empty."""
    return cast(Config, _struct(_CONFIG, document, (), findings))


def _struct(kind: inspect.StructType, raw: object, path: Path, findings: Findings) -> object:
    if not isinstance(raw, dict):
        findings.add(path, f"expected a table, got {_kind_of(raw)}")
        raw = {}
    names = [field.encode_name for field in kind.fields]
    for key in raw:
        if key not in names:
            findings.add((*path, key), f"unknown key{_advice(key, kind)}")
    values: dict[str, Any] = {}
    for field in kind.fields:
        here = (*path, field.encode_name)
        if field.encode_name in raw:
            values[field.name] = _value(field.type, raw[field.encode_name], here, field.default, findings)
        elif field.required:
            findings.add(here, _MISSING.get(here, "missing"))
            values[field.name] = _value(field.type, _stand_in(field.type), here, msgspec.NODEFAULT, findings)
    return kind.cls(**values)


def _advice(key: str, kind: inspect.StructType) -> str:
    """What may be meant by a key that a table has not: a near one, that of a table within it, or one of a few."""
    names = [field.encode_name for field in kind.fields]
    if near := did_you_mean(key, names):
        return near
    if key in _ELSEWHERE:
        return f" ({_ELSEWHERE[key]})"
    key = SHORT_LIMITS.get(key, key)
    if key in names:
        return f" (did you mean {key}?)"
    for field in kind.fields:
        for one in field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,):
            if isinstance(one, inspect.StructType) and _has(one, key):
                return f" (did you mean {field.encode_name}.{key}?)"
            if isinstance(one, inspect.VarTupleType) and _has(one.item_type, key):
                return f" (did you mean {key} of one of {field.encode_name}?)"
    return f" (there are {', '.join(names)})" if 1 < len(names) <= _FEW else ""


def _has(kind: inspect.Type, key: str) -> bool:
    return isinstance(kind, inspect.StructType) and any(field.encode_name == key for field in kind.fields)


def _value(
    kind: inspect.Type, raw: object, path: Path, default: object, findings: Findings, otherwise: str = ""
) -> object:
    match kind:
        case inspect.UnionType():
            chosen = _alternative(kind, raw)
            if isinstance(chosen, inspect.LiteralType) and any(isinstance(one, inspect.IntType) for one in kind.types):
                otherwise = ", or an integer"
            return _value(chosen, raw, path, default, findings, otherwise)
        case inspect.StructType():
            return _struct(kind, raw, path, findings)
        case inspect.VarTupleType():
            if not isinstance(raw, list):
                findings.add(path, f"expected an array, got {_kind_of(raw)}")
                return default if isinstance(default, tuple) else ()
            return tuple(
                _value(kind.item_type, item, (*path, number), msgspec.NODEFAULT, findings)
                for number, item in enumerate(raw)
            )
        case inspect.DictType():
            if not isinstance(raw, dict):
                findings.add(path, f"expected a table, got {_kind_of(raw)}")
                return {}
            return {
                key: _value(kind.value_type, item, (*path, key), msgspec.NODEFAULT, findings)
                for key, item in raw.items()
            }
    try:
        value = _scalar(kind, raw)
        if isinstance(value, int | float) and value < 0 and value != default:
            _check_least(kind, value)
    except ValueError as error:
        hint = _WEIGHTS if path[-1] == "weight" and isinstance(raw, float) else otherwise
        findings.add(path, f"{error}{hint}")
        return _stand_in(kind) if default is msgspec.NODEFAULT else default
    return value


def _check_least(kind: inspect.Type, value: float) -> None:
    least = kind.ge if isinstance(kind, inspect.IntType | inspect.FloatType) else None
    if least is None:
        raise ValueError("must not be negative")
    if value < least:
        raise ValueError(f"must be {least:g} at least")


def _alternative(kind: inspect.UnionType, raw: object) -> inspect.Type:
    """Which type of a union a value is of: a number, true or false, a word, a table, a list. (TOML has no none.)"""
    kinds = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
    for one in kinds:
        match one, raw:
            case (inspect.LiteralType() | inspect.StrType(), str()) | (inspect.StructType(), dict()):
                return one
            case inspect.VarTupleType(), list():
                return one
            case (inspect.BoolType(), bool()) | (inspect.FloatType(), float()):
                return one
            case inspect.IntType(), int() if not isinstance(raw, bool):
                return one
    return kinds[0]


def _scalar(kind: inspect.Type, raw: object) -> object:
    """Raises ValueError with a sentence for people."""
    match kind:
        case inspect.StrType():
            if not isinstance(raw, str):
                raise ValueError(f"expected a string, got {_kind_of(raw)}")
            if not raw.isprintable():
                raise ValueError("contains a control character")
            return raw
        case inspect.LiteralType():
            if raw not in kind.values:
                known = [str(value) for value in kind.values]
                hint = did_you_mean(raw, known) if isinstance(raw, str) else ""
                raise ValueError("expected one of " + ", ".join(f'"{value}"' for value in known) + hint)
            return raw
        case inspect.BoolType():
            if not isinstance(raw, bool):
                raise ValueError(f"expected true or false, got {_kind_of(raw)}")
            return raw
        case inspect.IntType():
            if isinstance(raw, bool) or not isinstance(raw, int):
                raise ValueError(f"expected an integer, got {_kind_of(raw)}")
            if raw > MAX_INT:
                raise ValueError(f"may be {MAX_INT} at most")
            return raw
        case inspect.FloatType():
            if isinstance(raw, int) and raw > MAX_INT:  # math.isfinite overflows for one of 400 digits
                raise ValueError(f"may be {MAX_INT} at most")
            if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
                raise ValueError(f"expected a number, got {_kind_of(raw)}")
            return float(raw)
        case inspect.CustomType(cls=cls) if cls is Duration:
            return parse_duration(raw)
        case inspect.CustomType(cls=cls) if cls is Size:
            return parse_size(raw)
        case inspect.CustomType(cls=cls) if cls is Text:
            if not isinstance(raw, str):
                raise ValueError(f"expected a string, got {_kind_of(raw)}")
            if any((sign < " " and sign not in "\n\r\t") or sign == "\x7f" for sign in raw):
                raise ValueError("contains a control character")
            return raw
    raise TypeError(f"the schema has a type that the loader does not know: {kind}")


def _stand_in(kind: inspect.Type) -> object:
    """A value of the right type for what is missing or wrong; never seen by a user."""
    match kind:
        case inspect.StrType():
            return ""
        case inspect.VarTupleType():
            return []
        case inspect.DictType() | inspect.StructType():
            return {}
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.CustomType():
            return kind.cls(0)
    return 0


def _kind_of(raw: object) -> str:
    match raw:
        case bool():
            return "true" if raw else "false"
        case str():
            return "a string"
        case int():
            return "an integer"
        case float():
            return "a float"
        case list():
            return "an array"
        case dict():
            return "a table"
    return "a date or time"


_MISSING: Final[dict[Path, str]] = {
    ("listener",): 'no listener: write [[listener]] and address = "0.0.0.0:8080"',
    ("upstream",): 'no upstream: write [upstream.NAME] and endpoints = ["http://HOST:PORT"]',
}
