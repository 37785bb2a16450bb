"""The thread that has the store of accounts: what it needs of the machine, and what it can do without.

All else of the keeper is seen from outside, in tests/process.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeq.llm import keeper_io


def test_no_rank_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a filter of system calls forbids it, as the systemd unit's does, the store is served at the usual rank."""

    def forbidden(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    with ThreadPoolExecutor(1, initializer=keeper_io._be_nice) as thread:
        assert thread.submit(int, "1").result() == 1
