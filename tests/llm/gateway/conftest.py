"""What all tests of this directory look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.llm.gateway.support import Stand, standing


@pytest.fixture(scope="package")
def running_stand() -> Iterator[Stand]:
    """One for the whole directory."""
    with standing() as stand:
        yield stand


@pytest.fixture
def stand(running_stand: Stand) -> Iterator[Stand]:
    """Nothing is left in it when a test begins, whatever the one before has done."""
    running_stand.wait_idle()
    yield running_stand
    running_stand.close_clients()
