"""The test bench tested: the format of the corpus, and what the judge calls wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import corpus
from tests.support.judge import Seen, judge
from tests.support.raw_client import Asked, BadAnswer, parse_answers
from tests.support.scripted_upstream import SeenRequest, chunked, strict_problems

CASE = """
== one
It is a case.
source: nowhere
> POST / HTTP/1.1
> X: \\0\\x7f{{ab*2}}\\
< HTTP/1.1 200 OK
<
then: close
client: 200, 4xx/501 truncated close
upstream: 1 request
upstream body: \\s
or:
refused late: 431
"""


def _case(text: str = CASE) -> corpus.Case:
    (case,) = corpus.parse(text, Path("x.txt"))
    return case


def test_a_case_is_read() -> None:
    """Bytes, keys and alternatives come out as the format says."""
    case = _case()
    assert case.request == b"POST / HTTP/1.1\r\nX: \0\x7fabab"
    assert case.answer == b"HTTP/1.1 200 OK\r\n\r\n"
    first, second = case.outcomes
    assert (first.statuses, first.truncated, first.end) == (["200", "4[0-9][0-9]|501"], True, "close")
    assert first.checks == [("upstream body", b" ")]
    assert (second.statuses, second.upstream) == (["431"], "incomplete")


@pytest.mark.parametrize(
    "line", ["client: 20", "upstream: some", "then: explode", "nonsense", "answer on: monday", "client sings: x"]
)
def test_a_mistake_is_named(line: str) -> None:
    """A mistake in a file is reported with file and line."""
    with pytest.raises(corpus.FormatError, match=r"x\.txt"):
        _case(CASE + line + "\n")


def test_a_case_needs_an_outcome() -> None:
    """A case that would accept anything is a mistake."""
    with pytest.raises(corpus.FormatError, match="lacks"):
        _case("== one\nIt is.\nsource: x\n> a\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x01\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsurplus",
        b"garbage\r\n\r\n",
    ],
)
def test_bad_answers_are_noticed(raw: bytes) -> None:
    """The client takes nothing that a strict reader would not take."""
    with pytest.raises(BadAnswer):
        parse_answers(raw, [Asked()], ended=True)


def test_truncation_is_noticed() -> None:
    """An answer that ends early is incomplete, whatever its framing."""
    for raw in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello")[:-1],
    ):
        (answer,) = parse_answers(raw, [Asked()], ended=True)
        assert not answer.complete


def test_strict_problems() -> None:
    """What a gateway must not send is noticed even where h11 takes it."""
    assert strict_problems(b"GET / HTTP/1.1\r\nHost: a") == []
    for head in (
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\nHost: a",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : y",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    ):
        assert strict_problems(head)


def test_the_judge_sees_a_smuggled_request() -> None:
    """A refusal is not enough when the upstream saw a request."""
    case = _case("== one\nIt is.\nsource: x\n> a\nrefused: 400\n")
    seen = Seen(raw=b"x")
    seen.answers = parse_answers(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", [Asked()], ended=True)
    seen.requests = [SeenRequest(b"GET", b"/admin", b"1.1", [], b"GET /admin HTTP/1.1")]
    wrong = judge(case, seen)
    assert any("upstream saw" in line for line in wrong)
    assert any("not closed" in line for line in wrong)
