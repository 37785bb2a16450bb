"""Each reason of the table is provoked for real, looks everywhere as its row says, and is counted.

The table is closed, and so is this test: a reason without a scenario fails it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

import pytest

from edgeq.reasons import REASONS, Reason
from tests.reasons import arrival, client, upstreams, waiting
from tests.reasons.stage import SCENARIOS, Scenario, Seen, Stage, wait_for_event
from tests.support.raw_client import Answer

_HOMES = (client, arrival, waiting, upstreams)
"""Of the scenarios; to import them registers these."""


_OF_MODELS = {
    "token_limit",
    "token_limit_shared",
    "request_over_limit",
    "budget_exhausted",
    "budget_exhausted_shared",
    "model_request_invalid",
    "model_not_found",
    "not_cached",
    "model_not_allowed",
    "key_missing",
    "key_unknown",
    "key_revoked",
    "key_expired",
    "answer_not_json",
    "answer_too_large",
    "upstream_error",
    "upstream_rate_limit",
    "upstream_quota",
    "upstream_auth",
    "upstream_overloaded",
}
"""They need a provider, and are provoked in tests/llm."""


def _marked(scenario: Scenario) -> object:
    marks = [pytest.mark.xfail(reason=scenario.missing, strict=True)] if scenario.missing else []
    return pytest.param(scenario.token, marks=marks)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with contextlib.ExitStack() as closing:
        yield Stage(tmp_path_factory.mktemp("stage"), closing)


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    """What the scenarios that were played have provoked, by token."""
    return {}


def test_every_reason_has_a_scenario() -> None:
    """And no scenario is about a reason that does not exist."""
    assert set(SCENARIOS) | _OF_MODELS == set(REASONS)


@pytest.mark.parametrize("token", [_marked(scenario) for scenario in SCENARIOS.values()])
def test_reason(stage: Stage, seen: dict[str, Seen], token: str) -> None:
    """The answer, the access log or the event, by the row of the table."""
    row = REASONS[token]
    found = SCENARIOS[token].play(stage)
    assert (found.answer is None) == (row.status == 0 or token == "upstream_truncated"), "is there an answer?"
    if found.answer is not None:
        check_answer(row, found.resource, found.answer)
    if found.event:
        event = wait_for_event(stage.current, found.event, reason=token)
        assert event["resource"] == found.resource
    else:
        line = stage.line_of(token, found.resource)
        assert line["error.type"] == token
        assert line.get("http.response.status_code", 0) == (row.status if found.status is None else found.status)
    seen[token] = found


def check_answer(row: Reason, resource: str, got: Answer) -> None:
    """Status, Retry-After, Proxy-Status and the problem document say the same, as the row has it."""
    assert got.complete
    assert got.status == row.status
    assert got.get(b"content-type") == b"application/problem+json"
    assert got.get(b"cache-control") == b"no-store"
    status = (got.get(b"proxy-status") or b"").decode()
    match = re.fullmatch(
        r'(?P<node>[A-Za-z"][^;]*); error=(?P<error>\w+); details="(?P<details>.+)"; '
        r'edgeq-reason=(?P<reason>\w+); edgeq-resource="(?P<resource>.+)"',
        status,
    )
    assert match, status
    assert (match["error"], match["reason"], match["resource"]) == (row.proxy_status, row.token, resource)
    problem = {} if not got.body else json.loads(got.body)
    told = (problem["type"], problem["title"], problem["status"], problem["reason"], problem["resource"])
    assert told == (row.problem, row.title, row.status, row.token, resource)
    assert problem["detail"]
    retry_after = got.get(b"retry-after")
    if row.retry_after == "none":
        assert retry_after is None
        assert "retry_after_ms" not in problem
    else:
        wait_s = int(retry_after or b"0")
        assert 1 <= wait_s <= (3600 if row.retry_after == "exact" else 60)
        assert 0 <= wait_s * 1000 - problem["retry_after_ms"] < 1000


def test_each_is_counted(stage: Stage, seen: dict[str, Seen]) -> None:
    """By reason and resource, and once: as often as the access log has a line. What never became a request is counted
    as well. Of those that were played before this test."""
    stage.end()
    counts = stage.counts
    assert {key: count for key, count in counts.items() if key in stage.logged} == dict(stage.logged)
    assert {key for key in counts if key not in stage.logged} == {
        (t, one.resource) for t, one in seen.items() if one.event
    }
    assert not {(token, one.resource) for token, one in seen.items()} - set(counts)
