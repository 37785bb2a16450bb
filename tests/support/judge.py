"""Plays one case of the corpus against a gateway and judges the outcome.

Cases run one after another against one gateway and one upstream, so what the upstream received meanwhile belongs to the
case. After each case a fresh client asks for a path of its own: its answer proves that nothing of the case is left in a
pooled connection (the heart of request smuggling), and orders the upstream's view after the case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re

from tests.support.corpus import Case, Outcome
from tests.support.gateway import Gateway
from tests.support.raw_client import Answer, Asked, BadAnswer, Ending, RawClient, parse_answers
from tests.support.scripted_upstream import ScriptedUpstream, SeenRequest, UpstreamConnection, echo, finish

_ANSWER_S = 3.0
_CLOSE_S = 2.0
_PROBE_PREFIX = b"/__probe"


@dataclasses.dataclass(slots=True)
class Seen:
    """What one case led to."""

    raw: bytes = b""
    answers: list[Answer] = dataclasses.field(default_factory=list)
    bad_answer: str = ""
    ending: Ending = Ending.OPEN
    kept: bool = False
    requests: list[SeenRequest] = dataclasses.field(default_factory=list)
    upstream_raw: bytes = b""
    problems: list[str] = dataclasses.field(default_factory=list)
    dangling: int = 0
    """Upstream connections that hold an incomplete request and are still open."""


class CasePlayer:
    """The upstream's script and the client's part, for one gateway."""

    def __init__(self, gateway: Gateway, upstream: ScriptedUpstream) -> None:
        self._gateway = gateway
        self._upstream = upstream
        self._case: Case | None = None
        self._numbers = itertools.count()
        upstream.script = self._script

    # -- the upstream's part (its own threads) -----------------------------------------------------------------------
    def _script(self, connection: UpstreamConnection) -> None:
        case = self._case
        if case is not None and case.answer_on == "connect" and case.answer is not None:
            connection.send(case.answer)
            finish(connection, case.then)
            connection.read_to_end()
            return
        while not connection.closed:
            case = self._case
            if case is not None and case.answer_on == "head" and case.answer is not None:
                if connection.read_head() is not None:
                    connection.send(case.answer)
                    finish(connection, case.then)
                    connection.read_to_end()
                return
            request = connection.read_request()
            if request is None:
                return
            case = self._case
            if case is None or case.answer is None or request.target.startswith(_PROBE_PREFIX):
                echo(connection, request)
            else:
                connection.send(case.answer)
                finish(connection, case.then)
                if b"\r\nHTTP/" not in case.answer and b" 101 " in case.answer.split(b"\r\n", 1)[0]:
                    _echo_tunnel(connection)

    # -- the client's part -------------------------------------------------------------------------------------------
    def play(self, case: Case, piece_bytes: int = 0, early: bool = False) -> Seen:
        """Run one case, whole or in pieces of `piece_bytes`. `early`: sent before the connection is accepted."""
        fresh = case.answer is not None and (case.answer_on != "request" or case.then != "keep")
        if fresh:
            self._upstream.drop_idle()
        self._case = case
        connections = list(self._upstream.connections)
        marks = {c.number: (len(c.received), len(c.requests), len(c.problems)) for c in connections}
        seen = Seen()
        try:
            self._client(case, seen, piece_bytes, early)
        finally:
            self._case = None
        if fresh:
            self._upstream.drop_idle()
        self._probe(seen)
        self._upstream.settle()  # what comes late must not be taken for the next case's
        for connection in list(self._upstream.connections):
            received, requests, problems = marks.get(connection.number, (0, 0, 0))
            mine = [r for r in connection.requests[requests:] if not r.target.startswith(_PROBE_PREFIX)]
            seen.requests += mine
            seen.problems += connection.problems[problems:]
            raw = bytes(connection.received[received:])
            seen.upstream_raw += raw if b" " + _PROBE_PREFIX not in raw or mine else b""
            if mine and not mine[-1].complete and case.answer_on == "request":
                seen.dangling += not connection.ended.wait(_CLOSE_S)
        return seen

    def _client(self, case: Case, seen: Seen, piece_bytes: int, early: bool) -> None:
        expected = max(len(outcome.statuses) for outcome in case.outcomes)
        upgrade = b"upgrade: websocket" in case.request.lower()
        asked = [Asked(case.method(n), upgrade) for n in range(expected)]
        with contextlib.ExitStack() as stack:
            with self._gateway.asleep() if early else contextlib.nullcontext():
                client = stack.enter_context(RawClient(self._gateway.address))
                if piece_bytes:
                    client.send_pieces(
                        case.request[at : at + piece_bytes] for at in range(0, len(case.request), piece_bytes)
                    )
                else:
                    client.send(case.request)
                if case.client_ends:
                    client.half_close()
            try:
                seen.answers = client.read_answers(asked, _ANSWER_S)
                fitting = [outcome for outcome in case.outcomes if _answers_fit(outcome, seen.answers)]
                if any(outcome.end == "keep" for outcome in fitting) and client.ending is Ending.OPEN:
                    self._ask_again(client, seen)
                elif not seen.kept and (not fitting or any(outcome.end == "close" for outcome in fitting)):
                    client.read_to_end(_CLOSE_S)
                    seen.answers = parse_answers(bytes(client.received), asked, client.ending is not Ending.OPEN)
            except BadAnswer as error:
                seen.bad_answer = str(error)
                if client.ending is Ending.OPEN:
                    client.read_to_end(0.2)
            seen.raw = bytes(client.received)
            seen.ending = client.ending

    def _ask_again(self, client: RawClient, seen: Seen) -> None:
        path = b"%b/again/%d" % (_PROBE_PREFIX, next(self._numbers))
        kept = len(client.received)
        try:
            again = client.ask(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path, timeout_s=_ANSWER_S)
            seen.kept = again.status == 200 and again.get(b"x-path") == path
        except BadAnswer:
            seen.kept = False
        del client.received[kept:]

    def _probe(self, seen: Seen) -> None:
        path = b"%b/%d" % (_PROBE_PREFIX, next(self._numbers))
        with RawClient(self._gateway.address) as client:
            try:
                answer = client.ask(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path)
            except BadAnswer as error:
                seen.problems.append(f"a later client got no answer: {error}")
                return
        if answer.status != 200 or answer.get(b"x-path") != path:
            seen.problems.append(f"a later client got a foreign answer: {answer}")


def _echo_tunnel(connection: UpstreamConnection) -> None:
    while data := connection.read_bytes(1):
        connection.send(data)


def _statuses_match(outcome: Outcome, answers: list[Answer]) -> bool:
    return len(answers) == len(outcome.statuses) and all(
        re.fullmatch(pattern, str(answer.status)) for pattern, answer in zip(outcome.statuses, answers, strict=True)
    )


def _answers_fit(outcome: Outcome, answers: list[Answer]) -> bool:
    complete = [answer.complete for answer in answers]
    return _statuses_match(outcome, answers) and complete == [True] * (len(answers) - 1) + [
        not outcome.truncated
    ] * bool(answers)


def judge(case: Case, seen: Seen) -> list[str]:
    """What is wrong; empty when one of the allowed outcomes holds."""
    complaints = [_compare(outcome, seen) for outcome in case.outcomes]
    if any(not complaint for complaint in complaints):
        return []
    return min(complaints, key=len)


def _compare(outcome: Outcome, seen: Seen) -> list[str]:
    wrong = [f"upstream: {problem}" for problem in seen.problems]
    if seen.bad_answer:
        wrong.append(f"client got invalid bytes: {seen.bad_answer}")
    got = [answer.status for answer in seen.answers]
    if not _statuses_match(outcome, seen.answers):
        wrong.append(f"client got {got or repr(seen.raw[:80])}, not {outcome.statuses or 'nothing'}")
    for index, answer in enumerate(seen.answers):
        last = index == len(seen.answers) - 1
        if answer.complete == (outcome.truncated and last):
            wrong.append(f"answer {index} is {'complete' if answer.complete else 'incomplete'}")
    if outcome.end == "close" and seen.ending is Ending.OPEN:
        wrong.append("the connection was not closed")
    if outcome.end == "keep" and not seen.kept:
        wrong.append("the connection does not serve a further request")
    wrong += _compare_upstream(outcome, seen)
    for key, value in outcome.checks:
        if not _check(key, value, seen):
            wrong.append(f"not so: {key}: {value.decode('latin-1')}; upstream saw {seen.upstream_raw[:500]!r}")
    return wrong


def _compare_upstream(outcome: Outcome, seen: Seen) -> list[str]:
    complete = sum(request.complete for request in seen.requests)
    heads = [request.head[:200] for request in seen.requests]
    if outcome.upstream == "nothing" and (seen.requests or seen.upstream_raw):
        return [f"upstream saw {heads or repr(seen.upstream_raw[:200])}"]
    if outcome.upstream == "incomplete":
        if complete:
            return [f"upstream saw {complete} complete requests: {heads}"]
        if seen.dangling:
            return ["the gateway left an incomplete request open at the upstream"]
    if outcome.upstream.isdigit() and complete != int(outcome.upstream):
        return [f"upstream saw {complete} complete requests, not {outcome.upstream}: {heads}"]
    return []


def _field(headers: list[tuple[bytes, bytes]], wanted: bytes) -> bool:
    name, colon, value = wanted.partition(b":")
    values = [item for key, item in headers if key == name.strip().lower()]
    return bool(values) and (not colon or b", ".join(values) == value.strip())


def _check(key: str, value: bytes, seen: Seen) -> bool:
    answer = seen.answers[-1] if seen.answers else None
    # A request of the case before that was cut may be noticed only now.
    request = next((one for one in seen.requests if one.complete), seen.requests[0] if seen.requests else None)
    if key == "client raw lacks":
        return value not in seen.raw
    if key == "upstream raw lacks":
        return value not in seen.upstream_raw
    if key.startswith("client"):
        if answer is None:
            return False
        if key == "client body":
            return answer.body == value
        if key == "client interim":
            return [str(status) for status in answer.interim] == value.decode().replace(",", " ").split()
        if key == "client trailer":
            return _field(answer.trailers, value)
        return _field(answer.headers, value) == (key == "client has")
    if request is None:
        return False
    if key == "upstream line":
        return request.head.split(b"\r\n")[0] == value
    if key == "upstream body":
        return request.body == value
    if key == "upstream trailer":
        return _field(request.trailers, value)
    if key == "upstream lacks trailer":
        return not _field(request.trailers, value)
    return _field(request.headers, value) == (key == "upstream has")
