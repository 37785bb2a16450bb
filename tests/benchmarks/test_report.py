"""From measurements to ratios, verdicts and tables."""

from __future__ import annotations

import pytest

from benchmarks.report import Measurement, lines, markdown, paired_ratio, verdicts
from benchmarks.rows import ROWS

ROW = {row.id: row for row in ROWS}


def measured(row: str, proxy: str, number: int, value: float, variant: str = "", errors: int = 0) -> Measurement:
    return Measurement(row, proxy, variant, number, value, 1000, 2.0, 0.9, errors, {"p50_us": value})


def test_ratios_pair_the_rounds() -> None:
    """A drift that both proxies share does not reach the ratio, and a round that one lacks is left out."""
    ours = [measured("small", "edgeq", number, 9.0 * number) for number in (1, 2, 3, 4)]
    theirs = [measured("small", "nginx", number, 10.0 * number) for number in (1, 2, 3)]
    ratio = paired_ratio(ours, theirs)
    assert ratio is not None
    assert (ratio.median, ratio.minimum, ratio.maximum) == pytest.approx((0.9, 0.9, 0.9))
    assert paired_ratio(ours, []) is None


@pytest.mark.parametrize(("value", "outcome"), [(10.0, "met"), (10.6, "MISSED by 0.06")])
def test_verdict_against_nginx(value: float, outcome: str) -> None:
    """A target that is met is said to be met; a missed one says by how much."""
    measurements = [measured("small", "nginx", 1, 10.0), measured("small", "edgeq", 1, value)]
    (text,) = verdicts(ROW["small"], lines(ROW["small"], measurements))
    assert text.endswith(outcome)


def test_verdict_against_itself() -> None:
    """Rows with two variants compare the second with the first."""
    row = ROW["open-10k"]
    first, second = (variant.name for variant in row.variants)
    measurements = [measured(row.id, "edgeq", 1, 20.0, first), measured(row.id, "edgeq", 1, 21.0, second)]
    (text,) = verdicts(row, lines(row, measurements))
    assert "= 1.05 (1.05..1.05), aim <= 1.10: met" in text


def test_verdict_of_a_value() -> None:
    """The memory of a connection is compared with a fixed figure."""
    row = ROW["idle-memory"]
    (text,) = verdicts(row, lines(row, [measured(row.id, "edgeq", 1, 3.5)]))
    assert "edgeq KiB/connection = 3.50 (3.50..3.50), aim <= 4.00: met" in text


def test_errors_void_a_verdict() -> None:
    """A figure with wrong answers in it is never called met."""
    measurements = [measured("tls", "nginx", 1, 10.0), measured("tls", "edgeq", 1, 5.0, errors=2)]
    (text,) = verdicts(ROW["tls"], lines(ROW["tls"], measurements))
    assert "NOT VALID" in text


def test_errors_of_the_reference_void_a_verdict() -> None:
    """A ratio to a proxy whose answers were wrong says nothing either."""
    measurements = [measured("tls", "nginx", 1, 10.0, errors=1), measured("tls", "edgeq", 1, 5.0)]
    (text,) = verdicts(ROW["tls"], lines(ROW["tls"], measurements))
    assert "NOT VALID" in text


def test_markdown_leaves_out_empty_columns() -> None:
    """Without HAProxy there is no column of ratios to HAProxy, and every line has the same number of cells."""
    measurements = [measured("small", "nginx", 1, 10.0), measured("small", "edgeq", 1, 9.0)]
    text = markdown(ROW["small"], lines(ROW["small"], measurements))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert "/ haproxy" not in text
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert "0.90 (0.90..0.90)" in text
