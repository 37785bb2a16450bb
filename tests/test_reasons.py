"""The documentation's page of the reasons. What must hold of the table itself is in response/test_rescue.py."""

from __future__ import annotations

from pathlib import Path

from edgeq.llm.saying import failed_of
from edgeq.reasons import REASONS, document

PAGE = Path(__file__).resolve().parent.parent / "docs/reasons.md"


def test_page_is_the_table() -> None:
    """Whoever changes the table makes its page anew."""
    assert PAGE.read_text() == document(), "python -m edgeq.reasons > docs/reasons.md"


def test_page_is_well_formed() -> None:
    """One line for each reason, with as many cells as the head."""
    lines = [line for line in document().splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(REASONS)
    assert {line.count("|") for line in lines} == {7}


def test_clients_are_not_told_what_operators_do() -> None:
    """No command of edgeq's, and no table of its configuration, stands in what somebody reads who has neither."""
    for row in REASONS.values():
        if row.fault != "U" and row.status and row.status != 400:
            assert "`" not in row.told(), row.token
            if row.says:
                assert "[[" not in row.told()
                assert row.told() != row.hint


def test_what_a_client_of_models_reads() -> None:
    """Numbers with what they are of; and a sentence where nothing is known."""
    assert failed_of("token_limit", "220 tokens, of 300 a minute", "").message == (
        "Too many tokens: 220 tokens, of 300 a minute"
    )
    assert failed_of("upstream_timeout", "no answer came within 5 s", "").message == "no answer came within 5 s"
    assert failed_of("upstream_connect_refused", "", "").message == (
        "Upstream refused the connection: nothing listens there"
    )
    assert failed_of("key_missing", "", "").message.startswith("no key came with the request: send yours as ")
