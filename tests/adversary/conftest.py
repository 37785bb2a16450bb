"""Every test of this directory runs with the clock of its World."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fake_transport import frozen_time


@pytest.fixture(autouse=True)
def _frozen_time() -> Iterator[None]:
    with frozen_time():
        yield
