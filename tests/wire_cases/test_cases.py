"""Every case of tests/cases against a running gateway, whole and in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import corpus
from tests.support.gateway import Gateway, Settings, Value, running
from tests.support.judge import CasePlayer, judge
from tests.support.scripted_upstream import upstream

CASES = corpus.load(Path(__file__).parents[1] / "cases")
IN_PIECES = [case for case in CASES if not case.only_whole]
_MOST_PIECES = 400
ROUTES: list[Value] = [
    {"name": "rest", "upstream": "u"},
    {"name": "private", "upstream": "u", "match": {"path": "/private/*"}},
]
SETTINGS = Settings(first_byte_s=5, answer_body_s=5, body_bytes=1024 * 1024, extra={"route": ROUTES})


@pytest.fixture(scope="module")
def player() -> Iterator[CasePlayer]:
    """One gateway and one upstream for all cases."""
    with upstream() as server, running(server.port, SETTINGS) as gateway:
        yield CasePlayer(gateway, server)
        assert gateway_is_well(gateway), gateway.describe()


def gateway_is_well(gateway: Gateway) -> bool:
    """No process of the gateway died on the way."""
    return gateway.is_alive() and "Traceback" not in gateway.stderr()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_whole(player: CasePlayer, case: corpus.Case) -> None:
    """A request sent at once leads to one of the outcomes that its case allows."""
    wrong = judge(case, player.play(case))
    assert not wrong, report(case, wrong)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_early(player: CasePlayer, case: corpus.Case) -> None:
    """A request that is there when its connection is accepted has the same outcome."""
    wrong = judge(case, player.play(case, early=True))
    assert not wrong, report(case, wrong)


@pytest.mark.parametrize("case", IN_PIECES, ids=lambda case: case.id)
def test_in_pieces(player: CasePlayer, case: corpus.Case) -> None:
    """The same request byte by byte (larger ones in 400 pieces), each read before the next, has the same outcome."""
    piece_bytes = max(1, -(-len(case.request) // _MOST_PIECES))
    wrong = judge(case, player.play(case, piece_bytes))
    assert not wrong, report(case, wrong)


def report(case: corpus.Case, wrong: list[str]) -> str:
    """The failure as a reader needs it."""
    lines = "\n  ".join(wrong)
    return f"{case.path.name}:{case.line} {case.sentence} ({case.source})\n  {lines}\n  request: {case.request[:600]!r}"
