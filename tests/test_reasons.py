"""The documentation's page of the reasons. What must hold of the table itself is in response/test_rescue.py."""

from __future__ import annotations

from pathlib import Path

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
