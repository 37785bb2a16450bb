"""What is masked of prompts and answers, and what is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.account import Snapshot
from edgeq.llm.redact import end_of_iban, is_luhn, redacted
from edgeq.llm.registry import Registry


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("use sk-proj-abc_DEF-0123456789abcdef!", "use [key]!"),
        ("sk-ant-api03-" + "x" * 90, "[key]"),
        ("ghp_0123456789abcdefABCDEF", "[key]"),
        ("AKIAIOSFODNN7EXAMPLE, yes", "[key], yes"),
        ("Authorization: Bearer abc.def-123==", "Authorization: Bearer [key]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def_1", "[key]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nrest", "[key]\nrest"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "[key]"),
        ("mail Joe.Doe+x@mail.example.com.", "mail [mail]."),
        ("card 4111 1111 1111 1111, or 4111-1111-1111-1111 or 4111111111111111", "card [card], or [card] or [card]"),
        ("card 4111111111111111 12/27 123", "card [card] 12/27 123"),
        ("4111 1111 1111 1111 123, 2 3782-822463-10005 12 27", "[card] 123, 2 [card] 12 27"),
        ("7 4111 1111 1111 1111 4111111111111111 3rd", "7 [card] [card] 3rd"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card]"),
        ("1234 5678 90 1234 5678 90 1234 5678", "1234 5678 90 1234 5678 90 1234 5678"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),
        ("to DE89 3704 0044 0532 0130 00 please", "to [iban] please"),
        ("GB82WEST12345698765432 NOW AND HERE", "[iban] NOW AND HERE"),
        ("AB13 XYZ DE89370400440532013000 CD34", "AB13 XYZ [iban] CD34"),
        ("REF2 DE89 3704 0044 0532 0130 00 AND GB82WEST12345698765432.", "REF2 [iban] AND [iban]."),
        ("DE89 3704 0044 0532 0130 02", "DE89 3704 0044 0532 0130 02"),
        ("a task-force of risk-averse people, sk-1, eq-2", "a task-force of risk-averse people, sk-1, eq-2"),
        ("at 2026-11-26 10:00, 3.14159265358979323846", "at 2026-11-26 10:00, 3.14159265358979323846"),
        ("user@host, @handle, a@b", "user@host, @handle, a@b"),
        ("the bearer of bad news", "the bearer of bad news"),
    ],
)
def test_masks(text: str, kept: str) -> None:
    """Each kind, in the middle of other text, and its nearest harmless relative."""
    assert redacted(text) == kept


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("first\nsk-abcdefghijklmnopqrst", "first\n[key]"),
        ("\t4111 1111 1111 1111", "\t[card]"),
        ("\nDE89370400440532013000\nyes", "\n[iban]\nyes"),
        ('{"token": "\\nghp_0123456789abcdefABCDEF"}', '{"token": "\\n[key]"}'),
        ("é\njoe@example.com", "é\n[mail]"),
        ("nothing\nhere", "nothing\nhere"),
    ],
)
def test_a_string_in_json_is_seen_as_it_is_meant(said: str, kept: str) -> None:
    """As requests and answers are stored: what begins a line is not hidden by the n of its escape; nor where text is
    written in ASCII, or the end was cut."""
    for ascii_only in (True, False):
        for text in (json.dumps([{"content": said}, "x"], ensure_ascii=ascii_only), json.dumps(said) + " rest"):
            assert json.loads(redacted(text).removesuffix(" rest")) in ([{"content": kept}, "x"], kept)
    assert redacted('{"a": "b\\nsk-abcdefghijklmnopqrst') == '{"a": "b\\n[key]'
    assert redacted('["\\ud83d\\nsk-abcdefghijklmnopqrst", "jo\\u0040x.de"]') == '["?\\n[key]", "[mail]"]'


def test_own_keys_are_masked() -> None:
    """Whatever id and secret they have."""
    for _ in range(200):
        secret = Registry(Snapshot()).create(0.0, "t", "", {}).secret
        assert redacted(f"my key is {secret}.") == "my key is [key]."


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    """It never fails, and a second time changes nothing."""
    once = redacted(text)
    assert redacted(once) == once


@given(st.integers(10**11, 10**18 - 1))
def test_luhn_has_one_check_digit(number: int) -> None:
    """Of the ten last digits that a number may have, one is right."""
    assert sum(is_luhn(f"{number}{digit}") for digit in range(10)) == 1


def test_iban_of_the_standard() -> None:
    """Examples of ISO 13616's registry."""
    for number in ("GB29NWBK60161331926819", "FR1420041010050500013M02606", "NO9386011117947"):
        assert end_of_iban(number) == len(number)


@given(st.text("0123456789ABCXYZ", min_size=0, max_size=20), st.from_regex(r"[A-Z]{2}[0-9]{2}", fullmatch=True))
def test_no_beginning_shows_the_end_of_an_iban(between: str, begin: str) -> None:
    """What looks like one before it may have right check digits at any length, also within the real one."""
    number = "GB29NWBK60161331926819"
    for text in (f"{begin} {between} {number}.", f"{begin}{between} {number[:4]} {number[4:]}."):
        assert "26819" not in redacted(text), text


def test_what_begins_like_an_iban_hides_nothing_else() -> None:
    """Of all check digits that it may have, for each."""
    number = "DE89370400440532013000"
    for digits in range(100):
        shown = redacted(f"AB{digits:02} XYZ {number} please, AB{digits:02}")
        assert "3000" not in shown, shown
        assert shown.endswith(f"[iban] please, AB{digits:02}")


@pytest.mark.parametrize(
    "text",
    [
        "A" * 100_000,
        "1 " * 50_000,
        "a@" * 50_000,
        "x.x" * 30_000,
        "eyJ" * 30_000,
        "-eyJ" * 250_000,
        "AA11 " * 20_000,
        "1" * 100_000,
        "111 " * 25_000,
        "1-" * 50_000 + "a",
    ],
)
def test_no_text_takes_forever(text: str) -> None:
    """Patterns that could be tried again and again at each place are bounded: this ends, and that is the test."""
    redacted(text)
