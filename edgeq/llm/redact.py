"""Prompts and answers without what nobody should find in a log: keys, addresses, numbers of cards and accounts.

It masks what looks like one, and leaves the rest. That is a net and no wall: a password in plain words passes.

    keys       sk-.., eq-.., ghp_.., AKIA.., "Bearer ..", JSON web tokens, PEM blocks
    addresses  of mail
    cards      13 to 19 digits that pass Luhn's test, with blanks or dashes between them
    IBAN       by its check digits (ISO 13616: the number, rearranged, leaves 1 when divided by 97)
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeq.llm.account import Conversation

KEY: Final = "[key]"
MAIL: Final = "[mail]"
CARD: Final = "[card]"
IBAN: Final = "[iban]"

_KEYS: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|\b(?:sk|pk|rk|eq|xox[abprs]|glpat|hf|gsk|pplx|r8)[-_][\w-]{12,}"
    r"|\bgh[opsur]_\w{16,}|\bgithub_pat_\w{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bAIza[\w-]{30,}",
    re.ASCII | re.DOTALL,
)
_BEARER: Final = re.compile(r"\b(bearer|basic)(\s+)[\w.~+/=-]{8,}", re.ASCII | re.IGNORECASE)
_MAIL: Final = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b", re.ASCII)
_CARD: Final = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,}(?![\w-])", re.ASCII)
"""Or several numbers, of which one may be a card's."""
_GROUP: Final = re.compile(r"\d+", re.ASCII)
_LEAST_DIGITS: Final = 13
_MOST_DIGITS: Final = 19
_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", re.ASCII)

_IBAN_HEAD: Final = 4
"""Characters of its country and check digits, six digits as a number, which are calculated as if they stood last."""
_IBAN_REST: Final = 11
"""The fewest that follow."""

_STRING: Final = re.compile(r'"((?:[^"\\]|\\u[0-9A-Fa-f]{4}|\\[^u])*+)("?)', re.DOTALL)
"""In JSON; the last one may be cut."""
_MAX_NESTED: Final = 3
"""JSON that is a string in JSON, as arguments of tools are."""


def masked(said: Iterable[Conversation]) -> tuple[Conversation, ...]:
    """What may be written to a file of what was asked and answered."""
    return tuple([replace(one, prompt=redacted(one.prompt), answer=redacted(one.answer)) for one in said])


def redacted(text: str) -> str:
    """The text with masks. What is a string in JSON is seen as it is meant: before a key that begins a line there is a
    line feed, and no letter n."""
    return _redacted(text, _MAX_NESTED)


def _redacted(text: str, nested: int) -> str:
    if nested and "\\" in text:
        text = _STRING.sub(lambda found: _masked_string(found, nested - 1), text)
    text = without_keys(text)
    text = _MAIL.sub(MAIL, text)
    text = _without_ibans(text)
    return _CARD.sub(_masked_card, text)


def _masked_string(found: re.Match[str], nested: int) -> str:
    written = found[1]
    if "\\" not in written:
        return found[0]
    try:
        said = json.loads(f'"{written}"', strict=False)
    except ValueError:
        return found[0]
    masked = _redacted(said, nested)
    if masked == said:
        return found[0]
    # Half of a surrogate pair can be stored nowhere.
    written = json.dumps(masked.encode("utf-8", "replace").decode(), ensure_ascii=False)[1:-1]
    return f'"{written}{found[2]}'


def without_keys(text: str) -> str:
    """The text with masks for keys alone."""
    return _BEARER.sub(rf"\1\2{KEY}", _KEYS.sub(KEY, text))


def _masked_card(found: re.Match[str]) -> str:
    # A date or a check number may stand beside it, or what it is the number of: then it is some of the groups, of three
    # digits at least (4-4-4-4, 4-6-5).
    text = found[0]
    groups = list(_GROUP.finditer(text))
    if len(text) < 2 * _MOST_DIGITS and _is_card("".join([group[0] for group in groups])):
        return CARD
    parts: list[str] = []
    told = 0
    first = 0
    while first < len(groups):
        after = _after_card(groups, first)
        if not after:
            first += 1
            continue
        parts += (text[told : groups[first].start()], CARD)
        told = groups[after - 1].end()
        first = after
    parts.append(text[told:])
    return "".join(parts)


def _after_card(groups: list[re.Match[str]], first: int) -> int:
    """The group behind the longest card that begins with this one; 0: none does."""
    digits = ""
    after = 0
    for place in range(first, len(groups)):
        group = groups[place][0]
        if len(group) < 3 or len(digits) + len(group) > _MOST_DIGITS:
            break
        digits += group
        if _is_card(digits):
            after = place + 1
    return after


def _is_card(digits: str) -> bool:
    return _LEAST_DIGITS <= len(digits) <= _MOST_DIGITS and is_luhn(digits)


def is_luhn(digits: str) -> bool:
    """Does a number pass Luhn's test (ISO/IEC 7812-1, annex B)?"""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _without_ibans(text: str) -> str:
    """The longest beginning that is one is masked: what follows in capitals looks like a part of it, as what is before
    it may look like another one's beginning. Every fifth that is none has right check digits somewhere (one in 97, at
    twenty lengths): then the one that begins within it, and ends behind it, is masked with it."""
    parts: list[str] = []
    told = 0
    begin = 0
    stop = 0
    """Of what is to be masked next."""
    at = 0
    while (found := _IBAN.search(text, at)) is not None:
        start = found.start()
        at = start + _IBAN_HEAD
        end = end_of_iban(found[0])
        if end:
            if start >= stop:
                if stop:
                    parts += (text[told:begin], IBAN)
                    told = stop
                begin = start
            stop = max(stop, start + end)
    if stop:
        parts += (text[told:begin], IBAN)
        told = stop
    parts.append(text[told:])
    return "".join(parts)


def end_of_iban(text: str) -> int:
    """Where the longest beginning ends whose check digits are right, blanks among it; 0: there is none."""
    head = int("".join([str(int(one, 36)) for one in text[:_IBAN_HEAD]]))
    remainder = 0
    size = 0
    end = 0
    for place in range(_IBAN_HEAD, len(text)):
        one = text[place]
        if one == " ":
            continue
        value = int(one, 36)
        remainder = (remainder * (10 if value < 10 else 100) + value) % 97
        size += 1
        if size >= _IBAN_REST and (remainder * 1_000_000 + head) % 97 == 1:
            end = place + 1
    return end
