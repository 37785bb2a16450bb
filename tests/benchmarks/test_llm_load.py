"""How benchmarks/llm_load.py judges what it has seen."""

from __future__ import annotations

import pytest

from benchmarks.llm_load_report import (
    Asked,
    Result,
    between,
    counts,
    left_of,
    markdown,
    most_above,
    most_at_once,
    refusals,
    running_tokens,
    verdicts,
    waits,
)
from benchmarks.llm_load_rows import ROWS
from benchmarks.overload_rows import Aim


def asked(at_s: float = 0.0, ended_s: float = 1.0, status: int = 200, tokens: int = -1, wait_ms: int = -1) -> Asked:
    """A request; who is answered has heard something at once."""
    return Asked(0, at_s, at_s if status == 200 else -1.0, ended_s, status, tokens, wait_ms, f"{status} no")


def test_a_limit_that_is_kept_to_exactly_is_not_passed() -> None:
    """A bucket of 60 that is used up at once, then one token a second."""
    looks = [(10.0, 5), (10.0, 65), (11.0, 66), (40.0, 95)]
    assert most_above(looks, 60) == (0.0, 40.0)
    assert left_of(looks, 60) == 0.0


def test_what_is_above_a_limit_counts_from_the_line_and_not_from_the_end() -> None:
    """Ten too many after two seconds, that the end has made up for."""
    looks = [(0.0, 0), (2.0, 72), (30.0, 80)]
    assert most_above(looks, 60) == (10.0, 2.0)
    assert left_of(looks, 60) == 10.0


def test_a_bucket_is_never_fuller_than_a_minute() -> None:
    """Nothing was used for an hour."""
    assert left_of([(0.0, 0), (3600.0, 0)], 60) == 60


def test_tokens_of_an_interval_lie_on_straight_lines_between_looks() -> None:
    """An interval may begin and end between two looks, and reach beyond them."""
    looks = [(0.0, 0), (10.0, 100), (20.0, 100), (30.0, 400)]
    assert between(looks, 5.0, 25.0) == 200.0
    assert between(looks, -5.0, 99.0) == 400.0


def test_only_answers_that_were_under_way_excuse_what_is_above_a_limit() -> None:
    """Not those of before or later, and no refusals."""
    all_of_them = [asked(0, 1, tokens=1), asked(2, 4, tokens=10), asked(3, 3.2, 429, tokens=100), asked(5, 6, tokens=9)]
    assert running_tokens(all_of_them, 3.0, 0.25) == 10
    assert running_tokens(all_of_them, 3.0, 2.0) == 20


def test_ends_and_waits_are_counted_by_kind() -> None:
    """Each status of a record is in one column."""
    all_of_them = [asked(status=each) for each in (200, 503, 0, -1, -2, -3)] + [asked(status=429, wait_ms=1500)]
    assert counts(all_of_them) == {
        "asked": 7,
        "good": 1,
        "refused": 2,
        "broken": 2,
        "left": 1,
        "unfinished": 1,
    }
    assert waits(all_of_them) == {"wait_told": 0.5, "wait_p50_s": 1.5, "wait_max_s": 1.5}
    assert refusals(all_of_them) == {"503 no": 1, "429 no": 1}
    assert waits([asked()]) == {}


def test_the_most_at_once_are_those_that_overlap() -> None:
    """Who ends when another begins is not there with it, and who was refused is nowhere."""
    assert most_at_once([asked(0, 2), asked(1, 3), asked(2, 4), asked(0, 9, 503)]) == 2


@pytest.mark.parametrize(("value", "said"), [(0.98, "met"), (0.9, "MISSED")])
def test_an_aim_is_judged_where_it_was_measured(value: float, said: str) -> None:
    """A figure that a way of playing does not have is not judged."""
    results = [Result("row", "a", {"used": value}), Result("row", "b", {"good": 1.0})]
    found = verdicts([Aim("used", ">=", 0.97)], results)
    assert found == [f"row: a: of the limit {value:.1%}, aim >= 97.0 %: {said}".replace("%,", " %,")]
    assert "| a |" in markdown("row", "title", [], results)


def test_all_aims_are_figures_of_the_table() -> None:
    """A word that is misspelt would never be judged."""
    for row in ROWS:
        text = verdicts(row.aims, [Result(row.id, "x", {aim.figure: 0.0 for aim in row.aims})])
        assert len(text) == len(row.aims)
