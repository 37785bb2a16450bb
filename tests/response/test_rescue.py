"""Reasons, and the answers that they become."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.reasons import BLANK, CAPACITY, INDEX, QUOTA, REASONS
from edgeq.response.rescue import proxy_status_line, refusal, spoken
from edgeq.worker.wheel import NEVER

# RFC 9209 2.3: the error types, as registered.
_ERRORS = """
dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited
destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout
connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received
http_request_error http_request_denied http_response_incomplete http_response_header_section_size
http_response_header_size http_response_body_size http_response_trailer_section_size http_response_trailer_size
http_response_transfer_coding http_response_content_coding http_response_timeout http_upgrade_failed
http_protocol_error proxy_internal_response proxy_internal_error proxy_configuration_error proxy_loop_detected
"""
PROXY_STATUS_ERRORS = frozenset(_ERRORS.split())


class Answer:
    """A refusal, taken apart."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("ascii").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.fields = dict(line.split(": ", 1) for line in lines[1:])

    @property
    def problem(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def answer(reason: str, detail: str = "", *, retry_after_s: float = -1.0, **more: Any) -> Answer:
    """The answer for a reason, to a GET on a connection that is kept."""
    return Answer(refusal(reason, "route/r:test", detail, b"id", b"gw", True, False, retry_after_s, **more))


ANSWERED = [row for row in REASONS.values() if row.status]


@pytest.mark.parametrize("row", ANSWERED, ids=lambda row: row.token)
def test_each_reason_is_told_in_all_three_places(row: Any) -> None:
    """Status, Proxy-Status and problem document agree with the table, and with one another."""
    got = answer(row.token)
    assert got.status == row.status
    assert got.problem["type"] == row.problem
    assert (got.problem["reason"], got.problem["status"], got.problem["title"]) == (row.token, row.status, row.title)
    assert got.problem["resource"] == "route/r:test"
    assert got.problem["request_id"] == got.fields["x-request-id"] == "id"
    assert got.fields["proxy-status"].startswith(f"gw; error={row.proxy_status}; details=")
    assert f'; edgeq-reason={row.token}; edgeq-resource="route/r:test"' in got.fields["proxy-status"]
    assert ("retry-after" in got.fields) == (row.retry_after != "none") == ("retry_after_ms" in got.problem)
    assert int(got.fields["content-length"]) == len(got.body)
    assert got.fields["cache-control"] == "no-store"


def test_the_table_keeps_its_own_rules() -> None:
    """A status says whose doing it is; what has no answer says nothing to clients; errors are registered ones."""
    for row in REASONS.values():
        assert row.proxy_status == "" if row.status == 0 else row.proxy_status in PROXY_STATUS_ERRORS
        assert row.status != 429 or (row.fault == "C" and row.problem == QUOTA)
        assert (row.problem == QUOTA) == (row.status == 429)
        assert row.status != 503 or row.fault in "SU"
        assert row.status != 502 or row.fault == "U"
        assert row.problem in (BLANK, CAPACITY, QUOTA)
        may_come_again = row.status in (429, 503) or row.token in ("upstream_backlog_full", "upstream_auth")
        assert may_come_again or row.retry_after == "none"
        assert row.title
        assert row.hint
    assert [row.token for row in sorted(REASONS.values(), key=lambda row: INDEX[row.token])] == list(REASONS)
    assert sorted(INDEX.values()) == list(range(len(REASONS)))


@pytest.mark.parametrize(
    ("reason", "seconds", "header", "millis"),
    [
        ("queue_full", -1.0, "1", 1000),  # unknown
        ("queue_full", 0.0, "1", 1000),
        ("queue_full", 2.2, "3", 2200),
        ("queue_full", 4000.0, "60", 60000),  # an estimate is not believed that far
        ("rate_limited", 4000.25, "4001", 4000250),  # a rate is exact
        ("rate_limited", 0.02, "1", 20),
        ("circuit_open", 75.0, "75", 75000),
    ],
)
def test_retry_after(reason: str, seconds: float, header: str, millis: int) -> None:
    """In the field whole seconds, never too early; an estimate 60 s at most, an exact moment as far as it is."""
    got = answer(reason, retry_after_s=seconds)
    assert (got.fields["retry-after"], got.problem["retry_after_ms"]) == (header, millis)


def test_a_resource_that_is_not_told() -> None:
    """Neither in the head nor in the body, which are whole all the same."""
    got = Answer(refusal("upstream_connect_refused", "", "", b"id", b"gw", True, False))
    assert "resource" not in got.problem
    assert got.fields["proxy-status"].endswith("; edgeq-reason=upstream_connect_refused")
    line = proxy_status_line(b"gw", "upstream_connect_refused", "", "stale")
    assert line == b'proxy-status: gw; edgeq-reason=upstream_connect_refused; edgeq-fallback="stale"\r\n'


def test_waits_that_sdks_obey() -> None:
    """Whole seconds and milliseconds, never too early, and never longer than any SDK obeys."""

    def told(retry_after_s: float, reason: str = "token_limit") -> dict[str, str]:
        said = spoken(429, b"{}", reason, "tenant:tokens", "", b"id", b"gw", True, False, retry_after_s)
        fields = Answer(said).fields
        return {name: fields[name] for name in ("retry-after", "retry-after-ms", "x-should-retry") if name in fields}

    assert told(1.2) == {"retry-after": "2", "retry-after-ms": "1200", "x-should-retry": "true"}
    assert told(0.0) == {"retry-after": "1", "retry-after-ms": "1000", "x-should-retry": "true"}
    assert told(60.0) == {"retry-after": "60", "retry-after-ms": "60000", "x-should-retry": "true"}
    assert told(60.1) == told(NEVER) == {"x-should-retry": "false"}
    assert told(1.2, "model_not_found") == {"x-should-retry": "false"}
    assert told(NEVER, "upstream_auth") == told(1.2, "budget_exhausted_shared") == {"x-should-retry": "false"}
    assert told(1.2, "upstream_reset") == {}  # a provider's failure: by the status, as with any other server


def test_a_violated_policy_and_further_lines() -> None:
    """Who has passed a quota is told which one, in the body and in the lines of the rate."""
    got = answer("rate_limited", policy="burst", extra=b'ratelimit: "burst";r=0;t=1\r\n')
    assert got.problem["violated-policies"] == ["burst"]
    assert got.fields["ratelimit"] == '"burst";r=0;t=1'


def test_no_body_for_head() -> None:
    """HEAD gets the length of what it does not get."""
    raw = refusal("queue_full", "r", "", b"", b"gw", False, True)
    assert raw.endswith(b"connection: close\r\n\r\n")
    assert int(Answer(raw).fields["content-length"]) > 0


def test_a_node_that_is_no_token() -> None:
    """A name that begins with a digit is written as a string (RFC 8941)."""
    got = Answer(refusal("queue_full", "r", "", b"", b"5f2a", True, False))
    assert got.fields["proxy-status"].startswith('"5f2a"; error=')


@given(st.text())
def test_details_cannot_break_out(detail: str) -> None:
    """Whatever a detail quotes of a peer's bytes, it ends no line and no string, and the body stays JSON."""
    raw = refusal("upstream_protocol_error", "upstream/u", detail, b"", b"gw", True, False)
    got = Answer(raw)
    assert re.fullmatch(
        r'gw; error=http_protocol_error; details="(?:[ !#-\[\]-~]|\\["\\])*"; edgeq-reason=upstream_protocol_error; '
        r'edgeq-resource="upstream/u"',
        got.fields["proxy-status"],
    )
    assert got.problem["detail"] == (detail or REASONS["upstream_protocol_error"].told())
