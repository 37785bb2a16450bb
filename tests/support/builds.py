"""Which of the two builds is tested."""

from __future__ import annotations

import os

import pytest

ONCE = pytest.mark.skipif(
    bool(os.environ.get("EDGEQ_PURE")),
    reason="what it looks at is interpreted in both builds: once is enough, with `make test`",
)
"""For what takes long and has nothing to do with the hot path."""
