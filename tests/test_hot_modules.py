"""What mypyc compiles differently from what Python runs, looked for in the modules that are compiled."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATTERNS = re.findall(r'"(edgeq/[^"]+\.py)"', (ROOT / "setup.py").read_text())
FILES = sorted({file for pattern in PATTERNS for file in ROOT.glob(pattern)})


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_caught_error_has_one_type(file: Path) -> None:
    """Compiled, a name has the type that it gets first in its function: an error of another type that is caught under
    the same name raises TypeError instead of being caught."""
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef):
            caught: dict[str, str] = {}
            for handler in ast.walk(function):
                if isinstance(handler, ast.ExceptHandler) and handler.name and handler.type is not None:
                    kind = ast.unparse(handler.type)
                    assert caught.setdefault(handler.name, kind) == kind, f"{function.name}, line {handler.lineno}"
