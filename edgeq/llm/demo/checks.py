"""What is wrong with a request, in the words of providers; so that a translator's mistake is noticed and not guessed
away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from edgeq.llm.message import INVALID, Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]


def names(text: str) -> frozenset[str]:
    """The words of `text`, as names that are allowed somewhere."""
    return frozenset(text.split())


IMAGE_TOKENS: Final = 100
CHARACTERS_PER_TOKEN: Final = 4
_NOT_TEXT: Final = names("data url image_url file_data signature encrypted_content fileUri")


class Refusal(Exception):
    """The provider says no."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


def invalid(message: str, param: str = "", code: str = "") -> NoReturn:
    """The request is wrong: 400."""
    raise Refusal(Failed(400, INVALID, message, code, param))


def known(value: Json, allowed: frozenset[str], message: str) -> None:
    """Refuse a field that is not among `allowed`; `message` has {} for it."""
    for name in value:
        if name not in allowed:
            invalid(message.format(name), name)


def an_object(value: object, param: str) -> Json:
    """`value`, which must be a JSON object."""
    if not isinstance(value, dict):
        invalid(f"Invalid type for '{param}': expected an object.", param)
    return value


def a_list(value: object, param: str, at_least: int = 0) -> list[Any]:
    """`value`, which must be an array of so many elements."""
    if not isinstance(value, list):
        invalid(f"Invalid type for '{param}': expected an array.", param)
    if len(value) < at_least:
        invalid(f"Invalid '{param}': expected an array with at least {at_least} elements.", param)
    return value


def a_text(value: object, param: str, empty: bool = True) -> str:
    """`value`, which must be a string."""
    if not isinstance(value, str):
        invalid(f"Invalid type for '{param}': expected a string.", param)
    if not value and not empty:
        invalid(f"Invalid '{param}': empty string.", param)
    return value


def a_flag(body: Json, name: str) -> bool:
    """A boolean that may be missing or null."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        invalid(f"Invalid type for '{name}': expected a boolean.", name)
    return value


def a_count(body: Json, name: str, at_least: int = 1) -> int | None:
    """A whole number that may be missing or null."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        invalid(f"Invalid type for '{name}': expected an integer.", name)
    if value < at_least:
        invalid(f"Invalid '{name}': integer below minimum value. Expected a value >= {at_least}.", name)
    return value


def a_number(body: Json, name: str, low: float, high: float) -> None:
    """A number within bounds that may be missing or null."""
    value = body.get(name)
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        invalid(f"Invalid type for '{name}': expected a number.", name)
    if not low <= value <= high:
        invalid(f"Invalid '{name}': expected a value between {low:g} and {high:g}.", name)


def a_word(body: Json, name: str, words: frozenset[str]) -> str:
    """One of a few words; empty if it is missing or null."""
    value = body.get(name)
    if value is None:
        return ""
    if value not in words:
        invalid(f"Invalid value: {value!r}. Supported values are: {', '.join(sorted(words))}.", name)
    return str(value)


def count_tokens(value: object) -> int:
    """Tokens of whatever stands in a request, as a tokenizer might count: by characters, images at a fixed price."""
    characters, images = _weigh(value)
    return max(1, characters // CHARACTERS_PER_TOKEN) + images * IMAGE_TOKENS


def _weigh(value: object) -> tuple[int, int]:
    if isinstance(value, str):
        return len(value), 0
    characters = images = 0
    if isinstance(value, list):
        for each in value:
            more, shown = _weigh(each)
            characters += more
            images += shown
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in _NOT_TEXT:
                images += name != "signature" and name != "encrypted_content"
                continue
            more, shown = _weigh(each)
            characters += more
            images += shown
    return characters, images


_UNBOUND: Final = names(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems uniqueItems"
)


def a_closed_schema(schema: object, where: str) -> None:
    """Anthropic's rules for what it holds a model to."""
    for one in _schemas(schema):
        kind = one.get("type")
        if kind == "object" and one.get("additionalProperties") is not False:
            invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false", where)
        for name in one:
            if name in _UNBOUND:
                invalid(f"{where}: For '{kind}' type, property '{name}' is not supported", where)


def a_strict_schema(schema: object, where: str) -> None:
    """OpenAI's rules for the same."""
    for one in _schemas(schema):
        if one.get("type") != "object":
            continue
        if one.get("additionalProperties") is not False:
            invalid(
                f"Invalid schema: 'additionalProperties' is required to be supplied and to be false. ({where})", where
            )
        if set(one.get("properties") or {}) - set(one.get("required") or []):
            invalid(f"Invalid schema: 'required' must include every key in properties ({where})", where)


def _schemas(schema: object) -> Iterator[Json]:
    """A schema, and all in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    inner = [schema.get("items"), *(schema.get("anyOf") or ()), *(schema.get("allOf") or ())]
    for named in ("properties", "$defs"):
        inner += (schema.get(named) or {}).values()
    for one in inner:
        yield from _schemas(one)
