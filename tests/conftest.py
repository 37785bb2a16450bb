"""What all tests share: which edgeq is tested, and that the processes which tests start run the same one."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import edgeq
from edgeq.board.layout import Board
from edgeq.cli.version import hot_path

_HOME = Path(edgeq.__file__).resolve().parent.parent

# Tests use parts of the benchmarks; last on the path, so that the edgeq found there is not the one that is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# No test depends on the machine's speed: an example may take its time.
settings.register_profile("edgeq", deadline=None)
settings.load_profile("edgeq")

# A child process must run the edgeq that is tested here, whatever its working directory holds.
os.environ["PYTHONPATH"] = str(_HOME)
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_report_header() -> str:
    """Says which of the two builds the results are about."""
    return f"edgeq: {edgeq.__version__}, hot path {hot_path()}, from {_HOME}"


def pytest_configure() -> None:
    """Stop if the edgeq found here is not the one that was asked for."""
    if _asked("EDGEQ_INSTALLED") and not _HOME.is_relative_to(Path(sys.prefix).resolve()):
        pytest.exit(f"the installed edgeq should be tested, but the one in {_HOME} was found", returncode=3)
    wanted = "interpreted" if _asked("EDGEQ_PURE") else "compiled" if _asked("EDGEQ_REQUIRE_COMPILED") else hot_path()
    if hot_path() != wanted:
        pytest.exit(f"the {wanted} edgeq should be tested, but this one is {hot_path()}", returncode=3)


def pytest_collection_finish() -> None:
    """Nothing of what has been imported becomes garbage: a test that collects has its own objects looked at only."""
    gc.collect()
    gc.freeze()


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


@pytest.fixture
def board() -> Iterator[Board]:
    """Of two workers."""
    made = Board.create(2)
    for slot in range(2):
        made.use(slot)
    yield made
    made.close()
